"""Sends spans of recordings over OTLP; needs the SDK and its exporter, which `inkturns[otel]` does not bring."""

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

__all__ = ["Sender"]

BATCH = 512  # spans of a request
PATH = "/v1/traces"


class Sender(SpanProcessor):
    """Keeps the spans of its `provider` until `flush`. `sent` counts what was taken."""

    def __init__(self, url: str) -> None:
        self.sent = 0
        self._ended: list[ReadableSpan] = []
        base = url.rstrip("/")
        self._exporter = OTLPSpanExporter(endpoint=base if base.endswith(PATH) else base + PATH)
        self.provider = TracerProvider(sampler=ALWAYS_ON, shutdown_on_exit=False)
        self.provider.add_span_processor(self)

    def on_end(self, span: ReadableSpan) -> None:
        self._ended.append(span)

    def flush(self) -> None:
        """Sends what has ended. Raises ConnectionError where the endpoint does not accept them."""
        ended, self._ended = self._ended, []
        for start in range(0, len(ended), BATCH):
            batch = ended[start : start + BATCH]
            if self._exporter.export(batch) is not SpanExportResult.SUCCESS:
                raise ConnectionError(f"the endpoint did not accept the spans; {self.sent} were sent before")
            self.sent += len(batch)
