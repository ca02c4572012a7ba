"""What a storm draws from its seed: a policy, a session, an event, the manners of a piece of user code.

Rules of this file: every draw comes from the dice that are given. Times are multiples of 1/16 s, so that they collide.
"""

from collections.abc import Callable
from random import Random
from typing import Any, TypeVar

import attrs

from inkturns.events import (
    Connected,
    ContextChanged,
    Disconnected,
    EndNow,
    Event,
    ReplyDone,
    ReplyStarted,
    ServerError,
    StopReply,
    ThoughtFailed,
    Tick,
    TurnEagerEnd,
    TurnEnd,
    TurnResume,
    TurnStart,
    TurnUpdate,
    UsePolicy,
)
from inkturns.policy import AfterDisconnect, AfterResume, AfterStall, Policy, min_words, same_text, same_words

__all__ = [
    "CALM_MANNERS",
    "GAPS",
    "SHORT",
    "Boom",
    "Dice",
    "Manners",
    "a_policy",
    "a_session",
    "an_event",
    "some_manners",
]

PIECES = ("go", " on", " go", "ing", ".", " ", "5")
SHORT = (0.0, 0.0, 0.0625, 0.125, 0.25, 0.5)
FOR_EVER = 1000.0  # seconds: longer than the call
GAPS = (0.0, 0.0, 0.0, 0.0625, 0.125, 0.25, 0.5, 1.0, 3.0)
Chosen = TypeVar("Chosen")


class Boom(Exception):  # noqa: N818 (short, since logs are full of it)
    """The error that the world's user code raises."""


class Dice(Random):
    """Random, with the two questions that the draws ask."""

    def often(self, percent: float) -> bool:
        return self.random() * 100 < percent

    def of(self, *some: Chosen) -> Chosen:
        return self.choice(some)


def always(*given: object) -> bool:
    return True


def never(*given: object) -> bool:
    return False


def raises(*given: object) -> bool:
    raise Boom("a policy's function")


def a_policy(dice: Dice) -> Policy:
    speculates: list[Any] = [*[True] * 6, False, min_words(2), always, never, raises]
    matches: list[Callable[[str, str], bool]] = [same_words, same_words, same_text, always, never, raises]
    return Policy(
        speculate=dice.choice(speculates),
        think_after=dice.of(0.0, 0.0, 0.0, 0.0625, 0.25, 1.0),
        after_resume=dice.of(*AfterResume),
        match=dice.choice(matches),
        max_thoughts=dice.of(3, 3, None, 0, 1),
        interrupts=dice.of(
            None, min_words(2), min_words(3), never, min_words(1, or_any=("stop",)), always, never, raises
        ),
        stall_timeout=dice.of(None, None, 0.25, 1.0, 6.0),
        after_stall=dice.of(*AfterStall),
        after_disconnect=dice.of(*AfterDisconnect),
    )


def a_session(dice: Dice) -> list[Event]:
    """Turns as Ink 2 sends them, over one to three connections; then some events are dropped, repeated or swapped."""
    said: list[Event] = []
    ids, named = dice.of("all", "none", "some"), dice.often(80)

    def ids_of(number: int) -> dict[str, str | None]:
        told = ids == "all" or (ids == "some" and dice.often(50))
        return {"request_id": request_id, "turn_id": str(number) if told else None}

    number = 0
    for connection in range(dice.randint(1, 3)):
        request_id = f"connection {connection}" if named else None
        if connection and dice.often(50):
            said.append(Disconnected())
        if connection or dice.often(50):
            said.append(Connected(request_id=request_id))
        for _ in range(dice.randint(1, 4)):
            number += 1
            text, eager = dice.of("go", "stop", ""), False
            said.append(TurnStart(**ids_of(number)))
            for _ in range(dice.randint(0, 5)):
                text += dice.of("", *PIECES)
                if eager and dice.often(60):
                    said.append(TurnResume(**ids_of(number)))
                    eager = False
                elif eager or dice.often(50):
                    said.append(TurnUpdate(transcript=text, **ids_of(number)))
                else:
                    said.append(TurnEagerEnd(transcript=text, **ids_of(number)))
                    eager = True
            text += dice.of("", "", "", *PIECES)
            said.append(TurnEnd(transcript=text, **ids_of(number)))
    for _ in range(dice.of(0, 0, 1, 3, 8)):
        i = dice.randrange(len(said))
        match dice.of("drop", "repeat", "swap", "insert", "insert"):
            case "drop" if len(said) > 1:
                del said[i]
            case "repeat":
                said.insert(dice.randint(i, len(said)), said[i])
            case "swap":
                said[i - 1 : i + 1] = reversed(said[i - 1 : i + 1])
            case _:
                said.insert(i, an_event(dice))
    return said


def an_event(dice: Dice, *, use: bool = True) -> Event:
    """Any event, whether it makes sense now or not."""
    ids = {"request_id": dice.of(None, "connection 0", "connection 1"), "turn_id": dice.of(None, "1", "2")}
    text = dice.of("", " ", "go", "go on", "Go on.", "go on now", "stop", "5")
    events: list[Event] = [
        TurnStart(**ids),
        TurnUpdate(transcript=text, **ids),
        TurnEagerEnd(transcript=text, **ids),
        TurnResume(**ids),
        TurnEnd(transcript=text, **ids),
        Connected(request_id=ids["request_id"]),
        Disconnected(),
        EndNow(),
        EndNow(),
        ContextChanged(),
        ContextChanged(),
        StopReply(),
        Tick(),
        ServerError(status_code=500),
        ThoughtFailed(dice.randint(0, 4), dice.randint(1, 3)),
        ReplyStarted(dice.of(0, 0, 1, 2, 3)),
        ReplyDone(dice.of(0, 0, 1, 2, 3, None)),
    ]
    return UsePolicy(a_policy(dice)) if use and dice.often(10) else dice.choice(events)


@attrs.frozen
class Manners:
    """How one piece of user code behaves."""

    form: str
    first: float  # seconds until its first piece
    gap: float  # and until the next ones
    pieces: int
    fails_at: int | None
    raises_timeout: bool  # a think's stream has a timeout around its yields
    swallows: int  # cancellations
    shields: float  # seconds, from its beginning
    cleans_up: float  # seconds, shielded
    cancelled_raises: bool
    gate: str  # "", "await", "block": how a think waits for its commit
    block: float
    patience: float | None  # of a respond that takes with a timeout
    native: bool  # it uses asyncio's own sleep
    sounds: str  # "first", "late", "heard", "never": when a respond says that it is audible
    records: int | None  # the piece after which a think records the call of a tool and its result


CALM_MANNERS = Manners("stream", 0.0625, 0.0625, 3, None, False, 0, 0, 0, False, "", 0, None, False, "first", None)


def some_manners(dice: Dice, role: str) -> Manners:
    forms = {
        "think": ("stream", "stream", "stream", "awaited stream", "awaited", "value", "iterator", "raises"),
        "respond": ("each", "each", "each", "whole", "none", "timeouts"),
        "listen": ("async", "async", "sync"),
    }
    hostile, hangs = dice.often(50), role == "listen" and dice.often(15)
    return Manners(
        form=dice.of(*forms[role]),
        first=FOR_EVER if hangs else dice.of(*GAPS),
        gap=dice.of(*SHORT),
        pieces=dice.of(0, 1, 1, 2, 3, 6),
        fails_at=dice.of(0, 1, 2) if dice.often(15) else None,
        raises_timeout=dice.often(15),
        swallows=dice.randint(1, 5) if hostile and dice.often(40) else 0,
        shields=dice.of(0.0625, 0.25, 1.0, 3.0) if hostile and dice.often(30) else 0,
        cleans_up=dice.of(0.0, 0.0625, 0.25, 1.0, 3.0) if hostile and dice.often(40) else 0,
        cancelled_raises=hostile and dice.often(15) and not hangs,  # the calm after the storm would hear it
        gate=dice.of("", "", "", "await", "block", "block"),
        block=dice.of(0.0, 0.25, 0.5, 2.0),
        patience=dice.of(0.0625, 0.125, 0.25),
        native=dice.often(30),
        sounds=dice.of("first", "late", "heard", "never"),
        records=dice.of(0, 1, 2) if dice.often(40) else None,
    )
