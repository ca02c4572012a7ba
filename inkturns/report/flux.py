"""What higher thresholds would have done with the turns of Deepgram Flux, whose messages say how sure it was.

Rules of this file: pure. It reads Flux's own messages, a JSON object a line, as they came off the wire: a recording has
them as events, which say nothing of the confidence. Their times are `audio_window_end`, or "t" where a line is
{"t": seconds, "frame": text}.

| Flux said      | and it was less sure than the new threshold | so it would have said                         |
|----------------|---------------------------------------------|-----------------------------------------------|
| EagerEndOfTurn | until a message of the same silence         | EagerEndOfTurn with that message              |
| EagerEndOfTurn | until the end, or until the user went on    | nothing                                       |
| EndOfTurn      | and the user spoke again before the timeout | nothing: the next turn would be the same one  |
| EndOfTurn      | and nobody spoke                            | the same later, at the latest at the timeout  |

Flux tells its confidence four times a second. An eager end that would have come between the last message and the end
is not seen: the head start is too short by a quarter of a second at the most.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Any

import attrs
import msgspec

from inkturns.adapters.flux import FluxSettings
from inkturns.errors import RecordingError
from inkturns.reader import OnError

__all__ = ["EOT_TIMEOUT_MS", "FluxMessage", "Raised", "flux_messages", "raise_thresholds"]

EOT_TIMEOUT_MS = 5000  # Flux's default

NOT_TOLD = (
    "Ink 2 does not send the likelihood by which it decides, so no recording can tell what other thresholds would have "
    "done. Try them on a part of the calls, and compare: inkturns report --by settings"
)
NO_FRAMES = (
    "a recording has the messages of {} as events, without the confidence. Write Flux's messages to a file as they "
    "come, a JSON object a line, and give that"
)

Number = Annotated[float, msgspec.Meta(ge=0, le=1e15)]


class _TurnInfo(msgspec.Struct, gc=False):
    """What decides, of a message. Flux's numbers may come as strings."""

    type: str
    event: str | None = None
    transcript: str | None = None
    turn_index: int | str | None = None
    audio_window_end: Number | None = None
    end_of_turn_confidence: Number | None = None
    trigger: str | None = None


class _Timed(msgspec.Struct, gc=False):
    frame: str
    t: Number | None = None


@attrs.frozen
class FluxMessage:
    """One message. `event`: a TurnInfo's, None for other messages. `confidence`: that the user has finished, 0 to 1.
    `sure`: whether the model decided; False: a timeout did, or the application."""

    t: float | None
    values: dict[str, Any]
    event: str | None = None
    confidence: float | None = None
    sure: bool = True

    @property
    def text(self) -> str:
        return str(self.values.get("transcript") or "")

    def said(self, event: str, **changed: object) -> "FluxMessage":
        return attrs.evolve(self, event=event, values={**self.values, "event": event, **changed})


def flux_messages(lines: Iterable[str | bytes], on_error: OnError) -> list[FluxMessage]:
    """The messages of a file. A line that cannot be read is for `on_error`. Raises RecordingError, with what to do
    instead, for Ink 2's frames and for recordings."""
    found: list[FluxMessage] = []
    base, now, read = 0.0, None, 0  # audio begins at 0 in each connection
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            values, t = _values(line)
            info = msgspec.convert(values, _TurnInfo, strict=False)
        except RecordingError:  # of a file that has no messages of Flux
            raise
        except (ValueError, RecursionError) as error:  # msgspec's are ValueErrors
            on_error(RecordingError(f"no message of Flux: {error}", number))
            continue
        if not read and info.type != "Connected" and info.type.partition(".")[0] in ("connected", "turn"):
            raise RecordingError(NOT_TOLD)
        read += 1
        if info.type == "Connected":
            base = base if now is None else now
        if t is None and info.audio_window_end is not None:
            t = base + info.audio_window_end
        now = now if t is None else t
        event = info.event if info.type == "TurnInfo" else None
        sure = event != "EndOfTurn" or info.trigger in (None, "model")
        found.append(FluxMessage(now, values, event, info.end_of_turn_confidence, sure))
    return found


def _values(line: str | bytes) -> tuple[dict[str, Any], float | None]:
    values = msgspec.json.decode(line)
    if isinstance(values, dict) and "inkturns" in values:
        source = str(values.get("source"))
        raise RecordingError(NOT_TOLD if source == "Ink2" else NO_FRAMES.format(source))
    t = None
    if isinstance(values, dict) and "frame" in values:
        timed = msgspec.convert(values, _Timed)
        values, t = msgspec.json.decode(timed.frame), timed.t
    return values, t


# -- other thresholds


@attrs.define
class Raised:
    """The messages under other thresholds, and what became of the recorded ones.

    messages  as Flux would have sent them
    eager     eager ends: "same", "later", "none"
    ends      ends: "same", "joined" with the next turn, "later": by how much nobody knows
    later     the times of the ends that would have come later"""

    messages: list[FluxMessage] = attrs.field(factory=list)
    eager: Counter[str] = attrs.field(factory=Counter)
    ends: Counter[str] = attrs.field(factory=Counter)
    later: set[float | None] = attrs.field(factory=set)


def raise_thresholds(messages: list[FluxMessage], settings: FluxSettings) -> Raised:
    """What Flux would have sent with these thresholds; None: the recorded one. Raises ValueError for a threshold that
    must be lower than the recorded one: Flux was as sure as that, and did not say so."""
    _check_raised(messages, settings)
    rewriter = _Rewriter(settings)
    for i, message in enumerate(messages):
        rewriter.take(message, messages, i)
    return rewriter.raised


def _check_raised(messages: list[FluxMessage], settings: FluxSettings) -> None:
    eager = False
    for message in messages:
        if message.event in ("StartOfTurn", "TurnResumed"):
            eager = False
        elif message.event == "EagerEndOfTurn":
            eager = True
        if message.event not in ("StartOfTurn", "Update", "TurnResumed") or not message.text:
            continue
        _check_silent(message, "eot_threshold", settings.eot_threshold)
        if not eager:
            _check_silent(message, "eager_eot_threshold", settings.eager_eot_threshold)


def _check_silent(message: FluxMessage, name: str, value: float | None) -> None:
    if value is not None and message.confidence is not None and message.confidence > value:
        raise ValueError(
            f"{name} must be at least what it was: Flux was sure of {message.confidence} and went on, so it was above "
            f"{value}; what a lower one would have done, no message tells"
        )


@attrs.define
class _Rewriter:
    settings: FluxSettings
    raised: Raised = attrs.field(factory=Raised)
    eager: bool = False  # an eager end was said, and holds
    waits: bool = False  # Flux was sure enough for its own threshold, and not for the new one
    joined: str | None = None  # the words of the turn that the next one goes on from
    index: object = None  # and its index

    def take(self, message: FluxMessage, messages: list[FluxMessage], i: int) -> None:
        """Says what Flux would have said."""
        if message.event is None:
            return self.raised.messages.append(message)
        if message.event == "StartOfTurn":
            if self.joined is None:
                self.eager = self.waits = False
                return self.raised.messages.append(message)
            return self._say(message, "TurnResumed" if self._stop() else "Update")
        if message.event == "EagerEndOfTurn":
            return self._eager_end(message)
        if message.event == "TurnResumed":
            if self.waits:
                self.raised.eager["none"] += 1
            return self._say(message, "TurnResumed" if self._stop() else "Update")
        if message.event == "EndOfTurn":
            return self._end(message, messages, i)
        if message.event == "Update" and self.waits and self._is_sure(message, self.settings.eager_eot_threshold):
            self.waits, self.eager = False, True
            self.raised.eager["later"] += 1
            return self._say(message, "EagerEndOfTurn")
        return self._say(message, message.event)

    def _eager_end(self, message: FluxMessage) -> None:
        if self.waits:  # a second one, with other words and no resume between
            self.raised.eager["none"] += 1
        self.eager = self._is_sure(message, self.settings.eager_eot_threshold)
        self.waits = not self.eager
        if self.eager:
            self.raised.eager["same"] += 1
        self._say(message, "EagerEndOfTurn" if self.eager else "Update")

    def _end(self, message: FluxMessage, messages: list[FluxMessage], i: int) -> None:
        if self.waits:
            self.raised.eager["none"] += 1
            self.waits = False
        if not message.sure or self._is_sure(message, self.settings.eot_threshold):
            self.raised.ends["same"] += 1
        elif self._goes_on(message, messages[i + 1 :]):
            self.raised.ends["joined"] += 1
            before = self._joined_text(message)
            self.joined, self.index = before, self._index(message)
            return self.raised.messages.append(message.said("Update", transcript=before, turn_index=self.index))
        else:
            self.raised.ends["later"] += 1
            self.raised.later.add(message.t)
        self._say(message, "EndOfTurn")
        self.joined = self.index = None
        self.eager = False

    def _stop(self) -> bool:
        """The user goes on; whether there was an eager end."""
        held, self.eager, self.waits = self.eager, False, False
        return held

    def _is_sure(self, message: FluxMessage, threshold: float | None) -> bool:
        return threshold is None or message.confidence is None or message.confidence >= threshold

    def _goes_on(self, message: FluxMessage, rest: list[FluxMessage]) -> bool:
        """The user spoke again before Flux would have ended the turn by itself."""
        start = next((one for one in rest if one.event == "StartOfTurn" or one.values["type"] == "Connected"), None)
        if start is None or start.event is None or start.t is None or message.t is None:
            return False
        return start.t - message.t < (self.settings.eot_timeout_ms or EOT_TIMEOUT_MS) / 1000

    def _index(self, message: FluxMessage) -> object:
        return message.values.get("turn_index") if self.joined is None else self.index

    def _joined_text(self, message: FluxMessage) -> str:
        return " ".join(text for text in (self.joined, message.text) if text)

    def _say(self, message: FluxMessage, event: str) -> None:
        if self.joined is None:
            said = message if event == message.event else message.said(event)
        else:
            said = message.said(event, transcript=self._joined_text(message), turn_index=self.index)
        self.raised.messages.append(said)
