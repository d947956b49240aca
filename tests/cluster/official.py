"""One official Python client that transfers money and appends to lists. Run as a script by ``tests.cluster.load``.

In a process of its own: while it waits it has the interpreter to itself.
"""

from __future__ import annotations

import json
import random
import select
import sys
import time
from typing import Any

from convex import ConvexClient, ConvexError

KEYS = "abcdef"

#: All that the client says of a call made as its connection breaks, before it has written the call to it. It fails the call but keeps what
#: it was asked, and sends that over its next connection, so that it happens all the same. No server can have a part in this.
GIVEN_UP = "channel closed"


def tell(**message: Any) -> None:
    print(json.dumps(message), flush=True)


def main(url: str, first: int, run: str, accounts: int, balance: float, pause: float) -> None:
    client = ConvexClient(url)
    count = 0
    while not select.select([sys.stdin], [], [], pause)[0]:
        count += 1
        keys = random.sample(KEYS, random.choice((1, 2)))
        began = time.monotonic()
        dice = random.random()
        value = first * 1_000_000.0 + count if dice < 0.35 else None
        try:
            if dice < 0.5:
                given = {"run": run, "keys": keys}
                saw = client.mutation("lists:read", given) if value is None else client.mutation("lists:append", given | {"value": value})
                tell(value=value, keys=keys, began=began, ended=time.monotonic(), saw=saw)
            elif dice < 0.6:
                total = client.mutation("bank:total_now")
                assert total == accounts * balance, f"there are {total}: money came or went"
                tell(ended=time.monotonic())
            else:
                source, target = random.sample(range(accounts), 2)
                client.mutation("bank:transfer", {"source": float(source), "target": float(target), "amount": float(random.randint(1, 30))})
                tell(ended=time.monotonic())
        except ConvexError:
            tell(ended=time.monotonic())  # not enough money
        except Exception as error:
            if str(error) == GIVEN_UP:
                tell(given_up=value, keys=keys, began=began)
            else:
                tell(failed=repr(error))
    tell(stopped=True)


if __name__ == "__main__":
    settings = json.loads(sys.argv[1])
    main(*(settings[name] for name in ("url", "first", "run", "accounts", "balance", "pause")))
