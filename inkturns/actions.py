"""What goes out: actions, and the Turn that they hold (from `turn.py`).

Rules of this file: an action is a frozen value that says one thing to the agent, in the agent's own verbs; it holds all
that its hook needs; nothing is ever taken back, only followed by another action.
"""

from enum import StrEnum, auto

from msgspec import Struct

from inkturns.events import Event
from inkturns.turn import EndReason, Turn

__all__ = [
    "Abandon",
    "Action",
    "Cancel",
    "CancelReason",
    "EndReason",
    "Hear",
    "Interrupt",
    "Listen",
    "Report",
    "ReportKind",
    "Respond",
    "Resume",
    "Stall",
    "Think",
    "Turn",
]


class CancelReason(StrEnum):
    """Why a thought is cancelled."""

    RESUMED = auto()  # the user went on
    MOVED = auto()  # the text moved on without a resume
    SUPERSEDED = auto()  # a new eager end with other text, or the next turn
    MISMATCHED = auto()  # the turn ended with other text
    BACKCHANNEL = auto()  # nothing to answer after all
    LOST = auto()  # the connection went away
    CONTEXT_CHANGED = auto()  # what it was based on did
    FAILED = auto()  # it failed by itself


class ReportKind(StrEnum):
    """How the sender, the policy or a task broke its contract."""

    BAD_FRAME = auto()
    UNKNOWN_TYPE = auto()
    SERVER_ERROR = auto()
    LATE = auto()
    FOREIGN = auto()
    MISSED_START = auto()
    MISSED_END = auto()
    DUPLICATE_START = auto()
    DUPLICATE_CONNECTED = auto()
    STRAY_RESUME = auto()
    BLANK_END = auto()
    POLICY_ERROR = auto()
    STUCK_TASK = auto()  # the agent's


class Action(Struct, frozen=True, gc=False, tag=True):
    """Anything that a machine asks for or tells."""


class Listen(Action, frozen=True):
    """A turn has opened: the user speaks. Settled by exactly one Respond or Abandon."""

    turn: Turn


class Hear(Action, frozen=True):
    """The turn's text moved. `delta` is what was added; None where earlier text was revised."""

    turn: Turn
    delta: str | None


class Think(Action, frozen=True):
    """Begin thought number `thought` of the turn, on `turn.transcript`. Speculative: unheard until its Respond."""

    turn: Turn
    thought: int
    speculative: bool


class Resume(Action, frozen=True):
    """The user goes on after an eager end."""

    turn: Turn


class Cancel(Action, frozen=True):
    """Throw that thought away, whether it is finished or not."""

    turn: Turn
    thought: int
    reason: CancelReason


class Respond(Action, frozen=True):
    """The turn is over, and that thought is its reply. `turn.end`: SERVER, FORCED, STALLED or LOST."""

    turn: Turn
    thought: int


class Interrupt(Action, frozen=True):
    """The reply to turn `number` (0: the application's own speech) must stop."""

    number: int


class Abandon(Action, frozen=True):
    """The turn closed with nothing to answer; its words are in `turn`. `turn.end`: EMPTY, SUPERSEDED, LOST or
    BACKCHANNEL."""

    turn: Turn


class Stall(Action, frozen=True):
    """The turn is open, and its text has not moved for `Policy.stall_timeout`."""

    turn: Turn


class Report(Action, frozen=True, gc=True):
    """The sender broke its contract, and the table says how that was repaired. `event` is what came, None for a frame
    that cannot be read. `detail` is a sentence; it never holds the caller's words."""

    kind: ReportKind
    event: Event | None
    detail: str
