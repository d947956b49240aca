"""reactor: a reactive, transactional backend in Python.

Declare documents in ``schema.py``, write ``@query``, ``@mutation`` and ``@action`` functions in ``app_functions/``, run
``reactor dev``: every client watching a query keeps receiving its current result.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reactor.public import *  # noqa: F403
    from reactor.public import __all__ as __all__
else:

    def __getattr__(name: str) -> object:
        # Not imported before somebody asks: the command line, and whoever needs one layer only, start without the rest.
        value = globals()[name] = getattr(importlib.import_module("reactor.public"), name)
        return value
