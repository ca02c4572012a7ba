"""Ink's client against the emulator: faults and hang-ups at every event, and drawn calls. No word is lost."""

import json
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from random import Random
from typing import Any

import attrs
import pytest

from inkturns.errors import RefusedError
from inkturns.events import Disconnected
from inkturns.ink import Ink
from inkturns.testing.emulator import InkEmulator, Script, pause, say, trouble
from inkturns.testing.emulator.conversations import troubled_conversation
from inkturns.testing.emulator.parts import EVENTS
from tests.ink_calls import RATE, Frame, heard, mulaw, now, run, speech, spoken

# -- the emulator's callers


@attrs.frozen
class Told:
    """A call against the emulator: what each side said and heard, and the client's figures."""

    frames: list[tuple[float, Frame]]
    sent: list[str | bytes]  # by the emulator, over all connections, in order
    said: bytes
    received: dict[int, bytes]  # by the emulator, on each connection
    ink: Ink
    over: float  # when it was


def told(scripts: Sequence[Script], seconds: float, chunk: int = 800, **options: Any) -> Told:
    """A caller who hangs up after so many seconds. The emulator goes by the last of the scripts in the end."""

    said = speech(seconds)

    async def call() -> Told:
        received: dict[int, bytes] = defaultdict(bytes)
        hear = lambda number, audio: received.update({number: received[number] + audio})  # noqa: E731
        async with InkEmulator(scripts, on_audio=hear) as emulator:
            ink = mulaw(emulator.url, **options)
            frames: list[tuple[float, Frame]] = []
            with suppress(RefusedError):
                await heard(ink, spoken(said, chunk), frames)
            outs = [out for connection in emulator.connections for _, out in connection.sent]
            sent = [out for out in outs if isinstance(out, str | bytes)]
            return Told(frames, sent, said, received, ink, now())

    return run(call())


def check(call: Told, seconds: float) -> None:
    """Nothing that the server said is lost, the hang-up ends it in time, and the figures add up."""
    assert [frame for _, frame in call.frames if not isinstance(frame, Disconnected)] == call.sent
    stats = call.ink.stats
    assert kinds_of(call).count("lost") == stats.losses
    assert call.over <= seconds + call.ink.close_timeout + 2.1  # and two that the emulator waits for a client
    if not stats.refusals:
        assert stats.sent + stats.dropped == pytest.approx(seconds)
    if not stats.silence:
        at = missing = 0
        for received in call.received.values():  # each is a piece of what was said, after the piece before it
            begin = call.said.index(received, at)
            missing += begin - at
            at = begin + len(received)
        missing += len(call.said) - at
        if not stats.losses + stats.refusals:
            assert missing / RATE == pytest.approx(stats.dropped)
        assert missing / RATE >= stats.dropped - 1e-6  # the rest was under way when a connection was lost


def kinds_of(call: Told) -> list[str]:
    found = []
    for _, frame in call.frames:
        try:
            found.append("lost" if isinstance(frame, Disconnected) else json.loads(frame)["type"])
        except (ValueError, KeyError, TypeError):
            found.append("garbage")
    return found


WORDS = ("Book a table.", pause(0.8), "For four people, please.")  # every event, `config` and `close` apart
CALM = Script(say("And that was all."))
REFUSING = Script(trouble("refuse", status=429))
ANY_OTHER = [event for event in (*EVENTS[:6], None) if event != "turn.update"]


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("code", [1011, *(pytest.param(one, marks=pytest.mark.full) for one in (0, 1000, 1001, 4000))])
def test_f61_a_connection_that_drops_at_any_event(event: str, code: int) -> None:
    script = Script(trouble("drop", on=event, **({"code": code} if code else {})), say(*WORDS))
    length = script.seconds + CALM.seconds
    call = told([script, CALM], length)
    check(call, length)
    dropped = event in kinds_of(call)
    assert call.ink.stats.losses == (event not in ("close", "config"))
    assert not dropped or kinds_of(call)[-1] == "turn.end"  # the next connection has heard the rest


@pytest.mark.parametrize("event", ["turn.update", *(pytest.param(one, marks=pytest.mark.full) for one in ANY_OTHER)])
def test_f61_a_hang_up_at_any_event(event: str | None, full: bool) -> None:
    """And just before it, and just after; also where the connection drops or is closed there, or the server is mute,
    slow, or refuses the next connection."""
    faults = [trouble("drop", on=event), trouble("drop", on=event, code=1011), trouble("slow", on=event, seconds=1)]
    faults += [trouble("mute", on=event)] if event else []
    for troubles, then in [*(([fault], CALM) for fault in faults), ([], CALM), (faults[:1], REFUSING)]:
        script = Script(*troubles, say(*WORDS))
        quiet = Script(say(*WORDS))
        times = [at for at, frame in quiet.frames() if event is None or event in str(frame)]
        for when in (times[0], times[0] - 0.1, times[0] + 0.1, times[0] + 0.2) if full else times[:1]:
            check(told([script, then, CALM], max(0.1, when)), max(0.1, when))


@pytest.mark.parametrize("status", [401, 402, 403, 429])
def test_a_refusal_then_a_connection(status: int) -> None:
    drops = Script(say("Hello", trouble("drop"), "there."))
    call = told([drops, Script(trouble("refuse", status=status)), CALM], drops.seconds + CALM.seconds)
    assert call.ink.stats.refusals == 1
    assert call.ink.stats.losses == 1
    assert call.ink.stats.connections == (2 if status == 429 else 1)


@pytest.mark.parametrize(("status", "connections"), [(400, 1), (429, 2), (500, 2)])
def test_an_error_of_the_emulators_instead_of_connected(status: int, connections: int) -> None:
    call = told([Script(trouble("error", on="connected", status=status)), CALM], CALM.seconds + 2)
    assert call.ink.stats.connections == connections
    check(call, CALM.seconds + 2)


def drawn(seed: int) -> None:
    random = Random(seed)
    scripts = [
        troubled_conversation(random.randrange(10**6), random.randint(1, 3)) for _ in range(random.randint(1, 3))
    ]
    length = sum(script.seconds for script in scripts) * random.choice((0.2, 0.5, 1.0))
    chunk = random.choice((80, 800, 801, 1600))
    seconds = max(1, round(length * RATE)) / RATE
    fill: Any = random.choice((False, True, "open_turn"))
    check(told([*scripts, CALM], seconds, chunk, fill=fill), seconds)


CHUNKS = [pytest.param(chunk, marks=[pytest.mark.full] if chunk else []) for chunk in range(10)]


@pytest.mark.parametrize("chunk", CHUNKS)
def test_drawn_calls(chunk: int, full: bool, deep: bool) -> None:
    """A call takes a second or two of real time: 1,000 of them are drawn with `--deep`."""
    calls = 100 if deep else 6 if full else 2
    for seed in range(chunk * calls, (chunk + 1) * calls):
        drawn(seed)
