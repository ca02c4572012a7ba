"""Script: what a caller says, with its pauses, noises and the network's troubles, as data.

Rules of this file: a part is a frozen value whose first field has the part's name, so that its JSON is the value
itself, defaults left out; what is wrong is said when the part is made, with its line where it came from a file. Times
are seconds of audio. Nothing is left to chance but through `seed`, and nothing reads a clock but `play`, which sleeps.

    Script(say("Hi.", pause(0.4), "Book a table."), noise(0.6), say("Stop!", over=True), seed=7)
"""

from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any, Literal, Self

import anyio
import attrs
import msgspec

from inkturns.settings import BALANCED, TurnSettings

__all__ = [
    "TROUBLES",
    "Hesitation",
    "Noise",
    "Part",
    "Pause",
    "Say",
    "Script",
    "ScriptError",
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
    "refuse": "the upgrade is refused with HTTP `status` (401, 402, 403, 429); stands anywhere in the script",
    "drop": "the connection is gone, without a word; with `code`, closed with that code",
    "mute": "nothing is sent for `seconds` (0: ever after); `chatty`: but empty updates",
    "lose": "the event is not sent",
    "repeat": "the event is sent twice",
    "reorder": "the event is sent after the one that follows it, or last of all",
    "garbage": "a frame that is none, of `kind`: " + ", ".join(GARBAGE),
    "error": "an `error` with `status` (400, 429, 500); `fatal`: and the connection is closed",
    "late": "after the event, an update that repeats the last text of its turn, or goes on with `text`",
    "slow": "events are sent `seconds` of audio late, from here on",
}


class ScriptError(ValueError):
    """A script's line that cannot be read: `line`, from 1, and the `reason`."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")
        self.line, self.reason = line, reason


class Part(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One thing in a script."""


class Pause(Part, frozen=True):
    """Silence after words that sound finished, seconds: the likelihood falls as at a turn's end."""

    pause: float

    def __post_init__(self) -> None:
        _within("pause", self.pause, 0, 3600)


class Hesitation(Part, frozen=True):
    """Silence, seconds, after words that sound unfinished: the likelihood dips and stays up, so that an eager end, if
    any, is taken back when the words go on."""

    hesitation: float

    def __post_init__(self) -> None:
        _within("hesitation", self.hesitation, 0, 3600)


class Noise(Part, frozen=True):
    """Sound without words, seconds, that is taken for speech with this `likelihood`, 0 to 1: a turn with no text where
    that is above the start threshold."""

    noise: float
    likelihood: float = 0.9

    def __post_init__(self) -> None:
        _within("noise", self.noise, 0, 3600)
        _within("likelihood", self.likelihood, 0, 1)


class Trouble(Part, frozen=True):
    """One of TROUBLES, by its name: with the first event of type `on` from this place on (None: at this place)."""

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
            raise ValueError(f"there is no trouble {self.trouble!r}; there is {', '.join(TROUBLES)}")
        if self.on is not None and self.on not in EVENTS:
            raise ValueError(f"on is {self.on!r}; it must be one of {', '.join(EVENTS)}")
        for name in ("seconds", "status", "code", "kind", "text", "chatty", "fatal"):
            if getattr(self, name) and name not in OPTIONS.get(self.trouble, ()):
                raise TypeError(f"{self.trouble} takes no {name}")
        _within("seconds", self.seconds, 0, 3600)
        _within("status", self.status, 0, 599)
        if self.trouble == "refuse" and self.status not in (0, *REFUSALS):
            raise ValueError(f"status is {self.status}; an upgrade is refused with one of {REFUSALS}")
        if self.code and not 3000 <= self.code <= 4999 and self.code not in CLOSE_CODES:
            raise ValueError(f"code is {self.code}, with which no connection is closed")
        if self.kind and self.kind not in GARBAGE:
            raise ValueError(f"kind is {self.kind!r}; it must be one of {', '.join(GARBAGE)}")


class Say(Part, frozen=True):
    """What the user says in one breath: words, and pauses, hesitations, noises and troubles among them. Silence comes
    before it: `after` seconds of it; by default as long as a reply takes, or, `over` the reply, just long enough for
    the last turn to end. See `say`."""

    say: tuple[Any, ...]  # str or Part: a tuple of both is not JSON's, and is read by hand
    over: bool = False
    after: float | None = None

    def __post_init__(self) -> None:
        for part in self.say:
            if not isinstance(part, str | Pause | Hesitation | Noise | Trouble):
                raise TypeError(f"say: texts, pauses, hesitations, noises and troubles, not {part!r}")
            if isinstance(part, str) and not part.strip():
                raise ValueError("say: a text is not blank")
        if not any(isinstance(part, str) for part in self.say):
            raise ValueError("say: there is a text in it")
        if self.after is not None:
            _within("after", self.after, 0, 3600)


def say(*parts: str | Part, over: bool = False, after: float | None = None) -> Say:
    """The user says `parts`, texts with pauses and the like between them. `over=True`: a barge-in, into the reply to
    what was said before. `after`: after so many seconds of silence."""
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


def trouble(name: str, *, on: str | None = None, **how: Any) -> Trouble:
    """One of TROUBLES, by its name: with the first event of type `on` from this place on (None: at this place).
    Raises TypeError or ValueError for a name, an event or an option that there is not."""
    return Trouble(name, on, **how)


@attrs.frozen(init=False)
class Script:
    """A conversation's parts, in order, and the seed of all that is left to chance in it. Equal scripts give equal
    frames."""

    parts: tuple[Part, ...]
    seed: int

    def __init__(self, *parts: Part, seed: int = 0) -> None:
        """Raises TypeError for what is no part, and for a seed that is no int."""
        for part in parts:
            if not isinstance(part, Say | Pause | Hesitation | Noise | Trouble):
                raise TypeError(f"a script has parts, made by say, pause, noise and their like; {part!r} is none")
        if type(seed) is not int:
            raise TypeError(f"a script's seed is an int, not {seed!r}")
        self.__attrs_init__(parts, seed)

    def frames(self, settings: TurnSettings = BALANCED) -> Iterator[tuple[float, str | bytes]]:
        """What the server would send to a client whose audio flows: (seconds of audio, frame), `connected` first. It
        ends with the script, the silence that closes its last turn and what is sent late, or where the connection does;
        a refused one has no frames. What the settings do not say is as in BALANCED; raises ValueError where that is out
        of order."""
        from inkturns.testing.session import CHUNK, Closing, Session
        from inkturns.testing.sound import sound

        if self.refusal is not None:
            return
        heard = sound(self)
        session, told, flows = Session(heard, settings, seed=self.seed), 0, True
        session.begin()
        while flows:
            flows = not session.over and (session.open or session.seconds < heard.seconds)
            if flows:
                session.audio(CHUNK)
            else:
                session.rest()
            yield from ((at, out) for at, out in session.sent[told:] if not isinstance(out, Closing))
            told = len(session.sent)

    async def play(self, settings: TurnSettings = BALANCED, *, speed: float = 1) -> AsyncIterator[str | bytes]:
        """The same frames, each at its time: sleeps between them, `speed` times as fast as the audio. In virtual time
        (`inkturns.testing.virtual`) that takes none. Raises ValueError for a speed that is not above 0."""
        if not speed > 0:
            raise ValueError(f"Script.play: speed is {speed!r}; it must be above 0")
        begun = anyio.current_time()
        for at, frame in self.frames(settings):
            await anyio.sleep(max(0.0, begun + at / speed - anyio.current_time()))
            yield frame

    @property
    def seconds(self) -> float:
        """How long it is, in audio, with the silence after it."""
        from inkturns.testing.sound import sound

        return sound(self).seconds

    @property
    def refusal(self) -> int | None:
        """The HTTP status with which its connection is refused, where it has that trouble."""
        refusals = [part for part in self.everything() if isinstance(part, Trouble) and part.trouble == "refuse"]
        return refusals[0].status or 401 if refusals else None

    def everything(self) -> Iterator[str | Part]:
        """Its parts, and theirs."""
        for part in self.parts:
            yield part
            yield from part.say if isinstance(part, Say) else ()

    def to_lines(self) -> Iterator[str]:
        """Its JSON lines, without line ends: first `{"script": 1, "seed": …}`, then a part a line."""
        yield _json({"script": VERSION, "seed": self.seed})
        for part in self.parts:
            yield _json(part)

    @classmethod
    def from_lines(cls, lines: Iterable[str | bytes]) -> Self:
        """The script of such lines; without the first its seed is 0. Blank lines and those that begin with # are passed
        over. Raises ScriptError, with the number of the line, for one that cannot be read."""
        parts, seed, first = list[Part](), 0, True
        for number, line in enumerate(lines, 1):
            try:
                text = (line.decode() if isinstance(line, bytes) else line).removeprefix(BYTE_ORDER_MARK)
                if not text.strip() or text.lstrip().startswith("#"):
                    continue
                values = msgspec.json.decode(text)
                if first and isinstance(values, dict) and "script" in values:
                    seed = msgspec.convert(values, _Header).seed
                else:
                    parts.append(_part(values))
                first = False
            except (TypeError, ValueError, RecursionError) as error:  # msgspec's and UTF-8's are ValueErrors
                raise ScriptError(number, str(error)) from None
        return cls(*parts, seed=seed)


VERSION = 1
BYTE_ORDER_MARK = "\ufeff"  # some editors write it before the first line
KINDS: dict[str, type[Part]] = {
    "say": Say,
    "pause": Pause,
    "hesitation": Hesitation,
    "noise": Noise,
    "trouble": Trouble,
}


class _Header(msgspec.Struct, forbid_unknown_fields=True):
    script: Literal[1]
    seed: int = 0


def _part(values: object) -> Part:
    if not isinstance(values, dict):
        raise ValueError(f"a part is an object, with one of {', '.join(KINDS)}")
    named = [kind for name, kind in KINDS.items() if name in values]
    if len(named) != 1:
        raise ValueError(f"a part has one of {', '.join(KINDS)}")
    if named[0] is Say:
        if not isinstance(said := values["say"], list):
            raise ValueError("say is a list of texts and parts")
        how = msgspec.convert({**values, "say": ["…"]}, Say)
        return msgspec.structs.replace(how, say=tuple(p if isinstance(p, str) else _part(p) for p in said))
    return msgspec.convert(values, named[0])


def _json(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=0).decode()


def _within(name: str, value: object, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} is a number, not {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{name} is {value}; it must be from {low} to {high}")
