"""What ``/metrics`` told, read as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.parser import text_string_to_metric_families

__all__ = ["Scrape"]


class Scrape:
    """The samples of one answer, by name and labels.

    Attributes:
        kinds: counter, gauge or histogram, by the metric's name.
        helps: what each metric says of itself.
    """

    def __init__(self, text: str) -> None:
        self._samples: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        self.kinds: dict[str, str] = {}
        self.helps: dict[str, str] = {}
        for family in text_string_to_metric_families(text):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            assert name not in self.kinds, f"{name} is told twice"
            self.kinds[name], self.helps[name] = family.type, family.documentation
            for sample in family.samples:
                series = (sample.name, frozenset(sample.labels.items()))
                assert series not in self._samples, f"{series} is told twice"
                self._samples[series] = sample.value

    def __len__(self) -> int:
        return len(self._samples)

    def __call__(self, name: str, **labels: str) -> float:
        """The sum of all series of this name that have these labels."""
        return sum(value for (found, all), value in self._samples.items() if found == name and labels.items() <= dict(all).items())

    def series(self, name: str) -> Iterator[dict[str, str]]:
        """The labels of each series of this name."""
        return (dict(labels) for found, labels in self._samples if found == name)
