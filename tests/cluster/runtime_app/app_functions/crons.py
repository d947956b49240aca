from datetime import timedelta

from app_functions import ticks
from reactor import Crons

crons = Crons()
crons.interval("each second", timedelta(seconds=1), ticks.note, cron="each second", phase="ran")
crons.interval("slow", timedelta(seconds=1), ticks.slow)
