"""Script: a simulated conversation as data, its JSON lines, and the frames that the server sends for it.

Rules of this file:
- Equal scripts give equal frames: every random choice comes from `seed`.
- Only `play` uses a clock: it sleeps.
- An error in a script's file names the line.

    Script(say("Hi.", pause(0.4), "Book a table."), noise(0.6), say("Stop!", over=True), seed=7)
"""

from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Literal, Self

import anyio
import attrs
import msgspec

from inkturns.settings import BALANCED, TurnSettings
from inkturns.testing.emulator.connection import CHUNK, Closing, Connection
from inkturns.testing.emulator.likelihood import Likelihood, likelihood_of
from inkturns.testing.emulator.parts import Hesitation, Noise, Part, Pause, Say, Trouble

__all__ = ["Script", "ScriptError"]

VERSION = 1
BYTE_ORDER_MARK = "\ufeff"  # some editors write it before the first line
KINDS: dict[str, type[Part]] = {
    "say": Say,
    "pause": Pause,
    "hesitation": Hesitation,
    "noise": Noise,
    "trouble": Trouble,
}


class ScriptError(ValueError):
    """A line of a script that cannot be read: `line`, from 1, and the `reason`."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")
        self.line, self.reason = line, reason


@attrs.frozen(init=False)
class Script:
    """The parts of a conversation, in order, and the seed of its random choices. Equal scripts give equal frames."""

    parts: tuple[Part, ...]
    seed: int

    def __init__(self, *parts: Part, seed: int = 0) -> None:
        """Raises TypeError where a part is not one of say(), pause(), hesitation(), noise() and trouble(), and where
        the seed is not an int."""
        for part in parts:
            if not isinstance(part, Say | Pause | Hesitation | Noise | Trouble):
                raise TypeError(f"Script takes say(), pause(), hesitation(), noise() and trouble(), got {part!r}")
        if type(seed) is not int:
            raise TypeError(f"Script.seed must be an int, got {seed!r}")
        self.__attrs_init__(parts, seed)

    def frames(self, settings: TurnSettings = BALANCED) -> Iterator[tuple[float, str | bytes]]:
        """The frames that a client gets whose audio flows without a break: (seconds of audio, frame), `connected`
        first. They end after the script's last turn and its late frames, or where the connection ends; a refused
        connection has none. Settings that are None are BALANCED's. Raises ValueError where the thresholds are out of
        order then."""
        if self.refusal is not None:
            return
        likelihood = self.likelihood
        connection, read, more = Connection(likelihood, settings, seed=self.seed), 0, True
        connection.begin()
        while more:
            more = not connection.over and (connection.turn_open or connection.seconds < likelihood.seconds)
            if more:
                connection.audio(CHUNK)
            else:
                connection.rest()
            yield from ((at, out) for at, out in connection.sent[read:] if not isinstance(out, Closing))
            read = len(connection.sent)

    async def play(self, settings: TurnSettings = BALANCED, *, speed: float = 1) -> AsyncIterator[str | bytes]:
        """The same frames, each at its time: sleeps between them, `speed` times as fast as the audio. Under
        `inkturns.testing.virtual_time` that takes no real time. Raises ValueError for a speed that is not above 0."""
        if not speed > 0:
            raise ValueError(f"Script.play: speed must be above 0, got {speed!r}")
        began = anyio.current_time()
        for at, frame in self.frames(settings):
            await anyio.sleep(max(0.0, began + at / speed - anyio.current_time()))
            yield frame

    @property
    def likelihood(self) -> Likelihood:
        """The likelihood that the user is in a turn, over time, and the words."""
        return likelihood_of(self.parts, self.seed)

    @property
    def seconds(self) -> float:
        """Its length in seconds of audio, with the silence after it."""
        return self.likelihood.seconds

    @property
    def refusal(self) -> int | None:
        """The HTTP status that refuses its connection, if the script has that trouble."""
        refusals = [part for part in self.all_parts() if isinstance(part, Trouble) and part.trouble == "refuse"]
        return refusals[0].status or 401 if refusals else None

    def all_parts(self) -> Iterator[str | Part]:
        """Its parts, each followed by the parts inside it."""
        for part in self.parts:
            yield part
            yield from part.say if isinstance(part, Say) else ()

    def to_lines(self) -> Iterator[str]:
        """Its JSON lines, without line ends: first `{"script": 1, "seed": …}`, then one line for each part."""
        yield _json({"script": VERSION, "seed": self.seed})
        for part in self.parts:
            yield _json(part)

    @classmethod
    def from_lines(cls, lines: Iterable[str | bytes]) -> Self:
        """The script that these lines describe. The header line may be missing: the seed is 0 then. Blank lines and
        lines that begin with # are ignored. Raises ScriptError with the line's number for a bad one."""
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


class _Header(msgspec.Struct, forbid_unknown_fields=True):
    script: Literal[1]
    seed: int = 0


def _part(values: object) -> Part:
    if not isinstance(values, dict):
        raise ValueError(f"a part must be an object with one of {', '.join(KINDS)}, got {_json(values)[:80]}")
    named = [kind for name, kind in KINDS.items() if name in values]
    if len(named) != 1:
        raise ValueError(f"a part must have exactly one of {', '.join(KINDS)}, got {', '.join(values) or 'none'}")
    if named[0] is Say:
        if not isinstance(texts := values["say"], list):
            raise ValueError(f"say must be a list of texts and parts, got {_json(texts)[:80]}")
        how = msgspec.convert({**values, "say": ["…"]}, Say)
        return msgspec.structs.replace(how, say=tuple(part if isinstance(part, str) else _part(part) for part in texts))
    return msgspec.convert(values, named[0])


def _json(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=0).decode()
