"""The asyncio client of reactor servers."""

from reactor.client.client import Client, Subscription

__all__ = ["Client", "Subscription"]
