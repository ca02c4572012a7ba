"""The spans of a call: a trace a turn, with its thoughts and its reply.

Rules of this file: it decides nothing and reads no clock; every span that it begins it ends once; it sets no words
unless `content` is asked for, and of an error nothing but its type.
"""

import json
from collections.abc import Mapping

import attrs
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanContext, Status, StatusCode, Tracer
from opentelemetry.util.types import AttributeValue

from inkturns.telemetry import names

__all__ = ["Spans", "Value", "inside", "sendable"]

Value = AttributeValue | None  # None: it is not set
Attributes = Mapping[str, Value]
EMPTY = Context()
ERROR = Status(StatusCode.ERROR)


@attrs.define(eq=False)
class Spans:
    """Begins and ends spans with a tracer; all times are nanoseconds since 1970.

    name     of the agent
    common   attributes of every span
    content  whether words are set
    outer    the span that is current where the call began; each turn links to it, and is no child of it

    What the tracer does not record costs next to nothing here."""

    tracer: Tracer
    name: str
    common: Mapping[str, AttributeValue]
    content: bool
    outer: SpanContext | None = None
    _before: SpanContext | None = None  # the root of the turn before

    def turn(self, at: int, attributes: Attributes) -> Span:
        linked = [context for context in (self.outer, self._before) if context is not None and context.is_valid]
        span = self.tracer.start_span(
            f"invoke_agent {self.name}",
            EMPTY,  # no parent: a trace of its own
            attributes={names.OPERATION: "invoke_agent", **self.common, **_known(attributes)},
            links=[Link(context) for context in linked],
            start_time=at,
        )
        self._before = span.get_span_context()
        return span

    def child(self, name: str, turn: Span, at: int) -> Span:
        context = trace.set_span_in_context(turn, EMPTY)
        return self.tracer.start_span(name, context, attributes=self.common, start_time=at)

    def event(self, span: Span, name: str, at: int, attributes: Attributes | None = None) -> None:
        if span.is_recording():
            span.add_event(name, None if attributes is None else _known(attributes), at)

    def end(
        self, span: Span, at: int, attributes: Attributes, *, failed: bool = False, error: str | None = None
    ) -> None:
        """Ends it: UNSET, and ERROR where it has failed, with the error's type alone."""
        if not span.is_recording():
            return
        span.set_attributes(_known({**attributes, names.ERROR: (error or "_OTHER") if failed else None}))
        if failed:
            span.set_status(ERROR)
        span.end(at)

    def words(self, span: Span, name: str, role: str, text: str) -> None:
        """Sets what was said, where that is asked for."""
        if self.content and text and span.is_recording():
            messages = [{"role": role, "parts": [{"type": "text", "content": sendable(text)}]}]
            span.set_attribute(name, json.dumps(messages, ensure_ascii=False))


def sendable(text: str) -> str:
    """A lone surrogate, which UTF-8 cannot hold, becomes "?": otherwise an exporter loses all that it sends with it."""
    return text.encode("utf-8", "replace").decode()


def inside(span: Span) -> Context:
    """The context of this moment, with the span as the current one."""
    return trace.set_span_in_context(span)


def _known(attributes: Attributes) -> dict[str, AttributeValue]:
    return {name: value for name, value in attributes.items() if value is not None}
