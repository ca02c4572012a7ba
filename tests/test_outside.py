"""Outside: what it finds fault with, by a story that breaks one law; and the agents of a storm that break the rest."""

import gc
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from inkturns.actions import EndReason, Turn
from inkturns.policy import Policy
from inkturns.testing.outside import Asked, Outside, Piece
from inkturns.testing.storm import Boom, World, storm
from inkturns.testing.virtual import BACKENDS
from inkturns.thought import Outcome, Settled

OPEN = Turn(1)
THOUGHT = Turn(1, "go", thoughts=1)
ENDED = Turn(1, "go", thoughts=1, end=EndReason.SERVER)


@pytest.fixture
def outside() -> Outside:
    return Outside(Policy(), 0.5, 30, lambda: 0.0, True)


def broken(outside: Outside, *, lost: bool = False) -> str:
    """The judgement, without the log."""
    with pytest.raises(AssertionError) as raised:
        outside.judge(lost=lost)
    judgement, *log = f"{raised.value}".splitlines()
    assert outside.log == log
    return judgement


def settled(turn: Turn = THOUGHT, *, items: int = 0, outcome: Outcome = Outcome.ADOPTED) -> Settled:
    return Settled(
        turn=turn,
        thought=turn.thoughts,
        speculative=False,
        outcome=outcome,
        reason=None,
        began=0.0,
        first_item=None,
        finished=None,
        items=items,
        ended=0.0,
        notes={},
    )


def answered(outside: Outside, pieces: int = 2) -> tuple[Asked, Asked]:
    """A turn that keeps all laws, up to where its reply has been spoken: its think and its respond."""
    think, respond = Asked("think", THOUGHT, 1), Asked("respond", ENDED, 1)
    outside.on_start(OPEN)
    outside.called(think)
    outside.on_end(ENDED)
    outside.called(respond)
    for place in range(pieces):
        outside.made(think)
        outside.spoke(respond, Piece(think, place))
    outside.is_over(think, "done")
    outside.on_settled(settled(items=pieces))
    outside.exhausted(respond)
    return think, respond


def test_a_call_that_keeps_the_laws(outside: Outside) -> None:
    _, respond = answered(outside)
    outside.is_over(respond, "done")
    outside.returns()
    outside.judge()


# -- 2: what is spoken answers the turn


def test_a_reply_speaks_what_is_said_beside_the_turns(outside: Outside) -> None:
    _, respond = answered(outside, 0)
    outside.spoke(respond, Piece(Asked("say", None, 1), 0))
    assert broken(outside) == "law 2: respond #1 of turn 1.1 speaks [say #1: 0]"


# -- 3: each turn once


def test_listen_is_called_twice(outside: Outside) -> None:
    outside.on_start(OPEN)
    for number in (1, 2):
        outside.called(Asked("listen", OPEN, number))
    assert broken(outside) == "law 3: listen of turn 1 is called twice"


def test_a_turn_stays_open(outside: Outside) -> None:
    outside.on_start(OPEN)
    outside.returns()
    assert broken(outside) == "law 3: turn 1 was started, and neither ended nor abandoned"


def test_a_turn_ends_twice(outside: Outside) -> None:
    outside.on_start(OPEN)
    outside.on_end(ENDED)
    outside.on_abandon(Turn(1, "go", end=EndReason.LOST))
    assert broken(outside) == "law 3: turn 1 ends twice"


def test_words_are_abandoned_as_none(outside: Outside) -> None:
    outside.on_start(OPEN)
    outside.on_abandon(Turn(1, "go", end=EndReason.EMPTY))
    assert broken(outside) == "law 3: turn 1 is abandoned as empty, with 'go'"


# -- 4: nothing of what was interrupted


def test_an_interrupt_cuts_off_the_reply_that_it_names(outside: Outside) -> None:
    think, respond = answered(outside)
    outside.on_interrupt(0)
    outside.made(think)
    outside.spoke(respond, Piece(think, 2))
    assert outside.broken is None
    outside.on_interrupt(1)
    outside.spoke(respond, Piece(think, 3))
    assert broken(outside) == "law 4: respond #1 of turn 1.1 speaks [think #1 of turn 1.1: 3] after the interrupt of 1"


# -- 6: each end once


def test_a_thought_is_settled_twice(outside: Outside) -> None:
    answered(outside)
    outside.on_settled(settled(items=2))
    assert broken(outside) == "law 6: thought (1, 1) is settled twice"


def test_a_thought_is_settled_while_it_runs(outside: Outside) -> None:
    outside.on_start(OPEN)
    outside.called(Asked("think", THOUGHT, 1))
    outside.on_settled(settled())
    assert broken(outside) == "law 6: thought (1, 1) is settled before it is over"


def test_user_code_is_over_twice(outside: Outside) -> None:
    think, _ = answered(outside)
    outside.is_over(think, "cancelled")
    assert broken(outside) == "law 6: think #1 of turn 1.1 is over twice"


@pytest.mark.parametrize("lost", [False, True])
def test_a_failure_is_made_up(outside: Outside, lost: bool) -> None:
    outside.on_failure(None, KeyError("none"))
    assert broken(outside, lost=lost) == "law 6: KeyError('none') is seen, and nobody raised it"


# -- 8: nothing after the end


def test_speech_after_the_call_was_closed(outside: Outside) -> None:
    think, respond = answered(outside)
    outside.closes("close()")
    outside.spoke(respond, Piece(think, 2))
    assert broken(outside) == "law 8: respond #1 of turn 1.1 speaks after the call was closed"


def test_user_code_runs_after_run(outside: Outside) -> None:
    outside.on_start(OPEN)
    outside.returns()
    outside.called(Asked("listen", OPEN, 1))
    assert broken(outside) == "law 8: listen #1 of turn 1.0 runs after run has returned"


def test_user_code_outlives_run(outside: Outside) -> None:
    answered(outside)
    outside.returns()
    assert broken(outside) == "law 8: respond #1 of turn 1.1 still runs, and run has returned"


# -- agents that break a law in a storm


class Idle:
    """The least of an agent: it takes its frames to their end, and does nothing."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def run(self, items: AsyncIterator[Any]) -> None:
        async for _ in items:
            pass

    def feed(self, item: Any) -> None:
        pass

    async def say(self, what: Any) -> None:
        pass

    def interrupt(self) -> None:
        pass

    def close(self) -> None:
        pass


class Leaves(Idle):
    """A task. Nobody of the world's is left that wants cancelling: CPython 3.11 loses the trace where a coroutine that
    is awaited swallows a cancellation and returns, and with it what coverage sees of the caller."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        world._says = anyio.lowlevel.checkpoint  # type: ignore[method-assign]

    async def run(self, items: AsyncIterator[Any]) -> None:
        import asyncio

        self.left = asyncio.create_task(asyncio.sleep(1000), name="the one that is left")


class LeavesUnawaited(Idle):
    """A coroutine."""

    async def run(self, items: AsyncIterator[Any]) -> None:
        anyio.sleep(1)  # type: ignore[unused-coroutine]


class NeverReturns(Idle):
    """Nor does its think."""

    async def run(self, items: AsyncIterator[Any]) -> None:
        asked = Asked("think", None, 1)
        self.world.seen.called(asked)
        try:
            await anyio.sleep_forever()
        finally:
            self.world.seen.is_over(asked, "cancelled")


class Raises(Idle):
    async def run(self, items: AsyncIterator[Any]) -> None:
        raise ExceptionGroup("of", [Boom("a role")])


class NeverHasSaid(Idle):
    async def run(self, items: AsyncIterator[Any]) -> None:
        self.asked = anyio.Event()
        self.world.wanted.append("hello")
        self.world.bell.set()
        await self.asked.wait()

    async def say(self, what: Any) -> None:
        self.asked.set()
        await anyio.sleep_forever()


class CannotSay(NeverHasSaid):
    async def say(self, what: Any) -> None:
        raise RuntimeError("no voice")


def judged(make_call: Callable[[World], Idle], backend: str, seed: int = 0) -> str:
    with pytest.raises(AssertionError) as raised:
        storm(make_call, seed, backend=backend)
    judgement, line, *_ = f"{raised.value}".splitlines()
    assert line == f"storm(make_call, {seed}, backend={backend!r})"
    return judgement


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("broken", "judgement"),
    [
        (LeavesUnawaited, "law 8: left behind: coroutine 'sleep' was never awaited"),
        (NeverReturns, "law 7: run has not returned"),
        (Raises, "law 6: run raises Boom('a role'), though there is an on_failure"),
        (NeverHasSaid, "law 8: say has not returned, though run has"),
    ],
)
def test_who_breaks_a_law_is_found_out(broken: Callable[[World], Idle], judgement: str, backend: str) -> None:
    assert judged(broken, backend) == judgement


def test_a_task_that_is_left_behind_is_named() -> None:
    assert judged(Leaves, "asyncio") == "law 8: left behind: the one that is left"


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_agent_that_cannot_say_in_its_call(backend: str) -> None:
    """It is no law's: it is passed on."""
    with pytest.raises(ExceptionGroup) as raised:
        storm(CannotSay, 0, backend=backend)
    assert raised.group_contains(RuntimeError, match=r"^no voice$")


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_was_frozen_stays_frozen(backend: str) -> None:
    """A storm thaws what it froze itself."""
    gc.freeze()
    try:
        judged(LeavesUnawaited, backend)
        assert gc.get_freeze_count()
    finally:
        gc.unfreeze()
    judged(LeavesUnawaited, backend)
    assert not gc.get_freeze_count()
