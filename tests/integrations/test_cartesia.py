"""The Cartesia SDK, sync and async: what its connections yield goes into `turns.feed` and `agent.run` as it is.

The real SDK over a real socket, from the emulator; the same script's frames, without a socket, say what is expected.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
from cartesia import AsyncCartesia, Cartesia

from inkturns import Agent, Thought, Turn, Turns, close_command
from inkturns.actions import Action, Respond
from inkturns.testing.emulator import InkEmulator, Script
from inkturns.testing.emulator.conversations import conversation
from inkturns.testing.emulator.fixtures import running

FAST = float("inf")
ASKED: dict[str, Any] = {"model": "ink-2", "encoding": "pcm_mulaw", "sample_rate": 8000}


def told(actions: Iterable[Action]) -> list[tuple[object, ...]]:
    """The actions, without their connection's request_id."""
    turns = [(action, getattr(action, "turn", None)) for action in actions]
    return [(type(action), turn.number, turn.transcript, turn.end) if turn else (action,) for action, turn in turns]


def expected(script: Script) -> list[tuple[object, ...]]:
    turns = Turns()
    return told(action for _, frame in script.frames() for action in turns.feed(frame))


@pytest.mark.parametrize("seed", range(5))
def test_a_sync_clients_events_drive_turns(seed: int) -> None:
    script, turns, actions = conversation(seed), Turns(), list[Action]()
    with running(InkEmulator(script, speed=FAST)) as emulator:
        client = Cartesia(api_key="none", websocket_base_url=emulator.base_url)
        with client, client.stt.auto_finalize.websocket(**ASKED) as ink:
            ink.send_raw(bytes(8000 * 60))
            ink.send_raw(close_command())
            for event in ink:
                actions += turns.feed(event)
    assert told(actions) == expected(script)


@pytest.mark.parametrize("seed", range(5))
def test_an_async_clients_connection_is_what_an_agent_runs_on(seed: int) -> None:
    script, agent, said = conversation(seed), Agent(), list[tuple[int, str, object]]()

    @agent.think
    async def think(turn: Turn) -> str:
        return turn.transcript.upper()

    @agent.respond
    async def respond(turn: Turn | None, thought: Thought[Any]) -> None:
        assert turn is not None
        said.append((turn.number, turn.transcript, await thought))

    async def call() -> None:
        async with (
            InkEmulator(script, speed=FAST) as emulator,
            AsyncCartesia(api_key="none", websocket_base_url=emulator.base_url) as client,
            client.stt.auto_finalize.websocket(**ASKED) as ink,
        ):
            await ink.send_raw(bytes(8000 * 60))
            await ink.send_raw(close_command())
            await agent.run(ink)

    asyncio.run(call())
    # The sound comes at once, and so do the turns: what is answered last is what nobody interrupts.
    number, text = [one[1:3] for one in expected(script) if one[0] is Respond][-1]
    assert said[-1] == (number, text, str(text).upper())
