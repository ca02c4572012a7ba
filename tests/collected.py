"""What OpenTelemetry's SDK collects in a test: the spans that ended, the points of the metrics, what was logged."""

from collections.abc import Iterable, Sequence
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.trace import StatusCode

from inkturns.telemetry import Instrumentation, instrument
from inkturns.turns import Turns

__all__ = ["Collected", "check_spans", "compared"]

Ended = Sequence[ReadableSpan]


class Collected(SpanProcessor):
    """Two providers in memory. `ended` has the spans in the order in which they ended, `begun` how many began."""

    def __init__(self) -> None:
        self.ended: list[ReadableSpan] = []
        self.begun = 0
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(self)
        self._reader = InMemoryMetricReader()
        self.meters = MeterProvider([self._reader], shutdown_on_exit=False)

    def on_start(self, span: Span, parent_context: object = None) -> None:
        self.begun += 1

    def on_end(self, span: ReadableSpan) -> None:
        self.ended.append(span)

    def of(self, turns: Turns, **options: Any) -> Instrumentation:
        return instrument(turns, tracer_provider=self.tracers, meter_provider=self.meters, **options)

    def named(self, name: str) -> Ended:
        """In the order in which they began."""
        return sorted((span for span in self.ended if span.name == name), key=lambda span: span.start_time or 0)

    @property
    def turns(self) -> Ended:
        return [span for span in self.ended if span.parent is None]

    @property
    def points(self) -> dict[str, list[Any]]:
        """The points of each metric."""
        data = self._reader.get_metrics_data()
        found: dict[str, list[Any]] = {}
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    found[metric.name] = [*metric.data.data_points]
        return found

    def total(self, name: str, **of: object) -> float:
        """The sum of a counter, of the points with these attributes: `thought__outcome` is inkturns.thought.outcome."""
        wanted = {"inkturns." + key.replace("__", "."): value for key, value in of.items()}
        points = [point for point in self.points.get(name, ()) if wanted.items() <= dict(point.attributes).items()]
        return sum(float(point.value) for point in points)

    def histogram(self, name: str) -> tuple[int, float]:
        """How many values, and their sum."""
        points = self.points.get(name, ())
        return sum(point.count for point in points), round(sum(point.sum for point in points), 6)

    @property
    def everything(self) -> str:
        """All that was told, as text."""
        return " ".join([*(span.to_json() for span in self.ended), f"{self.points}"])


def check_spans(collected: Collected, *, in_order: bool = True) -> None:
    """What holds of the spans of any call that is over. `in_order`: its turns came in the order of their numbers."""
    spans = collected.ended
    assert len({span.context.span_id for span in spans if span.context}) == len(spans) == collected.begun
    known = {span.context.span_id: span for span in spans if span.context}
    before: ReadableSpan | None = None
    for root in sorted(collected.turns, key=lambda span: str((span.attributes or {})["inkturns.turn.number"]).zfill(9)):
        linked = [link.context.span_id for link in root.links]
        assert not in_order or before is None or (before.context and before.context.span_id in linked)
        before = root
    for span in spans:
        assert span.start_time is not None
        assert span.end_time is not None
        assert span.start_time <= span.end_time
        assert all(span.start_time <= event.timestamp <= span.end_time for event in span.events)
        of = span.attributes or {}
        failed = "failed" in (of.get("inkturns.thought.outcome"), of.get("inkturns.reply.outcome"))
        assert (span.status.status_code is StatusCode.ERROR) == failed == ("error.type" in of)
        assert not span.status.description
        assert not failed or "inkturns.thought.reason" not in of
        if span.parent is not None:
            parent = known[span.parent.span_id]
            assert parent.parent is None
            assert parent.context
            assert span.context
            assert parent.context.trace_id == span.context.trace_id
            assert parent.start_time is not None
            assert parent.end_time is not None
            assert parent.start_time <= span.start_time <= span.end_time <= parent.end_time


def compared(spans: Iterable[ReadableSpan]) -> list[Any]:
    """All that a span says, for a comparison; times count from the first span, ids are places in the order."""
    spans = [*spans]
    first = min((span.start_time or 0 for span in spans), default=0)
    places = {span.context.span_id: place for place, span in enumerate(spans) if span.context}
    return [
        (
            span.name,
            span.parent and places[span.parent.span_id],
            (span.start_time or 0) - first,
            (span.end_time or 0) - first,
            dict(span.attributes or {}),
            span.status.status_code,
            [(event.name, event.timestamp - first, dict(event.attributes or {})) for event in span.events],
            [places.get(link.context.span_id) for link in span.links],
        )
        for span in spans
    ]
