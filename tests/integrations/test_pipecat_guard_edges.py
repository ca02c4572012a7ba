"""The guard where several things fall on one step of the loop, where processors behind it hold it up, and in pipelines
that recommend less to the aggregator, or have none."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from loguru import logger
from pipecat.frames.frames import (
    CancelFrame,
    EagerTranscriptionFrame,
    EndFrame,
    Frame,
    InterimTranscriptionFrame,
    InterruptionFrame,
    ProposedUserStartedSpeakingFrame,
    STTMetadataFrame,
    TranscriptionFrame,
)
from pipecat.pipeline.parallel_pipeline import ParallelPipeline
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.workers.runner import WorkerRunner

from inkturns import ContextChanged, EndNow, Policy, Turns, min_words
from inkturns.adapters.pipecat import Pipecat, TurnGuard
from inkturns.events import ReplyDone, TurnUpdate

from .test_pipecat import START, Heard, Ink, Line, Steps, Tap, call, eager, end, said, update
from .test_pipecat_guarded_calls import REPLY, guarded, passed, tasks, unpiped, users

# -- in one step


def words_behind(heard: Heard, *kinds: type[Frame]) -> list[str]:
    return [frame.text for kind in kinds for frame in passed(heard, kind) if hasattr(frame, "text")]


def test_words_in_the_step_of_an_event_of_the_application_are_heard() -> None:
    made = guarded([START, 0.1, eager("a b"), 0.1, ContextChanged(), update("a b c"), 0.1, end("a b c"), 3.0])
    assert words_behind(made.heard, InterimTranscriptionFrame) == ["a b c"]
    assert (made.heard.said, users(made.heard)) == (["re: a b c"], ["a b c"])


class LastWord(Ink):
    """Its application ends the turn in the step in which the call ends."""

    def __init__(self, turns: Turns) -> None:
        super().__init__()
        self._turns = turns

    async def push_frame(self, frame: Frame, direction: FrameDirection = FrameDirection.DOWNSTREAM) -> None:
        if isinstance(frame, EndFrame):
            self._turns.feed(EndNow())
        await super().push_frame(frame, direction)


def test_a_turn_that_the_application_ends_in_the_step_of_the_calls_end_is_answered() -> None:
    turns = Turns(source=Pipecat())
    heard = call([START, 0.1, update("a b"), 0.1], turns=turns, guarded=True, service=LastWord(turns))
    assert (heard.asked, users(heard)) == (["a b"], ["a b"])


@pytest.mark.parametrize("steps", range(8))
def test_an_interruption_at_the_end_of_a_turn_drops_no_words(steps: int) -> None:
    """It drops what a processor of Pipecat's is at work on, and what waits in its queue."""

    def interrupts(heard: Heard) -> None:
        async def soon() -> None:
            for _ in range(steps):
                await asyncio.sleep(0)
            await heard.pair.user().queue_frame(InterruptionFrame(), FrameDirection.UPSTREAM)

        interrupting.append(asyncio.ensure_future(soon()))

    interrupting: list[asyncio.Future[None]] = []
    script: list[Line] = [START, 0.1, eager("a"), 0.1, interrupts, end("a b"), 3.0]
    made = guarded([*script, START, 0.1, end("bye"), 3.0])
    assert users(made.heard) == ["a b", "bye"]
    assert made.heard.said[-1] == "re: bye"


MAY_GO_ON = Policy(interrupts=min_words(2))


def test_an_eager_end_over_a_reply_is_told_with_its_start_when_the_reply_is_over() -> None:
    made = guarded([*REPLY, START, 0.1, eager("no"), 2.0, end("no"), 3.0], MAY_GO_ON)
    assert (made.heard.asked, made.heard.said) == (["hello", "no"], ["re: hello", "re: no"])
    start, eager_end = (
        passed(made.heard, kind)[-1] for kind in (ProposedUserStartedSpeakingFrame, EagerTranscriptionFrame)
    )
    order = [frame for _, _, frame in made.heard.behind.seen]
    assert order.index(start) == order.index(eager_end) - 1


def test_a_turn_is_told_with_its_start_where_the_application_knows_that_the_reply_is_over() -> None:
    made = guarded([*REPLY, START, 0.1, ReplyDone(), end("no"), 3.0], MAY_GO_ON)
    assert (made.heard.asked, users(made.heard)) == (["hello", "no"], ["hello", "no"])
    assert made.heard.said[-1] == "re: no"


# -- held up


@pytest.mark.parametrize(
    ("where", "script"),
    [
        ("behind", [START, 0.1, update("a b"), 0.1, EndNow()]),  # the guard cannot hand on what it says by itself
        ("aggregator", [START, 0.1, end("a b"), START]),  # a start waits in the outbox
    ],
)
def test_cancelled_while_a_processor_holds_it_up_it_leaves_nothing_running(where: str, script: list[Any]) -> None:
    async def hold(processor: object, frame: Frame) -> None:
        if isinstance(frame, TranscriptionFrame):
            await asyncio.Event().wait()

    async def whole() -> None:
        turns = Turns(source=Pipecat())
        heard = Heard(turns=turns, guarded=True)
        held_up = heard.behind if where == "behind" else heard.pair.user()
        held_up.add_event_handler("on_before_process_frame", hold)

        async def drive() -> None:
            for line in (0.1, *script):
                if isinstance(line, EndNow):
                    turns.feed(line)
                else:
                    await heard.follow([line])
            await asyncio.sleep(0.1)
            assert len(tasks()) == 1
            await heard.worker.queue_frame(CancelFrame())

        await heard.run(drive)
        assert tasks() == set()

    with asyncio.Runner(loop_factory=Steps) as runner:
        runner.run(whole())


# -- other pipelines


HOLDERS: list[Callable[[list[FrameProcessor]], FrameProcessor]] = [
    lambda parts: Pipeline([Pipeline(parts)]),
    lambda parts: ParallelPipeline(parts),  # type: ignore[no-untyped-call]
    lambda parts: ParallelPipeline([Pipeline(parts)]),  # type: ignore[no-untyped-call]
]


@pytest.mark.parametrize("hold", HOLDERS)
def test_a_guard_inside_a_pipeline_of_its_own_follows_the_aggregator_outside(hold: Any) -> None:
    """A speech service stands in such a pipeline where it is switched for another. Were the aggregator not found, what
    comes in one step would arrive in another order (F01, F29)."""
    two_eagers = guarded([START, eager("hello"), eager("hello world"), end("hello world"), 5.0], hold=hold)
    assert (two_eagers.heard.said, users(two_eagers.heard)) == (["re: hello world"], ["hello world"])
    made = guarded([START, eager("one"), end("one"), START, eager("two"), end("two"), 5.0], hold=hold)
    assert (made.heard.said, users(made.heard)) == (["re: two"], ["one", "two"])


def test_of_two_guards_the_last_decides_and_the_log_says_so() -> None:
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), level="ERROR")
    watched = Turns(source=Pipecat())
    ended: list[str] = []
    watched.on_end(lambda turn: ended.append(turn.transcript))

    def hold(parts: list[FrameProcessor]) -> FrameProcessor:
        return Pipeline([*parts[:2], TurnGuard(watched), *parts[2:]])

    script = [START, eager("hello"), eager("hello world"), START, update("so"), end("so"), end("so"), 5.0]
    made = guarded(script, hold=hold)
    logger.remove(sink)
    assert (made.heard.said, users(made.heard)) == (["re: so"], ["hello world", "so"])
    assert ended == ["so"]
    assert len([line for line in lines if "only watches, since the TurnGuard behind it decides" in line]) == 1


def test_one_turns_has_one_guard() -> None:
    turns = Turns(source=Pipecat())
    first = TurnGuard(turns)
    with pytest.raises(ValueError, match="turns has a guard already"):
        TurnGuard(turns)
    assert first.turns is turns


def test_what_the_application_feeds_when_the_call_is_over_starts_nothing() -> None:
    async def whole() -> None:
        turns = Turns(Policy(stall_timeout=5.0), source=Pipecat())
        heard = Heard(turns=turns, guarded=True)
        await heard.run(lambda: heard.follow([0.1, START, 0.1, end("bye"), 3.0]))
        before = asyncio.all_tasks()
        for event in (TurnUpdate("late"), EndNow(), TurnUpdate("more")):
            turns.feed(event)
        assert asyncio.all_tasks() == before
        [guard] = [one for one in heard.worker._pipeline.processors[1].processors if isinstance(one, TurnGuard)]
        assert guard._timer.due is None
        await guard.process_frame(said(InterimTranscriptionFrame, "more still"), FrameDirection.DOWNSTREAM)
        assert guard._timer.due is None

    with asyncio.Runner(loop_factory=Steps) as runner:
        runner.run(whole())


def test_a_service_without_eager_ends_is_guarded() -> None:
    service = Ink()
    service._enable_eager_end_of_turn = False
    service._should_interrupt = False
    made = guarded([*REPLY, START, START, 0.1, end("no"), end("no"), 3.0], service=service)
    assert (made.heard.asked, users(made.heard)) == (["hello", "no"], ["hello", "no"])
    assert ("assistant", "re: hello") not in made.heard.messages  # it was cut


def test_a_service_that_recommends_nothing_is_watched() -> None:
    async def whole() -> tuple[list[Frame], list[str]]:
        guard, tap, ended = unpiped()
        metadata = STTMetadataFrame(service_name="other", ttfs_p99_latency=0.5)
        assert metadata.user_turn_strategies is None
        for frame in (metadata, said(InterimTranscriptionFrame, "go")):
            await guard.queue_frame(frame)
        guard.turns.feed(EndNow())
        await guard.queue_frame(said(TranscriptionFrame, "go on"))
        assert metadata.user_turn_strategies is None
        return [frame for _, _, frame in tap.seen], ended

    passed_on, ended = asyncio.run(whole())
    assert [type(frame) for frame in passed_on] == [STTMetadataFrame, InterimTranscriptionFrame, TranscriptionFrame]
    assert ended == ["go"]


def alone(script: Sequence[Line], look: Callable[[Tap], Any]) -> Any:
    """A pipeline whose application takes the turns itself: there is no aggregator behind the guard."""

    async def whole() -> Any:
        service, tap = Ink(), Tap()
        parts = [service, TurnGuard(Turns(source=Pipecat())), tap]
        worker = PipelineWorker(Pipeline(parts), enable_rtvi=False, cancel_on_idle_timeout=False)
        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(worker)
        started = asyncio.Event()
        worker.add_event_handler("on_pipeline_started", lambda *_: started.set())

        async def drive() -> None:
            await started.wait()
            for line in script:
                await service.hear(line) if isinstance(line, dict) else None
            await worker.queue_frame(EndFrame())

        await asyncio.gather(runner.run(), drive())
        return look(tap)

    with asyncio.Runner(loop_factory=Steps) as runner:
        return runner.run(whole())


def test_without_an_aggregator_each_frame_goes_on_in_its_step() -> None:
    def look(tap: Tap) -> tuple[list[str], set[int]]:
        kinds = ("ProposedUserStarted", "ProposedUserStopped", "Eager", "Transcription")
        turns = [(step, type(frame).__name__) for step, _, frame in tap.seen if type(frame).__name__.startswith(kinds)]
        return [name.removesuffix("Frame") for _, name in turns], {step for step, _ in turns}

    names, steps = alone([START, eager("a"), eager("a b"), end("a b"), START, end("c")], look)
    turn = ["ProposedUserStartedSpeaking", "Transcription", "ProposedUserStoppedSpeaking"]
    eager_ends = ["EagerTranscription", "EagerEndOfTurnCancel", "EagerTranscription"]
    assert names == [turn[0], *eager_ends, *turn[1:], *turn]
    assert len(steps) == 1
