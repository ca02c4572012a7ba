"""Recordings without the caller's words: redacted, or with a pause.

Rules of this file: where words are redacted, their shape stays: letters become x, digits 0, and lengths do not change.
What was said in a pause is written nowhere, though each event of a turn holds the whole text of its turn.
"""

from hashlib import sha256
from typing import Any
from unicodedata import category

import msgspec

from inkturns.actions import Action, Listen, Report, ReportKind
from inkturns.events import Event, ServerError, ServerEvent
from inkturns.serialize import dump_event, encode, everywhere
from inkturns.wire import decode

__all__ = ["Pauses", "hashed", "redact", "redacted", "redacted_event", "redacted_frame"]

SAID_BY_MACHINES = {
    "type",
    "request_id",
    "turn_id",
    "kind",
    "error_code",
    "doc_url",
    "reason",
    "policy",
    "end",
    "detail",
    "agent",
    "outcome",
    "error",
}
NESTED = ("turn", "event", "settled", "replied", "report")


def redact(text: str) -> str:
    """Letters and marks to x, digits to 0; spaces, punctuation and lengths stay."""
    return "".join(map(_redacted_character, text))


def hashed(call: str, salt: str = "") -> str:
    """A call's id as 32 hexadecimal digits, always the same: `Recorder(file, call=hashed(number, salt))`. Whoever can
    list all ids, as with telephone numbers, finds the id again, unless a secret `salt` is given."""
    return sha256(f"{salt}{call}".encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _redacted_character(char: str) -> str:
    kind = category(char)
    if kind[0] in "LM" or kind in ("Cn", "Co", "Cs"):  # a letter, or what may be one elsewhere
        return "x"
    return "0" if kind[0] == "N" else char


def redacted(values: dict[str, Any]) -> dict[str, Any]:
    """The JSON values of an action or an event, redacted: ids, kinds and reasons stay, and so do names of members."""

    def of(name: str, value: Any) -> Any:
        if name in NESTED and isinstance(value, dict):
            return redacted(value)
        if name == "notes" and isinstance(value, dict):  # the model's name: figures are told apart by it
            return {key: note if key == "model" else everywhere(note, redact) for key, note in value.items()}
        return value if name in SAID_BY_MACHINES else everywhere(value, redact)

    return {name: of(name, value) for name, value in values.items()}


def redacted_event(event: Event) -> dict[str, Any]:
    return redacted(dump_event(event))


def redacted_frame(text: str, event: ServerEvent) -> str | None:
    """The frame with its words redacted; None where that would not decode to the redacted event."""
    kept = {"type", "request_id", "turn_id"} | ({"error_code", "doc_url"} if isinstance(event, ServerError) else set())
    try:
        values = msgspec.json.decode(text)
        frame = encode({k: v if k in kept else everywhere(v, redact) for k, v in values.items()}).decode()
        return frame if encode(decode(frame)) == encode(redacted_event(event)) else None
    except (ValueError, RecursionError):
        return None


class Pauses:
    """Which inputs may hold words that were said in a pause: those from `pause` to the first turn that begins after
    `resume`, those of turns that continue a turn of the pause, and late ones, which may belong to it."""

    def __init__(self) -> None:
        self._paused = False
        self._hides = False  # until a turn begins that has none of these words
        self._turns: set[int] = set()  # the numbers of turns with these words

    def pause(self) -> None:
        self._paused = self._hides = True

    def resume(self) -> None:
        self._paused = False

    def hide(self, actions: tuple[Action, ...]) -> bool:
        """Whether the input that led to these actions must not be written."""
        turns = [turn for action in actions if (turn := getattr(action, "turn", None)) is not None]
        goes_on = any(turn.continues in self._turns for turn in turns)
        begins = bool(actions) and isinstance(actions[0], Listen)
        self._hides = self._paused or goes_on or (self._hides and not begins)
        if self._hides:
            self._turns.update(turn.number for turn in turns)
            return True
        return bool(self._turns) and any(
            isinstance(action, Report) and action.kind in (ReportKind.LATE, ReportKind.FOREIGN) for action in actions
        )

    def hide_note(self, turn: object) -> bool:
        """Whether a note about the turn of this number must not be written."""
        return self._hides or turn in self._turns
