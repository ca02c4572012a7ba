"""What comes in: the server's events, and the application's own.

Rules of this file: an event is a frozen value, known by its tag (the wire's `type`) and never by anything else (F09);
it says what happened, never what to do about it; nothing here knows the machine.
A frame decodes straight into its event, checked by msgspec, which is why these are Structs.
"""

from typing import Any

from msgspec import Struct

from inkturns.policy import Policy

__all__ = [
    "Connected",
    "ContextChanged",
    "Disconnected",
    "EndNow",
    "Event",
    "ReplyDone",
    "ReplyStarted",
    "ServerError",
    "ServerEvent",
    "StopReply",
    "ThoughtFailed",
    "Tick",
    "TurnEagerEnd",
    "TurnEnd",
    "TurnResume",
    "TurnStart",
    "TurnUpdate",
    "Unknown",
    "UsePolicy",
]


class Event(Struct, frozen=True, gc=False, omit_defaults=True, tag_field="type"):
    """Anything that a machine receives."""


# The server's. Within an API version the vendor may add fields and types; both are tolerated.


class ServerEvent(Event, frozen=True, kw_only=True):
    """What every server event may carry: the connection's `request_id`, the server's `turn_id` ("1" is the first of a
    connection). Both are optional everywhere: the published recordings have no `request_id`, the docs no `turn_id`."""

    request_id: str | None = None
    turn_id: str | None = None


class Connected(ServerEvent, frozen=True, tag="connected"):
    """A connection is open. A new `request_id` means that a turn of the old one will never end."""


class TurnStart(ServerEvent, frozen=True, tag="turn.start"):
    """The user has begun to speak."""


class TurnUpdate(ServerEvent, frozen=True, tag="turn.update"):
    """The turn's text so far: cumulative, to replace what came before, never to be joined or stripped (F45)."""

    transcript: str = ""


class TurnEagerEnd(ServerEvent, frozen=True, tag="turn.eager_end"):
    """The user may be done; the server promises that turn.end or turn.resume follows."""

    transcript: str = ""


class TurnResume(ServerEvent, frozen=True, tag="turn.resume"):
    """The user goes on after an eager end."""


class TurnEnd(ServerEvent, frozen=True, tag="turn.end"):
    """The turn is over; its text is the definitive one."""

    transcript: str = ""


class ServerError(ServerEvent, frozen=True, tag="error"):
    """The server reports an error. It does not say whether it closes the connection."""

    status_code: int | None = None
    title: str | None = None
    message: str | None = None
    error_code: str | None = None
    doc_url: str | None = None


class Unknown(ServerEvent, frozen=True, tag="unknown", gc=True):
    """A frame of a `type` that inkturns does not know: its `kind` is that type, `fields` the rest (plain JSON)."""

    kind: str
    fields: dict[str, Any]


# The application's own.


class Disconnected(Event, frozen=True, tag="disconnected"):
    """The connection is gone; an open turn will never end by itself."""

    reason: str | None = None


class EndNow(Event, frozen=True, tag="end_now"):
    """Close the open turn now (push-to-talk released, "answer now" pressed)."""


class ContextChanged(Event, frozen=True, tag="context_changed"):
    """What the thought was based on has changed (a tool returned, a fact arrived): think again (F20)."""


class ThoughtFailed(Event, frozen=True, tag="thought_failed"):
    """Thought number `thought` of turn `number` failed; it will never be committed (F03)."""

    number: int
    thought: int

    def __post_init__(self) -> None:
        check_number("ThoughtFailed.number", self.number)
        check_number("ThoughtFailed.thought", self.thought)


class ReplyStarted(Event, frozen=True, tag="reply_started"):
    """The reply to turn `number` has become audible; 0: speech that the application began by itself."""

    number: int

    def __post_init__(self) -> None:
        check_number("ReplyStarted.number", self.number)


class ReplyDone(Event, frozen=True, tag="reply_done"):
    """The reply to turn `number` has been heard to its end; None: the one in flight. A late one of another turn
    changes nothing (F42)."""

    number: int | None = None

    def __post_init__(self) -> None:
        if self.number is not None:
            check_number("ReplyDone.number", self.number)


class StopReply(Event, frozen=True, tag="stop_reply"):
    """Interrupt whatever reply is in flight."""


class UsePolicy(Event, frozen=True, tag="use_policy", gc=True):
    """From here on, decide by this policy."""

    policy: Policy

    def __post_init__(self) -> None:
        if not isinstance(self.policy, Policy):
            raise TypeError(f"UsePolicy.policy must be a Policy, got {type(self.policy).__name__}")


class Tick(Event, frozen=True, tag="tick"):
    """Time has passed: worth sending at `TurnMachine.deadline`, and harmless at any other time."""


FROM_SERVER = (Connected, TurnStart, TurnUpdate, TurnEagerEnd, TurnResume, TurnEnd, ServerError, Unknown)
FROM_APPLICATION = (
    *(Disconnected, EndNow, ContextChanged, ThoughtFailed, ReplyStarted, ReplyDone, StopReply, UsePolicy, Tick),
)
KINDS: dict[str, type[Event]] = {str(kind.__struct_config__.tag): kind for kind in FROM_SERVER + FROM_APPLICATION}


def check_number(name: str, value: object) -> None:
    if type(value) is not int:  # a bool is no turn's number
        raise TypeError(f"{name} must be an int, got {type(value).__name__}")
