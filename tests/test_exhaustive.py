"""The laws, of every session: not drawn but walked, each input in each state that the ones before can lead to.

An input is received at the time of the one before; only a tick past the deadline moves the clock on. A state is a
machine's snapshot and an oracle's, times as ages: equal ones go on alike (the snapshots' own test, in test_laws.py), so
that each is walked once. Sessions have 3 inputs; with `--full` they have 5, with `--deep` 8, which takes hours.
"""

from collections.abc import Iterable, Iterator
from copy import copy
from hashlib import blake2b
from operator import attrgetter
from typing import NamedTuple, Self

import attrs
import msgspec
import pytest

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
    Unknown,
    UsePolicy,
)
from inkturns.machine import TurnMachine
from inkturns.policy import AfterDisconnect, AfterResume, AfterStall, Policy, min_words, same_text
from inkturns.testing.oracle import Oracle, shown
from inkturns.testing.strategies import always, never, raises

GO, ON, SAME, OFF, BLANK = "go", "go on", "Go.", "stop", " "  # ON goes on from GO, SAME matches it, OFF revises it
STALL = 1.0  # seconds, of every policy here, so that one tick is past the deadline

# They differ in what matters. A function of a policy is asked about few texts here: what it says is the choice.
POLICIES = {
    "default": Policy(stall_timeout=STALL),
    "keeps": Policy(stall_timeout=STALL, after_resume=AfterResume.KEEP, match=same_text, max_thoughts=None),
    "guarded": Policy(stall_timeout=STALL, after_resume=AfterResume.KEEP, interrupts=min_words(2)),
    "ends": Policy(
        stall_timeout=STALL, after_stall=AfterStall.END, after_disconnect=AfterDisconnect.RESPOND, max_thoughts=1
    ),
    "waits": Policy(stall_timeout=STALL, after_stall=AfterStall.END, speculate=False, interrupts=never),
    "eager": Policy(
        stall_timeout=STALL, after_resume=AfterResume.KEEP, match=always, interrupts=always, speculate=min_words(2)
    ),
    "late": Policy(stall_timeout=2 * STALL, think_after=STALL, interrupts=never),
    "raises": Policy(stall_timeout=STALL, after_resume=AfterResume.KEEP, match=raises, interrupts=raises),
}

# Turn "1" is the open one, another or a closed one, as it comes; so texts are new, the same, revised or gone on from.
INPUTS: tuple[Event, ...] = (
    *(TurnStart(turn_id=turn_id) for turn_id in ("1", "2", None)),
    *(TurnUpdate(turn_id="1", transcript=text) for text in (GO, ON, OFF, BLANK)),
    *(TurnUpdate(turn_id="2", transcript=GO), TurnUpdate(transcript=ON)),
    *(TurnEagerEnd(turn_id="1", transcript=text) for text in (GO, ON, SAME, BLANK)),
    *(TurnEagerEnd(turn_id="2", transcript=ON), TurnEagerEnd(transcript=GO)),
    *(TurnResume(turn_id=turn_id) for turn_id in ("1", "2")),
    *(TurnEnd(turn_id="1", transcript=text) for text in (GO, ON, OFF, BLANK)),
    *(TurnEnd(turn_id="2", transcript=GO), TurnEnd(transcript=ON)),
    *(Connected(request_id="a"), TurnUpdate(turn_id="1", transcript=GO, request_id="b"), Disconnected()),
    *(ServerError(), Unknown(kind="turn.sigh", fields={})),
    *(EndNow(), ContextChanged(), ThoughtFailed(number=1, thought=1), UsePolicy(POLICIES["waits"])),
    *(ReplyStarted(number=1), ReplyStarted(number=0), ReplyDone(number=1), ReplyDone(), StopReply()),
    Tick(),
)


class State(NamedTuple):
    """Where a session has led to."""

    machine: TurnMachine
    oracle: Oracle
    now: float
    session: tuple[tuple[Event, float], ...]

    def after(self, event: Event) -> Self:
        """One input further."""
        machine, oracle = copied(self.machine), copy(self.oracle)
        now = self.now + STALL if type(event) is Tick else self.now
        session = (*self.session, (event, now))
        try:
            oracle.step(event, machine.receive(event, now))
        except Exception as broken:
            broken.add_note("\n".join(["in the session", *(f"{now}  {shown(event)}" for event, now in session)]))
            raise
        return type(self)(machine, oracle, now, session)

    def key(self) -> bytes:
        """Equal for states that go on alike. Of a closed turn only what a guard may ask of one is looked at."""
        snapshot = self.machine.snapshot(self.now)
        snapshot["closed"] = [[turn.get(name) for name in CLOSED] for turn in snapshot["closed"]]
        policy = self.machine.policy is POLICIES["waits"]  # else the one that it began with
        return blake2b(msgspec.msgpack.encode((snapshot, policy, self.oracle.key(self.now))), digest_size=16).digest()


CLOSED = ("number", "turn_id", "transcript", "end")


FRESH = attrs.asdict(TurnMachine()._state, recurse=False)
VALUES = attrgetter(*FRESH)
MUTABLE = [name for name, value in FRESH.items() if isinstance(value, dict | list)]


def copied(machine: TurnMachine) -> TurnMachine:
    """As restored from its snapshot, many times faster. The walk sees to it that nothing is shared."""
    copy_of = TurnMachine.__new__(TurnMachine)
    copy_of._state = type(machine._state)(*VALUES(machine._state))
    for name in MUTABLE:
        setattr(copy_of._state, name, getattr(machine._state, name).copy())
    return copy_of


def further(states: Iterable[State], seen: set[bytes]) -> Iterator[State]:
    """The states that have not been seen, one input after these."""
    for state in states:
        before = state.key()
        for event in INPUTS:
            state_after = state.after(event)
            if (key := state_after.key()) not in seen:
                seen.add(key)
                yield state_after
        assert state.key() == before


def walk(policy: Policy, length: int) -> int:
    """Every session of `length` inputs; how many states they lead to, but for the last input."""
    first = State(TurnMachine(policy), Oracle(policy=policy), 0.0, ())
    states, seen = [first], {first.key()}
    for _ in range(length - 2):
        states = list(further(states, seen))
    for state in further(states, seen):  # one at a time: these are too many to keep, and nobody comes back to them
        for event in INPUTS:
            state.after(event)
    return len(seen)


@pytest.mark.parametrize("name", POLICIES)
def test_every_session_keeps_the_laws(name: str, full: bool, deep: bool) -> None:
    assert len(INPUTS) >= 30
    length = 8 if deep else 5 if full else 3
    assert walk(POLICIES[name], length) > {3: 250, 5: 10_000, 8: 10_000}[length]
