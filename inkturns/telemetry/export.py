"""Recordings as spans: those that the live call gave, with their own times.

Rules of this file: what is sent is made by the same code as of a live call, from the lines of the recording; a note
that cannot be read costs that note.
"""

from datetime import UTC, datetime

from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.trace import TracerProvider

from inkturns.errors import RecordingError
from inkturns.reader import Header, OnError
from inkturns.report.calls import Input, Note, RecordedCall
from inkturns.report.drafts import ReportNote
from inkturns.serialize import converted
from inkturns.telemetry.call import CallTelemetry
from inkturns.telemetry.instrument import Options
from inkturns.telemetry.metrics import Metrics
from inkturns.telemetry.notes import Clock, ReplyNote, ThoughtNote

__all__ = ["export"]

LATEST = 4e9  # seconds since 1970: OTLP's times end in 2554


def export(call: RecordedCall, options: Options, tracers: TracerProvider, on_error: OnError) -> None:
    """Makes the spans of a recorded call with a provider, whose processors send them. What was recorded without its
    actions, or in a pause, is in no span, and a call in which nothing came has none. Raises RecordingError for a call
    whose times nobody knows; a note that cannot be read is handed to `on_error`."""
    if not call.steps:
        return
    first = next((step.t for step in call.steps if isinstance(step, Input | Note) and step.t is not None), None)
    if first is None:
        raise RecordingError("no line of this call has a time, so its spans have none")
    clock = Clock(first, _started(call.header))
    telemetry = CallTelemetry(options.spans(tracers), Metrics(NoOpMeterProvider(), {}, None), clock)
    last = first
    for step in call.steps:
        if not isinstance(step, Input | Note):
            continue
        last = last if step.t is None else step.t
        if isinstance(step, Input):
            telemetry.take(step.event, step.actions, last)
            continue
        try:
            _note(telemetry, step, last)
        except RecordingError as error:
            on_error(RecordingError(f'a note of turn {step.turn}, "{step.what}": {error.reason}'))
    telemetry.over(last)


def _note(telemetry: CallTelemetry, note: Note, t: float) -> None:
    facts = note.facts
    match note.what:
        case "run":
            telemetry.roles = [name for name, value in facts.items() if value is True]
        case "catching_up":
            telemetry.catches_up(note.turn)
        case "settled":
            telemetry.settled(note.turn, converted(facts.get("settled"), ThoughtNote), t)
        case "replied":
            error = facts.get("error")
            told = converted(facts.get("replied"), ReplyNote)
            telemetry.replied(note.turn, told, error if isinstance(error, str) else None)
        case "report":
            telemetry.report(converted(facts.get("report"), ReportNote).kind, t)


def _started(header: Header | None) -> int:
    """When the call began, in nanoseconds since 1970."""
    started = None if header is None else header.started
    try:
        if isinstance(started, str):
            date = datetime.fromisoformat(started)
            started = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
        if isinstance(started, int | float) and 0 <= started <= LATEST:
            return round(started * 1e9)
    except ValueError:
        pass
    raise RecordingError(f"spans need the day and time at which the call began, and its header has {started!r}")
