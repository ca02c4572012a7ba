"""The parts of a script: what a caller says, how they pause, and which faults the network has.

Rules of this file:
- A part is a frozen value. Its first field has the part's name, so its JSON is the value itself, without defaults.
- A part is checked when it is made. The message names the field, the value and what is allowed.
- Times are seconds of audio.
"""

from typing import Any

import msgspec

__all__ = [
    "TROUBLES",
    "Hesitation",
    "Noise",
    "Part",
    "Pause",
    "Say",
    "Trouble",
    "hesitation",
    "noise",
    "pause",
    "say",
    "trouble",
]

EVENTS = ("connected", "turn.start", "turn.update", "turn.eager_end", "turn.resume", "turn.end", "close", "config")
GARBAGE = ("text", "array", "typeless", "field", "unknown", "binary", "empty")
REFUSALS = (401, 402, 403, 429)
CLOSE_CODES = (*range(1000, 1004), *range(1007, 1015))
LONGEST = 3600  # seconds of a pause, a noise or a fault
OPTIONS: dict[str, tuple[str, ...]] = {
    "refuse": ("status",),
    "drop": ("code",),
    "mute": ("seconds", "chatty"),
    "garbage": ("kind",),
    "error": ("status", "fatal"),
    "late": ("text",),
    "slow": ("seconds",),
}
TROUBLES: dict[str, str] = {
    "refuse": "refuse the upgrade with HTTP `status` (401, 402, 403 or 429), wherever it stands in the script",
    "drop": "cut the connection without a close frame; with `code`, close it with that code",
    "mute": "send nothing for `seconds` (0: never again); `chatty`: send empty updates meanwhile",
    "lose": "do not send the event",
    "repeat": "send the event twice",
    "reorder": "send the event after the next one; if there is none, at the end",
    "garbage": "send a bad frame of this `kind`: " + ", ".join(GARBAGE),
    "error": "send an `error` with `status` (400, 429, 500); `fatal`: then close the connection",
    "late": "after the event, send an update that repeats the last text of its turn, or adds `text` to it",
    "slow": "from here on, send every event `seconds` of audio late",
}


class Part(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One step of a script."""


class Pause(Part, frozen=True):
    """Silence of so many seconds after words that sound finished. The likelihood falls as it does at a turn's end."""

    pause: float

    def __post_init__(self) -> None:
        check_range("pause", self.pause, 0, LONGEST)


class Hesitation(Part, frozen=True):
    """Silence of so many seconds after words that sound unfinished. The likelihood dips but stays up, so an eager end
    is followed by a resume when the words go on."""

    hesitation: float

    def __post_init__(self) -> None:
        check_range("hesitation", self.hesitation, 0, LONGEST)


class Noise(Part, frozen=True):
    """Sound without words for so many seconds. `likelihood`, 0 to 1, is how much it resembles speech. Above the start
    threshold it opens a turn that has no text."""

    noise: float
    likelihood: float = 0.9

    def __post_init__(self) -> None:
        check_range("noise", self.noise, 0, LONGEST)
        check_range("likelihood", self.likelihood, 0, 1)


class Trouble(Part, frozen=True):
    """One of TROUBLES, by name. It happens with the next event of type `on`; without `on`, at its place in the
    script."""

    trouble: str
    on: str | None = None
    seconds: float = 0
    status: int = 0
    code: int = 0
    kind: str = ""
    text: str = ""
    chatty: bool = False
    fatal: bool = False

    def __post_init__(self) -> None:
        if self.trouble not in TROUBLES:
            raise ValueError(f"trouble must be one of {', '.join(TROUBLES)}, got {self.trouble!r}")
        if self.on is not None and self.on not in EVENTS:
            raise ValueError(f"on must be one of {', '.join(EVENTS)}, got {self.on!r}")
        for name in ("seconds", "status", "code", "kind", "text", "chatty", "fatal"):
            if getattr(self, name) and name not in OPTIONS.get(self.trouble, ()):
                takes = ", ".join(("on", *OPTIONS.get(self.trouble, ())))
                raise TypeError(f"trouble {self.trouble!r} has no option {name!r}; it has {takes}")
        check_range("seconds", self.seconds, 0, LONGEST)
        check_range("status", self.status, 0, 599)
        if self.trouble == "refuse" and self.status not in (0, *REFUSALS):
            raise ValueError(f"status of a refusal must be one of {', '.join(map(str, REFUSALS))}, got {self.status}")
        if self.code and not 3000 <= self.code <= 4999 and self.code not in CLOSE_CODES:
            raise ValueError(f"code must be a WebSocket close code, got {self.code}")
        if self.kind and self.kind not in GARBAGE:
            raise ValueError(f"kind must be one of {', '.join(GARBAGE)}, got {self.kind!r}")


class Say(Part, frozen=True):
    """What the user says in one breath: texts, with pauses, hesitations, noises and troubles between them. Silence
    comes before it: `after` seconds, or as long as a reply takes; with `over`, a barge-in, only as long as the last
    turn needs to end. `say` makes one."""

    say: tuple[Any, ...]  # str or Part; msgspec cannot decode a tuple of both, so script.py reads it by hand
    over: bool = False
    after: float | None = None

    def __post_init__(self) -> None:
        for part in self.say:
            if not isinstance(part, str | Pause | Hesitation | Noise | Trouble):
                raise TypeError(f"say takes texts, pauses, hesitations, noises and troubles, got {part!r}")
            if isinstance(part, str) and not part.strip():
                raise ValueError(f"say: a text must not be blank, got {part!r}")
        if not any(isinstance(part, str) for part in self.say):
            raise ValueError("say needs at least one text")
        if self.after is not None:
            check_range("after", self.after, 0, LONGEST)


def say(*parts: str | Part, over: bool = False, after: float | None = None) -> Say:
    """The user says `parts`: texts, with pauses and the like between them. `over=True`: a barge-in into the reply to
    the last words. `after`: the seconds of silence before it."""
    return Say(parts, over, after)


def pause(seconds: float) -> Pause:
    """Silence after words that sound finished."""
    return Pause(seconds)


def hesitation(seconds: float = 0.6) -> Hesitation:
    """Silence after words that sound unfinished."""
    return Hesitation(seconds)


def noise(seconds: float = 0.5, likelihood: float = 0.9) -> Noise:
    """Sound without words."""
    return Noise(seconds, likelihood)


def trouble(name: str, *, on: str | None = None, **options: Any) -> Trouble:
    """One of TROUBLES. It happens with the next event of type `on`; without `on`, at its place in the script. Raises
    TypeError or ValueError for an unknown name, event or option."""
    return Trouble(name, on, **options)


def check_range(name: str, value: object, low: float, high: float) -> None:
    """Raises TypeError where the value is not a number, ValueError where it is out of range."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number from {low} to {high}, got {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{name} must be from {low} to {high}, got {value}")
