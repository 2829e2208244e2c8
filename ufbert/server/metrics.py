"""Figures for Prometheus, in its text format, under the names that TEI's dashboards know."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from threading import Lock

__all__ = ["SECONDS", "SIZES", "Counter", "Gauge", "Histogram", "Metrics"]

SECONDS = tuple(1.5e-5 * 1.5**k for k in range(35))
SIZES = tuple(float(2**k) for k in range(20))
PARTS = {"total": "", "tokenization": "_tokenization", "queue": "_queue", "inference": "_inference"}
Labels = tuple[tuple[str, str], ...]


class Counter:
    """Sums, one for each set of labels."""

    kind = "counter"

    def __init__(self, name: str, about: str) -> None:
        self.name, self.about = name, about
        self._values: dict[Labels, float] = {}
        self._lock = Lock()

    def add(self, amount: float = 1, **labels: str) -> None:
        """Add to one sum."""
        key = tuple(labels.items())
        with self._lock:
            self._values[key] = self._values.get(key, 0) + amount

    def samples(self) -> Iterator[tuple[str, Labels, float]]:
        """Name, labels and value of each line."""
        with self._lock:
            values = dict(self._values) or {(): 0}
        yield from ((self.name, labels, value) for labels, value in values.items())


class Gauge:
    """A figure that is read when it is asked for; a mapping has one for each value of the label ``model``."""

    kind = "gauge"

    def __init__(self, name: str, about: str, read: Callable[[], float | Mapping[str, float]]) -> None:
        self.name, self.about, self._read = name, about, read

    def samples(self) -> Iterator[tuple[str, Labels, float]]:
        """Name, labels and value of each line."""
        found = self._read()
        if isinstance(found, Mapping):
            yield from ((self.name, (("model", model),), value) for model, value in found.items())
        else:
            yield self.name, (), found


class Histogram:
    """Counts of figures below fixed bounds."""

    kind = "histogram"

    def __init__(self, name: str, about: str, bounds: Sequence[float]) -> None:
        self.name, self.about, self._bounds = name, about, bounds
        self._counts, self._sum = [0] * (len(bounds) + 1), 0.0
        self._lock = Lock()

    def observe(self, value: float) -> None:
        """Count one figure."""
        with self._lock:
            self._counts[bisect_left(self._bounds, value)] += 1
            self._sum += value

    def samples(self) -> Iterator[tuple[str, Labels, float]]:
        """Name, labels and value of each line."""
        with self._lock:
            counts, total = list(self._counts), self._sum
        below = 0
        for bound, count in zip((*self._bounds, float("inf")), counts, strict=True):
            below += count
            yield f"{self.name}_bucket", (("le", "+Inf" if bound == float("inf") else f"{bound:.6g}"),), below
        yield f"{self.name}_sum", (), total
        yield f"{self.name}_count", (), below


class Sum:
    """A histogram of all figures of several, which have the same bounds."""

    kind = "histogram"

    def __init__(self, name: str, about: str, parts: Sequence[Histogram]) -> None:
        self.name, self.about, self._parts = name, about, parts

    def samples(self) -> Iterator[tuple[str, Labels, float]]:
        """Name, labels and value of each line."""
        name = self._parts[0].name
        for lines in zip(*(part.samples() for part in self._parts), strict=True):
            yield lines[0][0].replace(name, self.name, 1), lines[0][1], sum(value for _, _, value in lines)


class Metrics:
    """All figures of a service."""

    def __init__(self) -> None:
        self._all: list[Counter | Gauge | Histogram | Sum] = []
        self.requests = self._counter("te_request_count", "requests for inference; method: single or batch")
        self.successes = self._counter("te_request_success", "requests that were answered")
        self.failures = self._counter("te_request_failure", "requests that were not answered; err: why")
        self.kinds = {
            kind: (
                self._counter(f"te_{kind}_count", f"texts for {kind}"),
                self._counter(f"te_{kind}_success", f"texts of answered requests for {kind}"),
                self._times(f"te_{kind}", f"a request for {kind}"),
            )
            for kind in ("embed", "predict")
        }
        for part, infix in PARTS.items():
            both = [times[part] for _, _, times in self.kinds.values()]
            self._all.append(Sum(f"te_request{infix}_duration", f"seconds of a request: {part}", both))
        self.input_length = self._histogram("te_request_input_length", "tokens of a text", SIZES)
        self.batch_size = self._histogram("te_batch_next_size", "texts of a batch", SIZES)
        self.batch_tokens = self._histogram("te_batch_next_tokens", "tokens of a batch", SIZES)
        self.answers = self._counter("ufbert_responses", "responses of all routes by path and status")
        self.tokens = self._counter("ufbert_tokens", "tokens that ran through a model")
        self.compute = self._counter("ufbert_compute_seconds", "time that workers computed")

    def gauge(self, name: str, about: str, read: Callable[[], float | Mapping[str, float]]) -> None:
        """Add a figure that is read when it is asked for."""
        self._all.append(Gauge(name, about, read))

    def text(self) -> str:
        """Write everything in Prometheus' text format, version 0.0.4."""
        lines: list[str] = []
        for metric in self._all:
            lines += [f"# HELP {metric.name} {metric.about}", f"# TYPE {metric.name} {metric.kind}"]
            for name, labels, value in metric.samples():
                inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels)
                lines.append(f"{name}{{{inside}}} {value:.10g}" if inside else f"{name} {value:.10g}")
        return "\n".join(lines) + "\n"

    def _counter(self, name: str, about: str) -> Counter:
        self._all.append(found := Counter(name, about))
        return found

    def _histogram(self, name: str, about: str, bounds: Sequence[float]) -> Histogram:
        self._all.append(found := Histogram(name, about, bounds))
        return found

    def _times(self, stem: str, what: str) -> dict[str, Histogram]:
        """Histograms of a whole request and of its three parts."""
        return {
            part: self._histogram(f"{stem}{infix}_duration", f"seconds of {what}: {part}", SECONDS)
            for part, infix in PARTS.items()
        }


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
