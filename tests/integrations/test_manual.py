"""Ink 2 without turn detection by the Cartesia SDK: its own connections and objects."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import Any, get_args

import anyio
import pytest
from cartesia import AsyncCartesia, Cartesia
from cartesia.resources.stt.manual_finalize import ManualFinalizeResourceConnection
from cartesia.types.stt import (
    STTManualFinalizeTranscriptResponse,
    STTManualFinalizeWebsocketRequest,
    STTManualFinalizeWebsocketResponse,
)
from websockets.asyncio.server import ServerConnection, serve

from inkturns.actions import Report, ReportKind, Respond
from inkturns.adapters.manual import ManualFinalize
from inkturns.agent import Agent, Thought
from inkturns.events import Event, ServerError, TurnEagerEnd, TurnEnd, TurnStart, TurnUpdate, Unknown
from inkturns.turns import Turns

Message = dict[str, Any]


def chunk(text: str, is_final: bool = True) -> Message:
    return {
        "type": "transcript",
        "is_final": is_final,
        "request_id": "r",
        "text": text,
        "duration": 0.5,
        "language": "en",
        "words": [{"word": word, "start": 0.0, "end": 0.1} for word in text.split()],
    }


FLUSH_DONE = {"type": "flush_done", "request_id": "r"}
DONE = {"type": "done", "request_id": "r"}
ERROR = {"type": "error", "status_code": 400, "title": "Bad request", "message": "m", "error_code": "c"}
SIGH = {"type": "sigh", "request_id": "r", "depth": 3}
SETTINGS: Any = {"model": "ink-2", "encoding": "pcm_s16le", "sample_rate": 16000}


def by_the_sdk(message: Message) -> Any:
    """What the SDK's connection makes of a frame: its own code, on the text."""
    return ManualFinalizeResourceConnection.parse_event(None, json.dumps(message))  # type: ignore[arg-type]


def events(ink: ManualFinalize, *frames: object) -> list[Event]:
    return [event for frame in frames for event in ink.events(frame)]


def test_an_object_says_what_its_frame_says() -> None:
    turn = [chunk("So", False), chunk("So the"), chunk(" end."), FLUSH_DONE, chunk("and"), DONE, ERROR]
    for form in (json.dumps, by_the_sdk):
        ink = ManualFinalize()
        said = events(ink, ink.speech_started(), *map(form, turn[:2]), ink.speech_stopped())
        assert said == [
            TurnStart(turn_id="1"),
            *(TurnUpdate("So", turn_id="1"), TurnUpdate("So the", turn_id="1"), TurnEagerEnd("So the", turn_id="1")),
        ]
        assert ink.finalize() in get_args(STTManualFinalizeWebsocketRequest)
        said = events(ink, *map(form, turn[2:4]), ink.speech_started(), *map(form, turn[4:]))
        assert said == [
            *(TurnUpdate("So the end.", turn_id="1"), TurnEnd("So the end.", turn_id="1")),
            *(TurnStart(turn_id="2"), TurnUpdate("and", turn_id="2"), TurnEnd("and", turn_id="2")),
            ServerError(status_code=400, title="Bad request", message="m", error_code="c"),
        ]


def test_the_sdks_types_are_all_known() -> None:
    known = {by_the_sdk(message).__class__ for message in (chunk("a"), FLUSH_DONE, DONE, ERROR)}
    assert known == set(get_args(get_args(STTManualFinalizeWebsocketResponse)[0]))


def test_f09_the_sdk_makes_a_transcript_of_a_type_that_it_does_not_know() -> None:
    """Its own path: whoever asks for its class takes it for words."""
    assert version("cartesia") == "4.2.0"
    assert type(by_the_sdk(SIGH)) is STTManualFinalizeTranscriptResponse


def test_f09_inkturns_reports_a_type_that_it_does_not_know() -> None:
    turns = Turns(source=ManualFinalize())
    (report,) = turns.feed(by_the_sdk(SIGH))
    assert isinstance(report, Report)
    assert report.kind is ReportKind.UNKNOWN_TYPE
    assert isinstance(report.event, Unknown)
    assert (report.event.kind, report.event.request_id, report.event.fields["depth"]) == ("sigh", "r", 3)


@pytest.mark.parametrize("message", [{"text": "x"}, {"type": "transcript", "text": "x"}, [1]])
def test_f10_what_the_sdk_makes_of_a_bad_frame_is_a_report(message: Any) -> None:
    turns = Turns(source=ManualFinalize())
    (report,) = turns.feed(by_the_sdk(message))
    assert isinstance(report, Report)
    assert report.kind is ReportKind.BAD_FRAME


@contextlib.asynccontextmanager
async def ink_server(asked: list[str | bytes]) -> AsyncIterator[str]:
    """A server that answers each `finalize` with two chunks and flush_done, and `close` with done."""

    async def talk(socket: ServerConnection) -> None:
        async for message in socket:
            asked.append(message)
            if message == "finalize":
                for answer in (chunk("yes"), chunk(" please."), FLUSH_DONE):
                    await socket.send(json.dumps(answer))
            if message == "close":
                await socket.send(json.dumps(DONE))
                return

    async with serve(talk, "127.0.0.1", 0) as server:
        yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"


def test_an_agent_on_the_sdks_async_connection() -> None:
    said: list[str] = []
    asked: list[str | bytes] = []

    async def call() -> None:
        ink = ManualFinalize()
        agent = Agent(source=ink)
        agent.think(lambda turn: turn.transcript.upper())

        @agent.respond
        async def respond(turn: object, thought: Thought[Any]) -> None:
            said.append(str(await thought))

        async with (
            ink_server(asked) as url,
            AsyncCartesia(api_key="none", websocket_base_url=url) as client,
            client.stt.manual_finalize.websocket(**SETTINGS) as connection,
            agent,
            anyio.create_task_group() as tasks,
        ):

            async def read() -> None:
                async for frame in connection:
                    agent.feed(frame)

            tasks.start_soon(read)
            agent.feed(ink.speech_started())
            await connection.send_raw(b"\0\0")
            agent.feed(ink.speech_stopped())
            if frame := ink.finalize():
                await connection.send(frame)
            await connection.send("close")

    asyncio.run(call())
    assert said == ["YES PLEASE."]
    assert asked == [b"\0\0", "finalize", "close"]


def test_turns_on_the_sdks_sync_connection() -> None:
    turns = Turns(source=(ink := ManualFinalize()))
    said: list[str] = []
    turns.on_end(lambda turn: said.append(turn.transcript))

    def listen(url: str) -> None:
        with (
            Cartesia(api_key="none", websocket_base_url=url) as client,
            client.stt.manual_finalize.websocket(**SETTINGS) as connection,
        ):
            turns.feed(ink.speech_started())
            turns.feed(ink.speech_stopped())
            assert ink.finalize()
            connection.send("finalize")
            connection.send("close")
            for frame in connection:
                turns.feed(frame)

    async def call() -> None:
        async with ink_server([]) as url:
            await asyncio.to_thread(listen, url)

    asyncio.run(call())
    assert said == ["yes please."]
    assert not isinstance(turns.feed(ink.speech_stopped()), Respond)
