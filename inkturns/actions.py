"""What goes out, and Turn.

Rules of this file: an action is a frozen value that says one thing to the agent, in the agent's own verbs; it holds all
that its hook needs; nothing is ever taken back, only followed by another action.
"""

from enum import StrEnum, auto

from msgspec import Struct

from inkturns.events import Event

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


class EndReason(StrEnum):
    """How a turn closed. The first four are answered; LOST is either, as `Policy.on_lost` has it."""

    SERVER = auto()  # by its turn.end
    FORCED = auto()  # by EndNow
    STALLED = auto()  # by a Tick, no progress for Policy.stall_timeout
    LOST = auto()  # its connection went away
    EMPTY = auto()  # nothing was said
    SUPERSEDED = auto()  # the next turn began without its end
    BACKCHANNEL = auto()  # said over a reply that it was not meant to stop


class CancelReason(StrEnum):
    """Why a thought is void."""

    RESUMED = auto()  # the user went on
    MOVED = auto()  # the text moved on without a resume
    SUPERSEDED = auto()  # a new eager end with other text, or the next turn
    MISMATCHED = auto()  # the turn ended with other text
    BACKCHANNEL = auto()  # nothing to answer after all
    LOST = auto()  # the connection went away
    CONTEXT_CHANGED = auto()  # what it was based on did
    FAILED = auto()  # it failed by itself


class ReportKind(StrEnum):
    """What was out of contract."""

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


class Turn(Struct, frozen=True, gc=False, omit_defaults=True):
    """The user's turn, as it was when the action went out. Times are seconds on the caller's clock, None without one.

    `number` counts from 1; `transcript` is the server's last text that was not blank, to the letter; `request_id` the
    connection's; `end` how it closed, None while it is open; `thoughts` the number of its latest thought; `continues`
    the number of the closed turn whose words it goes on from; `interrupted` the number of the reply it cut off."""

    number: int
    transcript: str = ""
    turn_id: str | None = None
    request_id: str | None = None
    started_at: float | None = None
    ended_at: float | None = None
    end: EndReason | None = None
    thoughts: int = 0
    continues: int | None = None
    interrupted: int | None = None


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
    """That thought is void, whether it is finished or not."""

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
    """Something out of contract, repaired as the table says. `event` is what came (None: a frame that was none);
    `detail` a sentence that never holds the caller's words."""

    kind: ReportKind
    event: Event | None
    detail: str
