"""The text format in which Prometheus is told metrics, version 0.0.4."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from regrain.errors import encodable
from regrain.model.histogram import BOUNDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from regrain.model.histogram import Histogram

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(slots=True)
class Family:
    """A metric, with all its samples.

    Attributes:
        name: With its unit, and ``_total`` for counters.
        kind: ``gauge``, ``counter`` or ``histogram``.
        help: What it means.
        samples: Lines of it: what follows the name, labels, value.
    """

    name: str
    kind: str
    help: str
    samples: list[tuple[str, Mapping[str, str], float]] = field(default_factory=list)

    def add(self, value: float | None, **labels: str) -> Family:
        """Add a sample; what is not known is left out, since 0 would be a claim."""
        if value is not None:
            self.samples.append(("", labels, value))
        return self

    def add_times(self, times: Histogram) -> Family:
        """Add the samples of a histogram of times."""
        total = 0
        for bound, count in zip((*BOUNDS, float("inf")), times.counts, strict=True):
            total += count
            self.samples.append(("_bucket", {"le": _number(bound)}, total))
        self.samples.append(("_sum", {}, times.seconds))
        self.samples.append(("_count", {}, total))
        return self


def render(families: Iterable[Family]) -> str:
    """Return what Prometheus reads."""
    return "".join(line for family in families for line in _lines(family))


def _lines(family: Family) -> Iterable[str]:
    text = family.help.replace("\\", r"\\").replace("\n", r"\n")
    yield f"# HELP {family.name} {text}\n# TYPE {family.name} {family.kind}\n"
    for suffix, labels, value in family.samples:
        pairs = ",".join(f'{name}="{_quoted(text)}"' for name, text in labels.items())
        yield f"{family.name}{suffix}{f'{{{pairs}}}' if pairs else ''} {_number(value)}\n"


def _quoted(text: str) -> str:
    return encodable(text).replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    if value == float("inf"):
        return "+Inf"
    return str(int(value)) if value == int(value) else repr(float(value))
