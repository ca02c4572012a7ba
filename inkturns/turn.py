"""Turn: what a policy's functions, the hooks and the roles are given.

Rules of this file: it imports nothing of the package, so that both the policy and the actions can name a Turn.
"""

from enum import StrEnum, auto

from msgspec import Struct

__all__ = ["EndReason", "Turn"]


class EndReason(StrEnum):
    """How a turn closed. The first four are answered; LOST is either, as `Policy.after_disconnect` has it."""

    SERVER = auto()  # by its turn.end
    FORCED = auto()  # by EndNow
    STALLED = auto()  # by a Tick, no progress for Policy.stall_timeout
    LOST = auto()  # its connection went away
    EMPTY = auto()  # nothing was said
    SUPERSEDED = auto()  # the next turn began without its end
    BACKCHANNEL = auto()  # said over a reply that it was not meant to stop


class Turn(Struct, frozen=True, gc=False, omit_defaults=True):
    """The user's turn, as it was when its action went out. Times are seconds on the caller's clock, None without one.

    `number` counts from 1; 0 is the application's own speech. `transcript` is the server's last text that was not
    blank, to the letter. `request_id` is the connection's. `end` says how the turn closed, None while it is open.
    `latest_thought` is the number of its latest thought, 0 before the first. `continues` is the number of the closed
    turn to whose words it adds, `interrupted` the number of the reply that it cut off."""

    number: int
    transcript: str = ""
    turn_id: str | None = None
    request_id: str | None = None
    started_at: float | None = None
    ended_at: float | None = None
    end: EndReason | None = None
    latest_thought: int = 0
    continues: int | None = None
    interrupted: int | None = None
