"""With a lawful sender the guard changes nothing: drawn conversations through Pipecat's pipeline, with it and without.
Once with Pipecat's service fed by hand, and once with the service on its socket, to the emulator."""

import asyncio
from bisect import bisect_right
from collections.abc import Sequence
from itertools import count, pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipecat.frames.frames import (
    EagerTranscriptionFrame,
    InputAudioRawFrame,
    InterimTranscriptionFrame,
    ProposedUserStartedSpeakingFrame,
)
from pipecat.processors.frame_processor import FrameDirection
from pipecat.services.cartesia.turns.stt import CartesiaTurnsSTTService

from inkturns import Policy, Turns
from inkturns.adapters.pipecat import Pipecat
from inkturns.events import TurnEagerEnd, TurnEnd, TurnResume, TurnStart, TurnUpdate
from inkturns.testing.emulator import InkEmulator, Script
from inkturns.testing.emulator.conversations import conversation

from .test_pipecat import CONVERSATION, Heard, Steps, Tap, call, conversations, ink_messages

RATE = 16000
AUDIO = 2 * RATE  # bytes a second


def guard(policy: Policy | None = None) -> dict[str, Any]:
    return {"turns": Turns(policy or Policy(), source=Pipecat()), "guarded": True}


def told(tap: Tap) -> list[tuple[str | None, ...]]:
    """What passed, without interim words that say nothing new."""
    kept: list[tuple[str | None, ...]] = []
    latest = ""
    for _, way, frame in tap.seen:
        text = getattr(frame, "text", None)
        if isinstance(frame, ProposedUserStartedSpeakingFrame):
            latest = ""
        elif isinstance(frame, EagerTranscriptionFrame):
            latest = frame.text
        elif isinstance(frame, InterimTranscriptionFrame):
            if text == latest or not frame.text.strip():
                continue
            latest = frame.text
        kept.append((way.name, type(frame).__name__, text))
    return kept


def all_of(heard: Heard) -> tuple[object, ...]:
    return told(heard.before), told(heard.behind), heard.asked, heard.said, heard.messages


def goes_on_in_the_same_step(heard: Heard) -> None:
    """Each frame behind the guard is one from before it, in that step. (Two calls differ in steps: Pipecat's own look
    at the turn takes some.)"""
    before = {id(frame): step for step, way, frame in heard.before.seen if way is FrameDirection.DOWNSTREAM}
    behind = {id(frame): step for step, way, frame in heard.behind.seen if way is FrameDirection.DOWNSTREAM}
    assert behind == {one: before.get(one) for one in behind}


def lawful(events: Sequence[Any]) -> list[Any]:
    """Without blank eager ends (F07) and final texts of nothing but white space, and without words between an eager end
    and its resume: the guard withdraws the guess there, and not at the resume."""
    kept: list[Any] = []
    text, waits = "", False
    for event in events:
        if isinstance(event, TurnStart):
            text, waits = "", False
        if isinstance(event, TurnUpdate) and waits and event.transcript != text:
            continue
        if isinstance(event, TurnEagerEnd):
            if not event.transcript.strip():
                continue
            waits = True
        elif isinstance(event, TurnResume):
            if not waits:
                continue
            waits = False
        text = getattr(event, "transcript", text)
        kept.append(event if text.strip() or not isinstance(event, TurnEnd) else TurnEnd(""))
    return kept


def test_the_guard_changes_nothing_of_a_conversation() -> None:
    guarded, bare = call(CONVERSATION, **guard()), call(CONVERSATION)
    assert all_of(guarded) == all_of(bare)
    goes_on_in_the_same_step(guarded)
    before, behind = ([id(frame) for _, _, frame in tap.seen] for tap in (guarded.before, guarded.behind))
    assert before == behind  # the very frames


PAUSES = (0.047, 0.31, 1.53)  # none falls on Pipecat's own look at the turn, each half second (F31)


@settings(max_examples=30)
@given(conversations(), st.lists(st.sampled_from(PAUSES), min_size=40, max_size=40))
def test_the_guard_changes_nothing_whatever_is_said_lawfully(events: list[Any], pauses: list[float]) -> None:
    script = [line for pair in zip(ink_messages(lawful(events)), pauses, strict=False) for line in pair]
    guarded = call([*script, 3.0], **guard(Policy(max_thoughts=None)))
    assert all_of(guarded) == all_of(call([*script, 3.0]))
    goes_on_in_the_same_step(guarded)


# -- on the socket


PATIENCE = 0.0005  # seconds, while the service connects and closes


class Virtual(Steps):
    patience = PATIENCE


def through_the_socket(script: Script, **options: Any) -> tuple[object, ...]:
    """A call in virtual time. The caller's sound comes in pieces that reach from one of the server's events to the
    next, so that each is alone in its step."""
    callbacks: list[tuple[str, ...]] = []

    async def whole() -> Heard:
        async with InkEmulator(script, speed=float("inf")) as ink:
            options_of_service: dict[str, Any] = {"sample_rate": RATE, "enable_eager_end_of_turn": True}
            options_of_service["watchdog_min_timeout"] = 3600.0  # it looks at the real clock, and sends silence
            service = CartesiaTurnsSTTService(api_key="none", url=ink.url, **options_of_service)
            heard = Heard(service=service, **options)
            for name in ("on_turn_start", "on_turn_update", "on_turn_eager_end", "on_turn_resume", "on_turn_end"):
                service.add_event_handler(name, lambda service, *text, name=name: callbacks.append((name, *text)))
            for name in ("on_user_turn_started", "on_user_turn_stopped", "on_user_turn_inference_triggered"):
                heard.pair.user().add_event_handler(name, lambda *_, name=name: callbacks.append((name,)))

            async def speak() -> None:
                loop = asyncio.get_running_loop()
                assert isinstance(loop, Virtual)
                times = [at for at, _ in script.frames()]
                loop.patience = 0.0  # nothing is on its way when the clock jumps: each piece waits for its events
                for begin, end in pairwise(sorted({*times, 0.0, script.seconds + 1})):
                    await asyncio.sleep(end - begin)
                    samples = round(end * RATE) - round(begin * RATE)
                    await heard.worker.queue_frame(InputAudioRawFrame(bytes(2 * samples), RATE, 1))
                    due = bisect_right(times, end) - 1  # without `connected`
                    while sum(name.startswith("on_turn") for name, *_ in callbacks) < due:
                        await asyncio.sleep(0)
                await asyncio.sleep(3)
                loop.patience = PATIENCE

            await heard.run(speak)
            return heard

    with asyncio.Runner(loop_factory=Virtual) as runner:
        heard = runner.run(whole())
    return (callbacks, *all_of(heard))


def most_eager_ends(script: Script) -> int | None:
    """In a turn; None where the guard mends something: a blank eager end, upon which Pipecat asks the model about
    nothing (F07), and words between an eager end and its resume, at which the guard withdraws the guess."""
    most = so_far = 0
    ahead: str | None = None
    for _, frame in script.frames():
        message = msgspec.json.decode(frame)
        kind, text = message["type"], message.get("transcript", "")
        if kind == "turn.start":
            so_far, ahead = 0, None
        elif kind == "turn.resume":
            ahead = None
        elif kind == "turn.eager_end":
            so_far, ahead = so_far + 1, text
        if ahead is not None and (not ahead or (kind == "turn.update" and text != ahead)):
            return None
        most = max(most, so_far)
    return most


def agree(seed: int) -> None:
    """A conversation in which the guard mends something is drawn anew."""
    scripts = (conversation(seed + 10_000 * again, turns=2) for again in count())
    script, most = next((one, most) for one in scripts if (most := most_eager_ends(one)) is not None)
    policy = Policy() if most <= 3 else Policy(max_thoughts=None)
    assert through_the_socket(script, **guard(policy)) == through_the_socket(script), seed


@pytest.mark.parametrize("tens", range(2))
def test_the_guard_changes_nothing_of_a_service_on_its_socket(tens: int) -> None:
    for seed in range(10 * tens, 10 * tens + 10):
        agree(seed)


@pytest.mark.full
@pytest.mark.parametrize("tens", range(2, 100))
def test_the_guard_changes_nothing_in_a_thousand_calls(tens: int) -> None:
    for seed in range(10 * tens, 10 * tens + 10):
        agree(seed)
