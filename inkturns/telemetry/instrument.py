"""instrument: tells OpenTelemetry about one call, through the place of its recorder.

Rules of this file: telemetry hears what a recorder hears, after the recorder that was there before. No error of its own
reaches the call: the error's type is logged once, and telemetry takes itself off.
"""

import logging
import sys
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from hashlib import sha256
from time import monotonic, time_ns
from typing import Any, TypeVar, cast

import attrs
from opentelemetry import context, metrics, trace
from opentelemetry.metrics import MeterProvider, NoOpMeterProvider
from opentelemetry.trace import NoOpTracerProvider, TracerProvider
from opentelemetry.util.types import AttributeValue

from inkturns.actions import Action, Hear
from inkturns.events import Event, TurnUpdate
from inkturns.recording import VERSION, Recorder, share
from inkturns.telemetry import names
from inkturns.telemetry.call import CallTelemetry
from inkturns.telemetry.metrics import Metrics
from inkturns.telemetry.notes import Clock, ThoughtNote
from inkturns.telemetry.spans import Spans, sendable
from inkturns.turns import Turns

__all__ = ["OWN", "Instrumentation", "Options", "instrument"]

Provider = TypeVar("Provider", TracerProvider, MeterProvider)
Line = Mapping[str, Any]  # a note of the agent's, as a recorder is given it
LOGGER = logging.getLogger("inkturns")
SETTLED = ThoughtNote.__struct_fields__
OWN = frozenset(value for value in vars(names).values() if isinstance(value, str))  # names that it uses itself
LARGEST = 2**63 - 1  # that OTLP can say


def instrument(
    turns: Turns,
    *,
    name: str = "agent",
    call: str | None = None,
    hash_call: bool = False,
    sample: float = 1.0,
    attributes: Mapping[str, str | bool | int | float] | None = None,
    currency: str | None = None,
    content: bool = False,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
) -> "Instrumentation":
    """Tells OpenTelemetry about one call: of an `Agent`, before its `run`, or of a watching `Turns`. Returns the handle
    whose `remove()` takes it off. Where no provider is set up when the call begins, it takes itself off.

    name             `gen_ai.agent.name`
    call             the call's id, `gen_ai.conversation.id` of its spans
    hash_call        True: the first half of the id's SHA-256 stands there instead. An id that can be guessed, a
                     telephone number, can be guessed from it too
    sample           the share of calls that are kept, 0.0 to 1.0; `call` decides, as in `Recorder`. In the others it
                     does nothing: metrics are of the calls that are kept, so that their ratios and quantiles hold, and
                     their sums are that share
    attributes       more attributes for spans and metrics; a name that telemetry uses itself is refused. Labels and
                     notes are not added
    currency         of `thought.usage(cost=…)`: "USD". Without it no cost is counted
    content          True: what was said stands in the spans, as `gen_ai.input.messages` and `gen_ai.output.messages`;
                     nothing of what the call's recorder leaves out in a pause
    tracer_provider, meter_provider  None: the global ones

    Raises TypeError or ValueError for nonsense."""
    for field, given, kind, wanted in (
        ("turns", turns, Turns, "an Agent or a Turns"),
        ("attributes", attributes, Mapping | None, "a mapping or None"),
        ("tracer_provider", tracer_provider, TracerProvider | None, "a TracerProvider or None"),
        ("meter_provider", meter_provider, MeterProvider | None, "a MeterProvider or None"),
    ):
        if not isinstance(given, kind):
            raise TypeError(f"instrument: {field} must be {wanted}, got {type(given).__name__}")
    for key, value in {"name": name, **{f"attributes[{key!r}]": of for key, of in (attributes or {}).items()}}.items():
        if call is not None and value == call:
            raise ValueError(f"instrument: {key} is the call's id: each call would be a metric")
    options = Options(name, call, hash_call, sample, dict(attributes or {}), currency, content)
    return Instrumentation(turns, options, tracer_provider, meter_provider)


@attrs.frozen
class Options:
    """What `instrument` was given about the call; checked."""

    name: str = "agent"
    call: str | None = None
    hash_call: bool = False
    sample: float = 1.0
    attributes: Mapping[str, AttributeValue] = attrs.field(factory=dict)
    currency: str | None = None
    content: bool = False

    def __attrs_post_init__(self) -> None:
        for field, kind, wanted in _FIELDS:
            if not isinstance(value := getattr(self, field), kind):
                raise TypeError(f"instrument: {field} must be {wanted}, got {value!r}")
        if isinstance(self.sample, bool) or not 0 <= self.sample <= 1:
            raise ValueError(f"instrument: sample must be a share from 0.0 to 1.0, got {self.sample!r}")
        if self.sample < 1 and self.call is None:
            raise ValueError("instrument: sample needs `call`, the id by which it is decided whether the call is kept")
        for key, value in self.attributes.items():
            if not isinstance(key, str) or not isinstance(value, str | bool | int | float):
                raise TypeError(f"instrument: attributes must be text, numbers or booleans by name, got {key!r}")
            if not key or key in OWN:
                raise ValueError(f"instrument: attributes must have names that telemetry does not use, got {key!r}")
            if not isinstance(value, str) and not -LARGEST <= value <= LARGEST:
                raise ValueError(f"instrument: attributes[{key!r}] must be finite and within 64 bits, got {value}")

    @property
    def is_kept(self) -> bool:
        return self.sample == 1 or (self.call is not None and share(self.call) < self.sample)

    def common(self) -> dict[str, AttributeValue]:
        """The attributes of all metrics."""
        given = {names.AGENT: self.name, **self.attributes}
        return {sendable(key): sendable(value) if isinstance(value, str) else value for key, value in given.items()}

    def of_spans(self) -> dict[str, AttributeValue]:
        """The attributes of all spans."""
        call = self.call
        if call is not None and self.hash_call:
            call = sha256(call.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        return self.common() if call is None else {**self.common(), names.CONVERSATION: sendable(call)}

    def spans(self, provider: TracerProvider) -> Spans:
        return Spans(provider.get_tracer("inkturns", VERSION), sendable(self.name), self.of_spans(), self.content)


_FIELDS: tuple[tuple[str, Any, str], ...] = (
    ("name", str, "text"),
    ("call", str | None, "text or None"),
    ("hash_call", bool, "True or False"),
    ("sample", int | float, "a share from 0.0 to 1.0"),
    ("currency", str | None, "text or None"),
    ("content", bool, "True or False"),
)


class Instrumentation:
    """What `instrument` returns. It stands where the recorder stood, and passes everything on to it."""

    def __init__(
        self, turns: Turns, options: Options, tracers: TracerProvider | None, meters: MeterProvider | None
    ) -> None:
        self._turns = turns
        self._options = options
        self._tracers = tracers
        self._meters = meters
        self._recorder = turns.recorder
        self._outer = trace.get_current_span().get_span_context()
        self._call: CallTelemetry | None = None
        self._last = 0.0  # seconds, of what it was told last
        self._ahead: float | None = None  # seconds ahead of the call's clock; None: it has given no time yet
        self._is_off = False
        if options.is_kept:
            turns.recorder = cast(Recorder, self)

    def remove(self) -> None:
        """Takes it off: spans that are open end now, and the recorder stands in its place again. A watcher's call is
        over with this; an agent's ends by itself."""
        if self._turns.recorder is cast(Recorder, self):
            self._turns.recorder = self._recorder
        self._safely(self._over)

    # -- what a recorder is told

    def write(self, item: object, event: Event | None, now: float | None, actions: tuple[Action, ...]) -> None:
        if self._recorder is not None:
            self._recorder.write(item, event, now, actions)
        if type(event) is TurnUpdate and len(actions) == 1 and type(actions[0]) is Hear:  # most frames
            self._safely(self._time, now)
        else:
            self._safely(self._take, event, now, actions)

    def note(self, line: Line) -> None:
        if self._recorder is not None:
            self._recorder.note(line)
        what, call = line.get("agent"), self._call
        if what == "run":
            self._safely(self._run, line)
        elif call is not None and what in NOTES:
            self._safely(NOTES[what], call, line)

    def close(self) -> None:
        if self._recorder is not None:
            self._recorder.close()
        self._safely(self._over)

    def __getattr__(self, name: str) -> Any:
        if (recorder := self.__dict__.get("_recorder")) is None:
            raise AttributeError(f"there is no recorder, which would have {name!r}")
        return getattr(recorder, name)  # `pause`, say

    # -- what it makes of that

    def _safely(self, function: Callable[..., object], *given: object) -> None:
        if self._is_off:
            return
        try:
            function(*given)
        except Exception as error:
            LOGGER.warning("telemetry takes itself off: %s", type(error).__name__)
            with suppress(Exception):
                self._over()

    def _take(self, event: Event | None, now: float | None, actions: tuple[Action, ...]) -> None:
        t = self._time(now)
        call = self._call or self._begin(t, ())
        if call is not None:
            call.take(event, actions, t)

    def _time(self, now: float | None) -> float:
        """When something came. What has no time came at the time of the last that had one; before the first one, this
        machine's clock counts, and the call's is set by it."""
        if now is not None and abs(now) <= sys.float_info.max:
            if self._ahead is None:
                self._ahead = 0.0 if self._call is None else monotonic() - now
            self._last = now + self._ahead
        elif self._ahead is None:
            self._last = monotonic()
        return self._last

    def _run(self, line: Line) -> None:
        self._outer = trace.get_current_span().get_span_context()
        self._begin(self._time(line["t"]), [*line])

    def _begin(self, t: float, roles: Collection[str]) -> CallTelemetry | None:
        tracers = self._tracers or _unless_idle(trace.get_tracer_provider())
        meters = self._meters or _unless_idle(metrics.get_meter_provider())
        if tracers is None and meters is None:
            self.remove()
            return None
        spans = self._options.spans(tracers or NoOpTracerProvider())
        spans.outer = self._outer
        counts = Metrics(meters or NoOpMeterProvider(), self._options.common(), self._options.currency)
        self._call = CallTelemetry(spans, counts, Clock(t, time_ns()), roles, self._hides)
        return self._call

    def _over(self) -> None:
        self._is_off = True
        call, self._call = self._call, None
        if call is not None:
            call.over(self._last)

    def _hides(self, number: int) -> bool:
        """Whether the recorder, which may be another Instrumentation, writes nothing of that turn."""
        hides = getattr(self._recorder, "hides", None)
        return hides is not None and hides(number)


def _runs(call: CallTelemetry, line: Line) -> None:
    """In the task of a thought, or of a reply; its context ends with it."""
    inner = call.context_of(line["turn"], line.get("thought"))
    if inner is not None:
        context.attach(inner)


def _settled(call: CallTelemetry, line: Line) -> None:
    settled = line["settled"]
    call.settled(line["turn"], ThoughtNote(**{name: settled[name] for name in SETTLED}), line["t"])


NOTES: dict[str, Callable[[CallTelemetry, Line], None]] = {
    "began": _runs,
    "catching_up": lambda call, line: call.catches_up(line["turn"]),
    "responds": _runs,
    "settled": _settled,
    "replied": lambda call, line: call.replied(line["turn"], line["replied"], line.get("error")),
    "report": lambda call, line: call.report(line["report"].kind, line["t"]),
}


def _unless_idle(provider: Provider) -> Provider | None:
    """None for a provider of the API's own, which stands there until another is set, and does nothing."""
    return None if type(provider).__module__.startswith(("opentelemetry.trace", "opentelemetry.metrics")) else provider
