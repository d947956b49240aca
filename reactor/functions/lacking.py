"""Names that users look for on a class out of habit, and that it lacks."""

from __future__ import annotations

from typing import NoReturn

__all__ = ["Lacking"]


class Lacking:
    """In a class body: says where to have what instances of this class lack. A subclass may have it.

    Not ``__getattr__``: with that, Python looks up every attribute of an instance the slow way, which costs a mutation 2 %.

    Args:
        instead: a sentence, or several.
        of: what the instances are called.
    """

    def __init__(self, instead: str, *, of: str | None = None) -> None:
        self._instead = instead
        self._of = of
        self._name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type) -> NoReturn:
        raise AttributeError(f"{self._of or owner.__name__} has no {self._name!r}: {self._instead}", name=self._name, obj=instance)
