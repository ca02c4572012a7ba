"""What there is to draw of a call: lanes of bars and marks, and brackets from the end of a turn to its first sound.

Rules of this file: frozen values alone, so that a page, a still and a trace show the same. Times are seconds of the
call; what a recording does not hold is None. All text is printable, and redacted where that was asked for.
"""

from enum import StrEnum, auto
from importlib.resources import files

from msgspec import Struct

__all__ = [
    "Bar",
    "BarKind",
    "Bracket",
    "Mark",
    "MarkKind",
    "Picture",
    "PictureLane",
    "TurnLine",
    "moment",
    "rows",
    "text_of",
]


class BarKind(StrEnum):
    """What a bar is; a reader knows it by its look."""

    TURN = auto()  # the user's turn, from its start to its end
    HELD = auto()  # a thought that was neither adopted nor cancelled when the recording ended
    CANCELLED = auto()
    FAILED = auto()
    ADOPTED = auto()
    REPLY = auto()  # heard to its end, or still being said
    CUT = auto()  # a reply that was interrupted


class MarkKind(StrEnum):
    """What a mark is."""

    WORDS = auto()  # the text grew
    REVISED = auto()  # earlier text was changed
    EAGER_END = auto()
    RESUME = auto()
    STALL = auto()
    FIRST_ITEM = auto()
    REPORT = auto()
    LOST = auto()  # the connection
    PAUSE = auto()  # of the recorder


class Bar(Struct, frozen=True, kw_only=True):
    """Something that lasted. Until `until` a thought is held and a reply is silent, then the one is adopted and the
    other heard. `open`: it had not ended when the recording did. `tip` tells the details, a line each."""

    kind: BarKind
    turn: int
    begins: float
    until: float
    ends: float
    caption: str
    tip: tuple[str, ...]
    open: bool = False


class Mark(Struct, frozen=True):
    """Something that happened."""

    kind: MarkKind
    at: float
    tip: tuple[str, ...]


class PictureLane(Struct, frozen=True):
    """A row of the picture."""

    name: str
    bars: tuple[Bar, ...]
    marks: tuple[Mark, ...]


class Bracket(Struct, frozen=True):
    """The wait that the user notices: from the end of a turn to the first sound of its reply; and, where thinking ahead
    gained anything, when the first sound would have come without it."""

    turn: int
    end: float
    sound: float
    without: float | None
    caption: str
    tip: tuple[str, ...]


class TurnLine(Struct, frozen=True):
    """One closed turn in numbers: seconds, None where the recording does not tell. `saved` is `without - wait`."""

    turn: int
    at: float
    words: str
    end: str
    thoughts: int
    wait: float | None
    without: float | None
    saved: float | None


class Picture(Struct, frozen=True, kw_only=True):
    """All that there is to draw of a call. `uncut`: from when to when a row of the picture should not end, since what
    belongs together would be cut there; in order, and apart."""

    title: str
    about: tuple[tuple[str, str], ...]
    answer: str
    seconds: float
    lanes: tuple[PictureLane, ...]
    brackets: tuple[Bracket, ...]
    turns: tuple[TurnLine, ...]
    uncut: tuple[tuple[float, float], ...]
    not_known: tuple[str, ...]


def moment(value: float) -> str:
    """A moment of the call: minutes and seconds."""
    minutes, rest = divmod(round(value, 2), 60)
    return f"{int(minutes)}:{rest:05.2f}"


def text_of(name: str) -> str:
    """A file of this room: styles or a script."""
    return files("inkturns.report").joinpath(name).read_text("utf-8")


def rows(picture: Picture, span: float) -> list[float]:
    """Where each row of the picture begins, when one shows `span` seconds. What would be cut begins the next row, where
    that leaves more than half a row. `page.js` does the same."""
    starts = [0.0]
    while (end := starts[-1] + span) < picture.seconds:
        early = next((begins for begins, ends in picture.uncut if begins < end < ends), end)
        starts.append(early if early > starts[-1] + span / 2 else end)
    return starts
