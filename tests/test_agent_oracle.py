"""AgentOracle finds each fault: a story for each law that is broken. `test_storm` has agents that break the others."""

import gc
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from inkturns.actions import EndReason, Turn
from inkturns.events import TurnUpdate
from inkturns.outcomes import Outcome, Replied, ReplyOutcome, Settled
from inkturns.policy import Policy
from inkturns.testing.agent_oracle import AgentOracle, Asked, Piece
from inkturns.testing.storm import Boom, World, storm
from inkturns.testing.virtual_time import BACKENDS

OPEN = Turn(1)
THOUGHT = Turn(1, "go", latest_thought=1)
ENDED = Turn(1, "go", latest_thought=1, end=EndReason.SERVER)


@pytest.fixture
def outside() -> AgentOracle:
    return AgentOracle(Policy(), 0.5, 30, lambda: 0.0, True)


def broken(outside: AgentOracle, *, lost: bool = False) -> str:
    """The judgement, without the log."""
    with pytest.raises(AssertionError) as raised:
        outside.judge(lost=lost)
    judgement, *log = f"{raised.value}".splitlines()
    assert outside.log == log
    return judgement


def settled(turn: Turn = THOUGHT, *, items: int = 0, outcome: Outcome = Outcome.ADOPTED) -> Settled:
    return Settled(
        turn=turn,
        thought=turn.latest_thought,
        speculative=False,
        outcome=outcome,
        reason=None,
        began=0.0,
        first_item=None,
        finished=None,
        error=None,
        cancelled_at=None,
        items=items,
        committed_at=0.0,
        notes={},
        usage=None,
    )


def answered(outside: AgentOracle, pieces: int = 2) -> tuple[Asked, Asked]:
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


def test_a_call_that_keeps_the_laws(outside: AgentOracle) -> None:
    _, respond = answered(outside)
    outside.is_over(respond, "done")
    outside.returns()
    outside.judge()


# -- 2: what is spoken answers the turn


def test_a_reply_speaks_what_is_said_beside_the_turns(outside: AgentOracle) -> None:
    _, respond = answered(outside, 0)
    outside.spoke(respond, Piece(Asked("say", None, 1), 0))
    assert broken(outside) == "law 2: respond #1 of turn 1.1 speaks [say #1: 0]"


# -- 3: each turn once


def test_listen_is_called_twice(outside: AgentOracle) -> None:
    outside.on_start(OPEN)
    for asked in (Asked("listen", OPEN, 1), Asked("listen", OPEN, 2)):
        outside.called(asked)
        outside.is_over(asked, "done")
    assert broken(outside) == "law 3: listen of turn 1 is called twice"


def test_listen_runs_beside_another(outside: AgentOracle) -> None:
    """F51."""
    outside.on_start(OPEN)
    for turn in (OPEN, Turn(2)):
        outside.called(Asked("listen", turn, turn.number))
    assert broken(outside) == "law 8: listen #2 of turn 2.0 runs beside listen #1 of turn 1.0, which was not reported"


def test_a_turn_stays_open(outside: AgentOracle) -> None:
    outside.on_start(OPEN)
    outside.returns()
    assert broken(outside) == "law 3: turn 1 was started, and neither ended nor abandoned"


def test_a_turn_ends_twice(outside: AgentOracle) -> None:
    outside.on_start(OPEN)
    outside.on_end(ENDED)
    outside.on_abandon(Turn(1, "go", end=EndReason.LOST))
    assert broken(outside) == "law 3: turn 1 ends twice"


def test_words_are_abandoned_as_none(outside: AgentOracle) -> None:
    outside.on_start(OPEN)
    outside.on_abandon(Turn(1, "go", end=EndReason.EMPTY))
    assert broken(outside) == "law 3: turn 1 is abandoned as empty, with 'go'"


# -- 4: nothing of what was interrupted


def test_an_interrupt_cuts_off_the_reply_that_it_names(outside: AgentOracle) -> None:
    think, respond = answered(outside)
    outside.on_interrupt(0)
    outside.made(think)
    outside.spoke(respond, Piece(think, 2))
    assert outside.broken is None
    outside.on_interrupt(1)
    outside.spoke(respond, Piece(think, 3))
    assert broken(outside) == "law 4: respond #1 of turn 1.1 speaks [think #1 of turn 1.1: 3] after the interrupt of 1"


# -- 6: each end once


def test_a_thought_is_settled_twice(outside: AgentOracle) -> None:
    answered(outside)
    outside.on_settled(settled(items=2))
    assert broken(outside) == "law 6: thought (1, 1) is settled twice"


def test_a_thought_is_settled_while_it_runs(outside: AgentOracle) -> None:
    outside.on_start(OPEN)
    outside.called(Asked("think", THOUGHT, 1))
    outside.on_settled(settled())
    assert broken(outside) == "law 6: thought (1, 1) is settled before it is over"


def test_user_code_is_over_twice(outside: AgentOracle) -> None:
    think, _ = answered(outside)
    outside.is_over(think, "cancelled")
    assert broken(outside) == "law 6: think #1 of turn 1.1 is over twice"


@pytest.mark.parametrize("lost", [False, True])
def test_a_failure_is_made_up(outside: AgentOracle, lost: bool) -> None:
    outside.on_failure(None, KeyError("none"))
    assert broken(outside, lost=lost) == "law 6: KeyError('none') is seen, and nobody raised it"


def replied(outcome: ReplyOutcome, turn: Turn = ENDED) -> Replied:
    times: dict[str, Any] = dict.fromkeys(("first_item", "sounded_at", "saved", "head_start"))
    return Replied(turn=turn, thought=1, outcome=outcome, committed_at=0.0, over_at=0.0, text="", **times)


def test_a_reply_is_replied_twice(outside: AgentOracle) -> None:
    answered(outside)
    for _ in range(2):
        outside.on_replied(replied(ReplyOutcome.HEARD))
    assert broken(outside) == "law 6: the reply to turn 1 is replied 2 times"


def test_an_interrupted_reply_is_replied_as_heard(outside: AgentOracle) -> None:
    answered(outside)
    outside.on_interrupt(1)
    outside.on_replied(replied(ReplyOutcome.HEARD))
    assert broken(outside) == "law 6: the reply to turn 1 was heard, and yet the interrupt of 1"


def said(outside: AgentOracle, pieces: int = 1) -> tuple[Asked, Asked]:
    """What `say` was given, and the respond that speaks it."""
    given, respond = Asked("say", None, 1), Asked("respond", None, 1)
    outside.called(respond)
    for place in range(pieces):
        outside.spoke(respond, Piece(given, place))
    return given, respond


def test_an_interrupted_say_was_not_heard(outside: AgentOracle) -> None:
    given, _ = said(outside)
    outside.on_start(OPEN)
    outside.said(given, ReplyOutcome.HEARD)
    assert broken(outside) == "law 6: say #1 was heard, and yet the start of turn 1"


def test_a_say_that_failed_was_not_heard(outside: AgentOracle) -> None:
    given, respond = said(outside)
    outside.is_over(respond, "failed", KeyError("voice"))
    outside.said(given, ReplyOutcome.HEARD)
    assert broken(outside) == "law 6: say #1 was heard, and yet respond #1"


def test_a_say_of_which_nothing_was_spoken_was_not_interrupted(outside: AgentOracle) -> None:
    given, _ = said(outside, 0)
    outside.said(given, ReplyOutcome.INTERRUPTED)
    assert broken(outside) == "law 6: say #1 was interrupted, and nothing of it was spoken"


def test_a_say_that_was_spoken_was_begun(outside: AgentOracle) -> None:
    given, _ = said(outside)
    outside.said(given, ReplyOutcome.NOT_BEGUN)
    assert broken(outside) == "law 6: say #1 was not begun, and yet it was spoken"


# -- what cuts a reply, and what it is after that


def test_the_end_of_the_drain_timeout_cuts_a_reply(outside: AgentOracle) -> None:
    _, respond = answered(outside)
    outside.items_over, outside.now = 1.0, lambda: 1.0 + outside.drain_timeout
    outside.was_cancelled(respond)
    assert outside.replies[1].cut == "the end of the drain timeout"
    assert outside.broken is None


@pytest.mark.parametrize("cut", [False, True])
def test_a_reply_is_audible_when_it_says_so_unless_it_was_cut(outside: AgentOracle, cut: bool) -> None:
    outside.is_told = True
    _, respond = answered(outside)
    if cut:
        outside.on_interrupt(1)
    assert not outside.replies[1].audible
    outside.sounded(respond)
    assert outside.replies[1].audible is not cut


def test_a_say_that_does_not_sound_yet_may_be_withdrawn_though_its_items_are_taken(outside: AgentOracle) -> None:
    """Its cancellation is seen a step later, when the turn that withdrew it may be over."""
    outside.is_told = True
    _, respond = said(outside)
    outside.is_fed(TurnUpdate(transcript="go"))
    outside.was_cancelled(respond)
    assert outside.broken is None


def test_a_say_that_sounds_is_not_withdrawn(outside: AgentOracle) -> None:
    outside.is_told = True
    _, respond = said(outside)
    outside.sounded(respond)
    outside.is_fed(TurnUpdate(transcript="go"))
    outside.was_cancelled(respond)
    assert broken(outside) == "law 3: respond #1 is cancelled, and nothing cut the reply off"


# -- 9: nothing has an effect after it was cut


def test_a_reply_has_an_effect_after_it_was_interrupted(outside: AgentOracle) -> None:
    _, respond = answered(outside)
    outside.on_interrupt(1)
    outside.begins_block(respond)
    assert broken(outside) == "law 9: respond #1 of turn 1.1 has an effect after the interrupt of 1"


# -- 10: what was done is known


@pytest.mark.parametrize(
    ("messages", "verdict"),
    [
        ([], "the calls [] and the results []; done were ['book']"),
        ([{"role": "tool", "tool_call_id": "book"}], "the calls [] and the results ['book']; done were ['book']"),
        ([{"role": "assistant", "tool_calls": [{"id": "book"}]}], "the calls ['book'] and the results []; done were"),
    ],
)
def test_what_was_done_is_not_in_the_history(outside: AgentOracle, messages: list[Any], verdict: str) -> None:
    think, respond = answered(outside)
    outside.is_over(respond, "done")
    for _ in range(2):
        outside.records(think, "book")
    outside.messages = messages
    outside.returns()
    assert broken(outside).startswith(f"law 10: the history holds {verdict}")


# -- 8: nothing after the end


def test_speech_after_the_call_was_closed(outside: AgentOracle) -> None:
    think, respond = answered(outside)
    outside.closes("close()")
    outside.spoke(respond, Piece(think, 2))
    assert broken(outside) == "law 8: respond #1 of turn 1.1 speaks after the call was closed"


def test_user_code_runs_after_run(outside: AgentOracle) -> None:
    outside.on_start(OPEN)
    outside.returns()
    outside.called(Asked("listen", OPEN, 1))
    assert broken(outside) == "law 8: listen #1 of turn 1.0 runs after run has returned"


def test_a_task_that_was_not_reported_holds_run_up(outside: AgentOracle) -> None:
    _, respond = answered(outside)
    outside.closes("close()")
    outside.now = lambda: 2.0
    outside.is_over(respond, "cancelled")
    outside.returns()
    assert broken(outside) == "law 8: respond #1 of turn 1.1 held run up until 2.0, and was not reported"


def test_a_thought_is_never_settled(outside: AgentOracle) -> None:
    outside.on_start(OPEN)
    think = Asked("think", THOUGHT, 1)
    outside.called(think)
    outside.is_over(think, "cancelled")
    outside.on_abandon(Turn(1, "go", end=EndReason.LOST))
    outside.returns()
    assert broken(outside) == "law 6: thought (1, 1) is never settled"


def test_a_reply_that_did_not_fail_is_settled_as_failed(outside: AgentOracle) -> None:
    think, respond = Asked("think", THOUGHT, 1), Asked("respond", ENDED, 1)
    outside.on_start(OPEN)
    outside.called(think)
    outside.is_over(think, "done")
    outside.on_end(ENDED)
    outside.on_settled(settled(outcome=Outcome.FAILED))
    outside.called(respond)
    outside.is_over(respond, "done")
    outside.returns()
    assert broken(outside) == "law 6: thought (1, 1) is settled as failed: adopted True, failed False"


def test_user_code_outlives_run(outside: AgentOracle) -> None:
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
        world._awaits_all = anyio.lowlevel.checkpoint  # type: ignore[method-assign]

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
        self.world.says("hello", Asked("say", None, 1), inside_think=False)
        await self.asked.wait()

    async def say(self, what: Any) -> None:
        self.asked.set()
        await anyio.sleep_forever()


class CannotSay(Idle):
    async def run(self, items: AsyncIterator[Any]) -> None:
        self.world.says("hello", Asked("say", None, 1), inside_think=False)

    def say(self, what: Any) -> Any:
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
        (NeverHasSaid, "law 8: a say is not over, though run has returned"),
        (CannotSay, "law 5: say raises RuntimeError('no voice')"),
    ],
)
def test_who_breaks_a_law_is_found_out(broken: Callable[[World], Idle], judgement: str, backend: str) -> None:
    assert judged(broken, backend) == judgement


def test_a_task_that_is_left_behind_is_named() -> None:
    assert judged(Leaves, "asyncio") == "law 8: left behind: the one that is left"


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
