"""Whole calls through Pipecat's pipeline with the guard: the policy decides, the application's events and the hooks
work as anywhere, and whatever the server sends, the user hears one right answer."""

import asyncio
import gc
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from time import perf_counter
from typing import Any

import attrs
import pytest
from loguru import logger
from pipecat.frames.frames import (
    CancelFrame,
    EagerTranscriptionFrame,
    Frame,
    InputAudioRawFrame,
    InterimTranscriptionFrame,
    InterruptionFrame,
    ProposedUserStartedSpeakingFrame,
    TranscriptionFrame,
    UserBackchannelFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.cartesia.turns.stt import CartesiaTurnsSTTService
from pipecat.turns.user_turn_strategies import ExternalUserTurnStrategies
from websockets.asyncio.server import ServerConnection, serve

from inkturns import (
    AfterDisconnect,
    AfterResume,
    AfterStall,
    ContextChanged,
    Disconnected,
    EndNow,
    Policy,
    Recorder,
    StopReply,
    Turns,
    min_words,
)
from inkturns.actions import Cancel, EndReason, Respond, Think
from inkturns.adapters.pipecat import Pipecat, TurnGuard
from inkturns.events import TurnEagerEnd, TurnEnd, TurnResume, TurnStart, TurnUpdate
from inkturns.replay import replay
from inkturns.report import turns_of

from .test_pipecat import (
    RESUME,
    START,
    WORDS,
    Heard,
    Ink,
    Line,
    Steps,
    Tap,
    call,
    eager,
    end,
    ink_messages,
    pushed,
    said,
    update,
)

BYE: list[Line] = [START, 0.1, end("bye now"), 6.0]
REPLY: list[Line] = [START, 0.1, end("hello"), 0.8]  # and the bot speaks


@attrs.define
class Call:
    heard: Heard
    thoughts: list[str]
    ended: list[tuple[str, str]]


def guarded(script: Sequence[Any], policy: Policy | None = None, **options: Any) -> Call:
    """A call. What stands in the script as an event is fed by the application."""
    turns = Turns(policy or Policy(), source=Pipecat())
    thoughts: list[str] = []
    ended: list[tuple[str, str]] = []
    turns.on_think(lambda turn: thoughts.append(turn.transcript))
    turns.on_end(lambda turn: ended.append((turn.transcript, str(turn.end))))
    turns.on_abandon(lambda turn: ended.append((turn.transcript, str(turn.end))))

    def line(one: Any) -> Any:
        if isinstance(one, dict | float):
            return one
        return (lambda heard: turns.feed(one)) if not callable(one) else one

    heard = call([line(one) for one in script], turns=turns, guarded=True, **options)
    return Call(heard, thoughts, ended)


def users(heard: Heard) -> list[str]:
    return [text for role, text in heard.messages if role == "user"]


def passed(heard: Heard, kind: type[Frame], way: FrameDirection = FrameDirection.DOWNSTREAM) -> list[Frame]:
    return [frame for _, direction, frame in heard.behind.seen if isinstance(frame, kind) and direction is way]


# -- the policy


def test_a_barge_in_interrupts_once_and_is_answered() -> None:
    made = guarded([*REPLY, START, 0.1, update("no"), 0.1, eager("no"), 0.1, end("no"), 3.0])
    assert made.heard.said == ["re: hello", "re: no"]
    assert made.heard.asked == made.thoughts == ["hello", "no"]
    up = passed(made.heard, InterruptionFrame, FrameDirection.UPSTREAM)
    assert len(up) == 2  # one for each turn's start, of the aggregator's own


def test_f36_a_backchannel_neither_stops_the_reply_nor_reaches_the_model() -> None:
    mhm: list[Line] = [START, 0.1, update("mhm"), 0.1, eager("mhm"), 0.1, end("mhm"), 3.0]
    assert call([*REPLY, *mhm]).asked[-1] == "mhm"
    made = guarded([*REPLY, *mhm], Policy(interrupts=min_words(2)))
    assert made.heard.messages == [("user", "hello"), ("assistant", "re: hello")]
    assert made.heard.asked == ["hello"]
    assert [frame.text for frame in passed(made.heard, UserBackchannelFrame) if isinstance(frame, UserBackchannelFrame)]
    assert len(passed(made.heard, ProposedUserStartedSpeakingFrame)) == 1
    assert made.ended[-1] == ("mhm", str(EndReason.BACKCHANNEL))


def test_words_that_may_interrupt_are_told_with_their_start_when_they_do() -> None:
    script = [*REPLY, START, 0.1, update("no"), 0.1, update("no wait"), 0.1, end("no wait"), 3.0]
    made = guarded(script, Policy(interrupts=min_words(2)))
    assert made.heard.asked == ["hello", "no wait"]
    kinds = [(type(f).__name__, getattr(f, "text", "")) for _, w, f in made.heard.behind.seen if w.name == "DOWNSTREAM"]
    start = kinds.index(("ProposedUserStartedSpeakingFrame", ""), 5)
    assert kinds[start + 1] == ("InterimTranscriptionFrame", "no wait")
    assert ("InterimTranscriptionFrame", "no") not in kinds


def test_words_over_a_reply_that_ends_by_itself_are_told_then() -> None:
    script = [*REPLY, START, 0.1, update("no"), 2.0, end("no"), 3.0]
    made = guarded(script, Policy(interrupts=min_words(2)))
    assert made.heard.messages[:2] == [("user", "hello"), ("assistant", "re: hello")]
    assert made.heard.said == ["re: hello", "re: no"]
    assert len(passed(made.heard, InterimTranscriptionFrame)) == 1


def test_think_after_saves_the_call_of_a_user_who_goes_on() -> None:
    script = [START, 0.1, eager("a"), 0.1, RESUME, 0.1, update("a b"), 0.1, eager("a b"), 0.4, end("a b"), 3.0]
    assert call(script).asked == ["a", "a b"]
    made = guarded(script, Policy(think_after=0.2))
    assert (made.heard.asked, made.heard.said) == (["a b"], ["re: a b"])
    assert guarded([START, 0.1, eager("a"), 0.1, end("a"), 3.0], Policy(think_after=0.2)).heard.said == ["re: a"]


@pytest.mark.parametrize(
    ("policy", "asked"),
    [
        (Policy(max_thoughts=1), ["a", "a b c"]),
        (Policy(max_thoughts=2), ["a", "a b", "a b c"]),
        (Policy(speculate=min_words(2)), ["a b", "a b c"]),
        (Policy(speculate=False), ["a b c"]),
    ],
)
def test_the_model_is_asked_as_often_as_the_policy_allows(policy: Policy, asked: list[str]) -> None:
    script: list[Line] = [START, 0.1, eager("a"), 0.1, RESUME, 0.1, eager("a b"), 0.1, RESUME, 0.1, eager("a b c")]
    made = guarded([*script, 0.1, end("a b c"), 3.0], policy)
    assert (made.heard.asked, made.heard.said) == (asked, ["re: a b c"])
    assert made.thoughts == asked
    words = [frame.text for frame in passed(made.heard, InterimTranscriptionFrame) if hasattr(frame, "text")]
    ahead = [frame.text for frame in passed(made.heard, EagerTranscriptionFrame) if hasattr(frame, "text")]
    assert sorted(words + ahead) == ["a", "a b", "a b c"]  # what may not be thought on is heard all the same


def test_a_guess_that_is_kept_over_a_resume_is_adopted() -> None:
    made = guarded([START, 0.1, eager("a"), 0.1, RESUME, 0.1, end("a."), 3.0], Policy(after_resume=AfterResume.KEEP))
    assert (made.heard.asked, made.heard.said, users(made.heard)) == (["a"], ["re: a"], ["a."])


@pytest.mark.parametrize("error", [ZeroDivisionError, asyncio.CancelledError])
def test_f55_a_match_that_raises_counts_as_no_for_both(error: type[BaseException]) -> None:
    """A CancelledError would end the aggregator's own task."""

    def broken(eager: str, final: str) -> bool:
        raise error

    made = guarded([START, 0.1, eager("a"), 0.1, end("a."), 3.0], Policy(match=broken))
    assert (made.heard.asked, made.heard.said) == (["a", "a."], ["re: a."])


def test_a_turn_that_stalls_is_ended_and_its_late_end_says_nothing() -> None:
    policy = Policy(stall_timeout=1.0, after_stall=AfterStall.END)
    made = guarded([START, 0.1, update("a b"), 3.0, end("a b"), 3.0, *BYE], policy)
    assert made.heard.said == ["re: a b", "re: bye now"]
    assert made.ended[0] == ("a b", str(EndReason.STALLED))


def test_the_services_own_should_interrupt_does_not_count() -> None:
    service = Ink()
    service._should_interrupt = False
    made = guarded([*REPLY, START, 0.1, end("no"), 3.0], service=service)
    assert ("assistant", "re: hello") not in made.heard.messages  # it was cut


# -- the application's events


@pytest.mark.parametrize("first", [update("a b"), eager("a b")])
def test_the_application_ends_a_turn(first: Line) -> None:
    made = guarded([START, 0.1, first, 0.1, EndNow(), 0.5, end("a b."), 3.0, *BYE])
    assert made.heard.asked == ["a b", "bye now"]
    assert made.heard.said == ["re: a b", "re: bye now"]
    assert made.heard.model is not None
    assert made.ended == [("a b", str(EndReason.FORCED)), ("bye now", str(EndReason.SERVER))]


def test_the_context_changes_and_the_guess_is_made_anew() -> None:
    made = guarded([START, 0.1, eager("a b"), 0.1, ContextChanged(), 0.5, end("a b"), 3.0])
    assert (made.heard.asked, made.heard.said) == (["a b", "a b"], ["re: a b"])


def test_the_application_stops_a_reply() -> None:
    made = guarded([*REPLY, StopReply(), 3.0])
    assert ("assistant", "re: hello") not in made.heard.messages


@pytest.mark.parametrize(("policy", "asked"), [(Policy(), ["a b", "bye now"]), (Policy(speculate=False), ["bye now"])])
def test_the_connection_is_lost_and_the_words_stay(policy: Policy, asked: list[str]) -> None:
    made = guarded([START, 0.1, eager("a b"), 0.1, Disconnected(), 3.0, *BYE], policy)
    assert (made.heard.asked, made.heard.said) == (asked, ["re: bye now"])
    assert users(made.heard) == ["a b", "bye now"]


def test_or_are_answered_where_the_policy_says_so() -> None:
    policy = Policy(after_disconnect=AfterDisconnect.RESPOND)
    made = guarded([START, 0.1, eager("a b"), 0.1, Disconnected(), 3.0, *BYE], policy)
    assert made.heard.said == ["re: a b", "re: bye now"]


# -- hooks, recordings


def test_hooks_that_raise_go_to_the_log_and_change_nothing() -> None:
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), level="ERROR")
    turns = Turns(source=Pipecat())

    def raises(*anything: object) -> None:
        raise RuntimeError("a hook")

    for on in (turns.on_start, turns.on_update, turns.on_think, turns.on_cancel, turns.on_end, turns.on_interrupt):
        on(raises)
    script = [*REPLY, START, 0.1, update("no"), 0.1, eager("no"), 0.1, RESUME, 0.1, end("no no"), 3.0]
    heard, bare = call(script, turns=turns, guarded=True), call(script)
    logger.remove(sink)
    assert (heard.asked, heard.said, heard.messages) == (bare.asked, bare.said, bare.messages)
    assert any("a hook raised; the call goes on" in line for line in lines)


def test_a_guarded_call_is_recorded_and_reported(tmp_path: Path) -> None:
    path = tmp_path / "call.jsonl"
    recorder = Recorder(path)
    turns = Turns(Policy(think_after=0.05), source=Pipecat(), recorder=recorder)
    script = [START, 0.1, eager("a"), 0.3, RESUME, 0.1, eager("a b"), 0.3, end("a b"), 3.0, *BYE]
    heard = call(script, turns=turns, guarded=True)
    recorder.close()
    with path.open("rb") as lines:
        actions = [action for one in replay(lines) for action in one.actions]
    thoughts = [action.turn.transcript for action in actions if isinstance(action, Think)]
    assert thoughts == heard.asked == ["a", "a b", "bye now"]
    assert [action.turn.transcript for action in actions if isinstance(action, Respond)] == ["a b", "bye now"]
    assert len([action for action in actions if isinstance(action, Cancel)]) == 1
    with path.open("rb") as lines:
        rows = turns_of(lines)
    assert len(rows) == 2


# -- the end of the call


@pytest.mark.parametrize("policy", [Policy(), Policy(after_disconnect=AfterDisconnect.RESPOND)])
@pytest.mark.parametrize("last", [update("a b"), eager("a b")])
def test_f53_closing_in_mid_turn_answers_nobody_and_keeps_the_words(last: Line, policy: Policy) -> None:
    made = guarded([START, 0.1, last, 0.1], policy)
    assert (made.heard.said, users(made.heard)) == ([], ["a b"])
    made = guarded([START, last], policy)
    assert (made.heard.said, users(made.heard)) == ([], ["a b"])


def test_closing_while_a_stop_waits_for_its_final_words() -> None:
    made = guarded([START, 0.1, update("a b"), 0.1, end("")])
    assert (made.heard.said, users(made.heard)) == ([], ["a b"])


def tasks() -> set[str]:
    return {task.get_name() for task in asyncio.all_tasks() if "TurnGuard" in task.get_name()}


@pytest.mark.parametrize(
    "script",
    [
        [START, 0.1, update("a b"), 0.1, eager("a b")],
        [START, eager("a"), eager("a b"), START, update("c"), end("")],
        [START, update("a b"), end("")],
        [START, 0.1, update("a b"), EndNow()],
    ],
)
def test_cancelled_in_mid_turn_it_leaves_nothing_running(script: list[Any]) -> None:
    async def whole() -> None:
        turns = Turns(Policy(think_after=0.2, stall_timeout=5.0), source=Pipecat())
        heard = Heard(turns=turns, guarded=True)

        async def drive() -> None:
            await asyncio.sleep(0.1)
            for line in script:
                if isinstance(line, EndNow):
                    turns.feed(line)
                else:
                    await heard.follow([line])
            await heard.worker.queue_frame(CancelFrame())

        await heard.run(drive)
        assert tasks() == set()
        assert turns.machine.turn is None
        [guard] = [one for one in heard.worker._pipeline.processors[1].processors if isinstance(one, TurnGuard)]
        assert guard._timer.due is None

    with asyncio.Runner(loop_factory=Steps) as runner:
        runner.run(whole())


# -- services that do not propose; other pipelines


def unpiped() -> tuple[TurnGuard, Tap, list[str]]:
    """A guard without a pipeline, what it hands on, and the turns that its machine ended."""
    turns, ended = Turns(source=Pipecat()), list[str]()
    turns.on_end(lambda turn: ended.append(turn.transcript))
    guard, tap = TurnGuard(turns), Tap()
    guard.link(tap)
    return guard, tap, ended


def test_where_pipecat_decides_itself_it_only_watches() -> None:
    """Frames as a service without turn detection sends them, and the aggregator's own starts and stops."""

    async def whole() -> tuple[list[str], list[str]]:
        guard, tap, ended = unpiped()
        await guard.queue_frame(UserStartedSpeakingFrame(), FrameDirection.UPSTREAM)
        for frame in (said(InterimTranscriptionFrame, "go"), said(TranscriptionFrame, "go on")):
            await guard.queue_frame(frame)
        await guard.queue_frame(UserStoppedSpeakingFrame(), FrameDirection.UPSTREAM)
        return [frame.text for _, _, frame in tap.seen if hasattr(frame, "text")], ended

    assert asyncio.run(whole()) == (["go", "go on"], ["go on"])


def test_the_applications_own_strategies_stay() -> None:
    script = [START, 0.1, eager("go"), 0.5, end("go"), 3.0]
    made = guarded(script, strategies=ExternalUserTurnStrategies())
    assert (made.heard.asked, made.heard.said) == (["go"], ["re: go"])


@pytest.mark.parametrize("turns", [Turns(), None, Pipecat()])
def test_it_refuses_what_cannot_read_its_frames(turns: Any) -> None:
    with pytest.raises(TypeError, match=r"turns must be a Turns\(source=Pipecat\(\)\)"):
        TurnGuard(turns)


# -- the real service: a connection that is lost in mid-turn


def test_f34_a_service_that_connects_anew_in_mid_turn() -> None:
    """The first socket closes in a turn; the second begins with words of no turn. Both are answered."""
    first = [{"type": "connected", "request_id": "1"}, START, update("a table")]
    second = [{"type": "connected", "request_id": "2"}, update("for"), end("for two")]
    connections = iter((first, second))

    async def server(socket: ServerConnection) -> None:
        messages = next(connections, [{"type": "connected", "request_id": "3"}])
        for message in messages:
            await socket.send(json.dumps(message))
            await asyncio.sleep(0.1)
        if messages is not first:
            async for received in socket:
                if received == '{"type": "close"}':
                    break

    class Patient(Steps):
        patience = 0.002

    async def whole() -> Heard:
        async with serve(server, "127.0.0.1", 0) as listening:
            port = next(iter(listening.sockets)).getsockname()[1]
            service = CartesiaTurnsSTTService(
                api_key="none", url=f"ws://127.0.0.1:{port}", enable_eager_end_of_turn=True
            )
            heard = Heard(turns=Turns(source=Pipecat()), guarded=True, service=service)
            await heard.run(lambda: asyncio.sleep(20))
            return heard

    with asyncio.Runner(loop_factory=Patient) as runner:
        heard = runner.run(whole())
    assert users(heard) == ["a table", "for two"]
    assert heard.said[-1] == "re: for two"


# -- whatever the server sends

TEXTS = ("a", "a b", "a b c", "b", "", "a, b", "c d")
KINDS = ("start", "update", "eager_end", "eager_end", "resume", "end", "end")
PAUSES = ((0.0,), (0.0, 0.0, 0.047, 0.31, 1.53), (0.1, 0.3))
POLICIES = (
    *(Policy(), Policy(max_thoughts=1), Policy(max_thoughts=None), Policy(interrupts=min_words(2))),
    *(Policy(after_resume=AfterResume.KEEP), Policy(think_after=0.1)),
)


def drawn(seed: int) -> tuple[list[Line], Policy]:
    random = Random(f"hostile {seed}")
    pauses = random.choice(PAUSES)
    script: list[Line] = []
    for _ in range(random.randint(1, 14)):
        kind = random.choice(KINDS)
        text = {} if kind in ("start", "resume") else {"transcript": random.choice(TEXTS)}
        script += [{"type": f"turn.{kind}", **text}, random.choice(pauses)]
    return [line for line in script if line != 0.0], random.choice(POLICIES)


def one_right_answer(seed: int) -> None:
    """The words of each turn stand in the context once and in order. At most one reply a turn is heard, and it answers
    that turn's text. The model is asked no more often than the machine thinks. The next whole turn is answered."""
    script, policy = drawn(seed)
    made = guarded([*script, 12.0, *BYE], policy, empty_user_turn=None)
    backchannel = str(EndReason.BACKCHANNEL)
    assert users(made.heard) == [text for text, why in made.ended if text.strip() and why != backchannel], seed
    assert made.heard.said[-1] == "re: bye now", seed
    assert made.heard.said.count("re: bye now") == 1, seed
    assert len(made.heard.asked) <= len(made.thoughts), seed
    answered = iter([text for text, why in made.ended if why == str(EndReason.SERVER)])
    for reply in made.heard.said:
        assert any(policy.match(reply.removeprefix("re: "), text) for text in answered), seed


def test_f17_whatever_the_server_sends_the_user_hears_one_right_answer(full: bool) -> None:
    for seed in range(1000 if full else 40):
        one_right_answer(seed)


# -- what it costs


def test_what_the_guard_costs_against_turns_feed(capsys: pytest.CaptureFixture[str]) -> None:
    """A turn's words, and a call with its sound: a dozen frames of 20 ms for each frame of the service's. Above what a
    processor that only hands on costs; of the quickest of each, since whatever else runs here can only add to them."""
    texts = [" ".join(WORDS[:n]) for n in range(len(WORDS) + 1)]
    told: list[Any] = [TurnStart(), *(TurnUpdate(text) for text in texts[1:9]), TurnEagerEnd(texts[8]), TurnResume()]
    told += [*(TurnUpdate(text) for text in texts[9:13]), TurnEagerEnd(texts[12]), TurnEnd(texts[12])]
    turn = pushed(Ink, ink_messages(told))
    words: list[Frame] = [frame for frame in turn if isinstance(frame, InterimTranscriptionFrame)]
    whole = [one for frame in turn for one in (frame, *[InputAudioRawFrame(bytes(640), 16000, 1)] * 12)]

    class HandsOn(FrameProcessor):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            await super().process_frame(frame, direction)
            await self.push_frame(frame, direction)

    class Wall(FrameProcessor):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            pass

    async def through(make: Callable[[], FrameProcessor], frames: list[Frame]) -> float:
        processor = make()
        processor.link(Wall(enable_direct_mode=True))
        await processor.queue_frame(ProposedUserStartedSpeakingFrame())
        begin = perf_counter()
        for frame in frames * 10:
            await processor.queue_frame(frame)
        return perf_counter() - begin

    def guard() -> FrameProcessor:
        made: FrameProcessor = TurnGuard(Turns(source=Pipecat()))
        return made

    def hands_on() -> FrameProcessor:
        return HandsOn(enable_direct_mode=True)

    def fed(frames: list[Frame]) -> float:
        feed = Turns(source=Pipecat()).feed
        feed(ProposedUserStartedSpeakingFrame())
        begin = perf_counter()
        for frame in frames * 10:
            feed(frame)
        return perf_counter() - begin

    ratios = {}
    gc.collect()
    gc.disable()
    for name, frames in (("words", words), ("a call", whole), ("turn", turn)):
        times = [
            (asyncio.run(through(guard, frames)), asyncio.run(through(hands_on, frames)), fed(turn)) for _ in range(100)
        ]
        ours, own, alone = (min(column) for column in zip(*times, strict=True))
        ratios[name] = (ours - own) / len(frames) / (alone / len(turn))
    gc.enable()
    with capsys.disabled():
        print("\na guarded frame, against Turns.feed: " + ", ".join(f"{n} {ratio:.2f}" for n, ratio in ratios.items()))
    assert ratios["words"] <= 2.0
    assert ratios["a call"] <= 1.5
