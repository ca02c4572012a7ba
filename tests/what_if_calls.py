"""Simulated callers, a model whose latency is known, and an agent of any policy: what what-if is tried on.

Rules of this file: virtual time; equal arguments give equal calls. The callers say the same to every policy. The model
is as quick as the words are short where `by_words`, and otherwise as chance has it, anew in each world.
"""

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from functools import lru_cache
from math import exp
from random import Random

from inkturns.actions import Turn
from inkturns.agent import Agent, Thought
from inkturns.events import Event
from inkturns.policy import Policy
from inkturns.reader import raise_unless_truncated
from inkturns.recording import Recorder
from inkturns.report.calls import calls_of
from inkturns.report.past import PastCall, past_of
from inkturns.testing import virtual_time
from inkturns.testing.emulator.conversations import conversation
from inkturns.wire import decode

__all__ = ["independent", "past", "recorded"]

Latency = Callable[[str, Turn], float]


def independent(world: str) -> Latency:
    """0.45 s in the middle, ten of a hundred above 0.85 s."""

    def latency(seed: str, turn: Turn) -> float:
        return 0.45 * exp(Random(f"{world} {seed} {turn.number} {turn.latest_thought}").gauss(0, 0.5))

    return latency


@lru_cache(maxsize=1024)
def frames(seed: int, turns: int) -> tuple[tuple[float, Event], ...]:
    return tuple((at, decode(frame)) for at, frame in conversation(seed, turns).frames())


def recorded(seed: int, policy: Policy, latency: Latency, turns: int = 4, **about: object) -> list[bytes]:
    """The recording of one call."""
    file = io.BytesIO()
    recorder = Recorder(file, call=f"call {seed}", started="2026-01-02T03:04:05", **about)  # type: ignore[arg-type]
    virtual_time.run(_call, seed, policy, latency, turns, recorder)
    return file.getvalue().splitlines(keepends=True)


def past(lines: list[bytes]) -> PastCall:
    (call,) = calls_of(lines, raise_unless_truncated)
    return past_of(call)


async def _call(seed: int, policy: Policy, latency: Latency, turns: int, recorder: Recorder) -> None:
    agent = Agent(policy, recorder=recorder)

    @agent.think
    async def think(turn: Turn) -> AsyncIterator[str]:
        await asyncio.sleep(latency(str(seed), turn))
        yield "Of "
        await asyncio.sleep(0.1)
        yield "course."

    @agent.respond
    async def respond(turn: Turn, thought: Thought[str]) -> None:
        async for _ in thought:
            pass
        await asyncio.sleep(0.3 + Random(f"length {seed} {turn.number}").random())

    async def play() -> AsyncIterator[Event]:
        for at, event in frames(seed, turns):
            await asyncio.sleep(max(0.0, at - asyncio.get_running_loop().time()))
            yield event

    await agent.run(play())
