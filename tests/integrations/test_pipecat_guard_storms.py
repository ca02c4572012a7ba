"""The guard in a storm: drawn frames in any order, from both sides, at any pace, and an application that does whatever
it likes. Nothing of what a service has finalized is lost, no model is asked more than the machine allows, each turn has
one answer, and nothing runs on."""

import asyncio
from contextlib import suppress
from random import Random
from typing import Any

import attrs
from pipecat.frames.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    CancelFrame,
    EagerEndOfTurnCancelFrame,
    EagerTranscriptionFrame,
    FunctionCallFromLLM,
    InterimTranscriptionFrame,
    InterruptionFrame,
    ProposedUserStartedSpeakingFrame,
    ProposedUserStoppedSpeakingFrame,
    TranscriptionFrame,
)
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.services.llm_service import FunctionCallParams

from inkturns import ContextChanged, Disconnected, EndNow, Policy, StopReply, Turns, min_words
from inkturns.actions import EndReason
from inkturns.adapters.pipecat import Pipecat, TurnGuard
from inkturns.adapters.pipecat_outbox import BOUND
from inkturns.policy import AfterResume, AfterStall

from .test_pipecat import Heard, Model, Steps, echo, said
from .test_pipecat_guard_edges import words_behind

Step = tuple[str, Any]

FRAMES = {
    "start": ProposedUserStartedSpeakingFrame,
    "stop": ProposedUserStoppedSpeakingFrame,
    "interim": InterimTranscriptionFrame,
    "eager": EagerTranscriptionFrame,
    "final": TranscriptionFrame,
    "resume": EagerEndOfTurnCancelFrame,
    "bot starts": BotStartedSpeakingFrame,
    "bot stops": BotStoppedSpeakingFrame,
}
SERVICE = ("start", "interim", "interim", "eager", "eager", "resume", "final", "stop", "stop", "end", "end")
OTHERS = ("bot starts", "bot stops", "error", "interrupts")
EVENTS = (EndNow(), EndNow(), StopReply(), ContextChanged(), Disconnected("gone"))
PAUSES = ((0.0,), (0.0, 0.0, 0.047, 0.31, 1.53), (0.0, 0.01, 0.1, 0.3))
HOSTILE = ("", " ", "\u202e", "\x00", "e\u0301" * 40, "<|end|>", "-5", "\ud800")
POLICIES = (
    *(Policy(), Policy(max_thoughts=1), Policy(max_thoughts=None), Policy(interrupts=min_words(2))),
    *(Policy(after_resume=AfterResume.KEEP), Policy(think_after=0.1), Policy(speculate=False)),
    *(Policy(think_after=0.2, stall_timeout=0.4, after_stall=AfterStall.END, interrupts=min_words(3)),),
)


@attrs.define
class Storm:
    steps: list[Step]
    policy: Policy
    hooks_raise: bool
    finals: list[str]  # a word of its own for each text that the service has finalized
    cancels: bool  # the call is cancelled, and does not end
    tools: set[int]  # which of the model's answers begin with the call of a tool (F02)


def drawn(seed: int) -> Storm:
    random = Random(f"storm {seed}")
    pauses = random.choice(PAUSES)
    wild = random.choice((0.0, 0.15, 0.4))
    steps: list[Step] = []
    finals: list[str] = []
    latest = ""

    def text() -> str:
        nonlocal latest
        draw = random.random()
        if draw < 0.05:
            return random.choice(HOSTILE)
        if draw < 0.3:
            return latest[: random.randint(0, len(latest))]
        if draw > 0.4:
            latest = f"{latest} w{len(steps)}".strip()
        return latest

    def final() -> str:
        finals.append(f"f{len(finals)}.")
        return random.choice((f"{latest} {finals[-1]}".strip(), finals[-1], f" {finals[-1]} "))

    for _ in range(random.randint(1, 16)):
        if random.random() < wild:
            steps.append(random.choice((*((one, None) for one in OTHERS), *(("feed", one) for one in EVENTS))))
        else:
            kind = random.choice(SERVICE)
            if kind == "end":
                steps += [("final", final()), ("stop", None)]
            else:
                words = {"final": final, "interim": text, "eager": text}.get(kind)
                steps.append((kind, words() if words else None))
            if kind in ("start", "stop", "end"):
                latest = ""
        steps.append(("pause", random.choice(pauses)))
    return Storm(
        steps,
        random.choice(POLICIES),
        random.random() < 0.2,
        finals,
        random.random() < 0.1,
        {n for n in range(9) if random.random() < wild / 2},
    )


async def step(heard: Heard, turns: Turns, kind: str, what: Any) -> None:
    if kind == "pause":
        if what:
            await asyncio.sleep(what)
    elif kind == "feed":
        with suppress(ExceptionGroup):  # of hooks
            turns.feed(what)
    elif kind == "error":
        await heard.model.push_error("no completion")
    elif kind == "interrupts":
        await heard.mouth.broadcast_frame(InterruptionFrame)
    elif kind.startswith("bot"):
        await heard.mouth.broadcast_frame(FRAMES[kind])
    elif what is not None:
        await heard.service.push_frame(said(FRAMES[kind], what))
    else:
        await heard.service.push_frame(FRAMES[kind]())


def raises(*anything: object) -> None:
    raise RuntimeError("a hook")


def weather(seed: int) -> None:
    storm = drawn(seed)
    turns = Turns(storm.policy, source=Pipecat())
    thoughts: list[str] = []
    ended: list[tuple[str, EndReason | None]] = []
    turns.on_think(lambda turn: thoughts.append(turn.transcript))
    turns.on_end(lambda turn: ended.append((turn.transcript, turn.end)))
    turns.on_abandon(lambda turn: ended.append((turn.transcript, turn.end)))
    if storm.hooks_raise:
        for on in (turns.on_start, turns.on_update, turns.on_think, turns.on_cancel, turns.on_end, turns.on_interrupt):
            on(raises)
    waiting: list[int] = []

    async def weather_of(params: FunctionCallParams) -> None:
        await params.result_callback("rain")

    async def think(model: Model, context: LLMContext, text: str) -> None:
        if len(model.asked) - 1 not in storm.tools:
            await echo(model, context, text)
        else:
            model.register_function("weather", weather_of)
            await asyncio.sleep(0.1)
            await model.run_function_calls([FunctionCallFromLLM("weather", "1", {}, context)])

    async def whole() -> Heard:
        heard = Heard(turns=turns, guarded=True, think=think, empty_user_turn=None)
        [guard] = [one for one in heard.worker._pipeline.processors[1].processors if isinstance(one, TurnGuard)]

        async def drive() -> None:
            await asyncio.sleep(0.1)
            for kind, what in storm.steps:
                await step(heard, turns, kind, what)
                waiting.append(len(guard._outbox._waiting))
            if storm.cancels:
                await heard.worker.queue_frame(CancelFrame())
                return
            await step(heard, turns, "bot stops", None)  # a tool's answer waits for the bot
            await asyncio.sleep(12)
            for kind, what in (("start", None), ("final", "bye for now"), ("stop", None)):
                await step(heard, turns, kind, what)
            await asyncio.sleep(6)

        await heard.run(drive)
        left = [task.get_name() for task in asyncio.all_tasks() if "TurnGuard" in task.get_name()]
        assert (left, guard._timer.due, guard._speaking, guard._outbox._draining) == ([], None, None, None), seed
        return heard

    with asyncio.Runner(loop_factory=Steps) as runner:
        heard = runner.run(whole())
    assert max(waiting) <= BOUND, seed
    assert turns.machine.turn is None, seed
    # What a tool has said is a question of the framework's own; so is another one for a guess that the tool withdrew.
    tools = 2 * len([number for number in storm.tools if number < len(heard.asked)])
    assert len(heard.asked) <= len(thoughts) + tools, seed
    if storm.cancels:
        return
    assert all(text.strip() for text in words_behind(heard, InterimTranscriptionFrame)), seed
    users = [text for role, text in heard.messages if role == "user"]
    kept = [text.split() for text, why in ended if text.strip() and why is not EndReason.BACKCHANNEL]
    assert [text.split() for text in users] == kept, seed
    words = [word for text, _ in ended for word in text.split() if word in storm.finals]
    # A turn that goes on after the application has ended it says its words again.
    ends_itself = not any(why in (EndReason.FORCED, EndReason.STALLED, EndReason.LOST) for _, why in ended)
    assert (words if ends_itself else list(dict.fromkeys(words))) == storm.finals, seed
    answered = iter([text for text, why in ended if why not in (EndReason.BACKCHANNEL, EndReason.SUPERSEDED)])
    for reply in heard.said:
        assert any(storm.policy.match(reply.removeprefix("re: "), text) for text in answered), seed
    assert heard.said.count("re: bye for now") == 1, seed
    assert heard.said[-1] == "re: bye for now", seed


def test_in_any_weather_each_turn_is_answered_once_and_no_word_is_lost(full: bool) -> None:
    for seed in range(2000 if full else 30):
        weather(seed)


def test_a_flood_fills_the_outbox_no_further_and_keeps_its_order() -> None:
    """Many turns in one step, while the application ends turns of its own from another task. The service waits
    where the outbox is full."""
    turns = Turns(source=Pipecat())
    ended: list[str] = []
    turns.on_end(lambda turn: ended.append(turn.transcript))
    waiting: list[int] = []

    async def whole() -> Heard:
        heard = Heard(turns=turns, guarded=True)
        [guard] = [one for one in heard.worker._pipeline.processors[1].processors if isinstance(one, TurnGuard)]

        async def flood() -> None:
            for number in range(150):
                for kind, what in (("start", None), ("interim", f"w{number}"), ("final", f"f{number}"), ("stop", None)):
                    await step(heard, turns, kind, what)
                    waiting.append(len(guard._outbox._waiting))

        async def drive() -> None:
            flooding = asyncio.create_task(flood())
            while not flooding.done():
                turns.feed(EndNow())
                await asyncio.sleep(0)
            await asyncio.sleep(6)

        await heard.run(drive)
        return heard

    with asyncio.Runner(loop_factory=Steps) as runner:
        heard = runner.run(whole())
    assert [text for role, text in heard.messages if role == "user"] == ended
    assert heard.said == [f"re: {ended[-1]}"]
    assert BOUND <= max(waiting) < BOUND + 8  # an answer of the machine's is not cut in two
