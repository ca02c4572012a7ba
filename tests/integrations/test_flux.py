"""Deepgram Flux by `deepgram-sdk`'s own objects: what its socket client makes of a frame, and what inkturns does."""

import asyncio
import contextlib
import inspect
import json
import re
import warnings
from collections.abc import AsyncIterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import pytest
from websockets.asyncio.server import ServerConnection, serve

from inkturns.actions import Report, ReportKind, Respond
from inkturns.adapters.flux import BOUNDS, Flux, FluxSettings
from inkturns.agent import Agent, Thought
from inkturns.events import Event, ServerError, TurnEagerEnd, TurnEnd, TurnResume, TurnStart, TurnUpdate, Unknown
from inkturns.turns import Turns

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # the SDK imports websockets' legacy client
    from deepgram import AsyncDeepgramClient, DeepgramClient
    from deepgram.core.events import EventType
    from deepgram.core.unchecked_base_model import construct_type
    from deepgram.environment import DeepgramClientEnvironment
    from deepgram.listen.v2.socket_client import V2SocketClientResponse
    from deepgram.listen.v2.types import (
        ListenV2ConfigureFailure,
        ListenV2ConfigureSuccess,
        ListenV2Connected,
        ListenV2FatalError,
        ListenV2TurnInfo,
        ListenV2Warning,
    )
    from deepgram.types import listen_v2eager_eot_threshold, listen_v2eot_threshold, listen_v2eot_timeout_ms

pytestmark = pytest.mark.filterwarnings("ignore:websockets:DeprecationWarning")  # and when it is first used

Message = dict[str, Any]


def info(event: str, transcript: str = "", turn_index: object = 0) -> Message:
    return {
        "type": "TurnInfo",
        "request_id": "r",
        "sequence_id": 7,
        "event": event,
        "turn_index": turn_index,
        "audio_window_start": 0.0,
        "audio_window_end": 1.3,
        "transcript": transcript,
        "words": [{"word": word, "confidence": 0.9, "start": 0.1, "end": 0.2} for word in transcript.split()],
        "end_of_turn_confidence": 0.1,
    }


CONNECTED = {"type": "Connected", "request_id": "r", "sequence_id": 0}
OTHERS: dict[type, Message] = {
    ListenV2Connected: CONNECTED,
    ListenV2TurnInfo: info("Update", "a"),
    ListenV2ConfigureSuccess: {
        "type": "ConfigureSuccess",
        "request_id": "r",
        "sequence_id": 1,
        "thresholds": {"eot_threshold": 0.8},
        "keyterms": ["inkturns"],
    },
    ListenV2ConfigureFailure: {"type": "ConfigureFailure", "request_id": "r", "sequence_id": 1},
    ListenV2Warning: {"type": "Warning", "request_id": "r", "sequence_id": 1, "code": "C", "description": "d"},
    ListenV2FatalError: {"type": "Error", "sequence_id": 1, "code": "C", "description": "d"},
}
TURN = [
    CONNECTED,
    info("Update"),
    info("StartOfTurn", "Hi I"),
    info("Update", "Hi I need"),
    info("EagerEndOfTurn", "Hi I need"),
    info("Update", "Hi I need"),
    info("TurnResumed", "Hi I need help"),
    info("EagerEndOfTurn", "Hi, I need help."),
    info("EndOfTurn", "Hi, I need help.") | {"trigger": "model"},
    info("Update", "", 1),
]


def by_the_sdk(message: Message) -> Any:
    """What the SDK's socket client makes of a frame: its own code, on the text."""
    return construct_type(type_=V2SocketClientResponse, object_=json.loads(json.dumps(message)))  # type: ignore[arg-type]


def events(*frames: object) -> list[Event]:
    flux = Flux()
    return [event for frame in frames for event in flux.events(frame)]


@contextlib.asynccontextmanager
async def flux_server(stream: list[Message], asked: list[str]) -> AsyncIterator[DeepgramClientEnvironment]:
    """A server that sends these messages to whoever comes, and hangs up; `asked` are the paths that they came by."""

    async def talk(socket: ServerConnection) -> None:
        assert socket.request
        asked.append(socket.request.path)
        for message in stream:
            await socket.send(json.dumps(message))

    async with serve(talk, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
        yield DeepgramClientEnvironment(base=url, production=url, agent=url, agent_rest=url)


def test_the_sdks_types_are_all_known() -> None:
    assert set(get_args(V2SocketClientResponse)) == set(OTHERS)
    for kind, message in OTHERS.items():
        frame = by_the_sdk(message)
        assert type(frame) is kind
        assert events(frame) == events(json.dumps(message))
        assert not any(isinstance(event, Unknown) for event in events(frame))


def test_an_object_says_what_its_frame_says() -> None:
    expected = events(*map(json.dumps, TURN))
    assert [type(event) for event in expected[1:]] == [
        *(TurnStart, TurnUpdate, TurnUpdate, TurnEagerEnd, TurnResume, TurnUpdate, TurnEagerEnd, TurnEnd)
    ]
    assert events(*map(by_the_sdk, TURN)) == expected


@pytest.mark.parametrize("index", [3, "3"])
def test_a_number_may_be_a_string(index: object) -> None:
    frame = by_the_sdk(info("StartOfTurn", "a", index))
    assert [event.turn_id for event in events(frame) if isinstance(event, TurnStart | TurnUpdate)] == ["3", "3"]


def test_what_a_message_lacks_is_null_in_the_sdks_object() -> None:
    frame = by_the_sdk({"type": "TurnInfo", "event": "EndOfTurn"})
    assert frame.transcript is frame.turn_index is frame.words is None
    assert events(frame) == [TurnEnd()]


def test_an_event_that_the_sdk_does_not_know_keeps_its_name() -> None:
    frame = by_the_sdk(info("TurnSighed", "a") | {"depth": 3})
    assert type(frame) is ListenV2TurnInfo
    (event,) = events(frame)
    assert isinstance(event, Unknown)
    assert (event.kind, event.request_id, event.fields["depth"]) == ("TurnInfo.TurnSighed", "r", 3)
    assert event.fields["words"] == [{"word": "a", "confidence": 0.9, "start": 0.1, "end": 0.2}]


SIGH = {"type": "SpeechSighed", "request_id": "r", "depth": 3}


def test_f09_the_sdk_makes_none_of_a_type_that_it_does_not_know() -> None:
    """Its own path: what the message was, nobody can say any more."""
    assert version("deepgram-sdk") == "7.17.0"
    assert by_the_sdk(SIGH) is None


def test_f09_inkturns_reports_a_type_that_it_does_not_know() -> None:
    """As itself, from the raw frame; of the SDK's None, that there was something. Neither stops or changes a turn."""
    turns = Turns(source=Flux())
    turns.feed(by_the_sdk(info("StartOfTurn", "a")))
    (unknown,) = turns.feed(json.dumps(SIGH))
    assert isinstance(unknown, Report)
    assert unknown.kind is ReportKind.UNKNOWN_TYPE
    assert unknown.event == Unknown(kind="SpeechSighed", fields={"depth": 3}, request_id="r")
    (bad,) = turns.feed(by_the_sdk(SIGH))
    assert isinstance(bad, Report)
    assert bad.kind is ReportKind.BAD_FRAME
    assert isinstance(turns.feed(by_the_sdk(info("EndOfTurn", "a")))[-1], Respond)


def test_an_agent_runs_on_the_sdks_async_connection() -> None:
    said: list[str] = []

    async def call() -> None:
        agent = Agent(source=Flux())
        agent.think(lambda turn: turn.transcript.upper())

        @agent.respond
        async def respond(turn: object, thought: Thought[Any]) -> None:
            said.append(str(await thought))

        async with flux_server([*TURN, SIGH], []) as environment:
            client = AsyncDeepgramClient(api_key="none", environment=environment)
            async with client.listen.v2.connect(model="flux-general-en") as connection:
                await agent.run(connection)

    asyncio.run(call())
    assert said == ["HI, I NEED HELP."]


def test_turns_are_fed_by_the_sdks_callbacks() -> None:
    """The synchronous client, as its users have it: `connection.on(EventType.MESSAGE, turns.feed)`."""
    turns, said = Turns(source=Flux()), list[str]()
    turns.on_end(lambda turn: said.append(turn.transcript))

    def listen(environment: DeepgramClientEnvironment) -> None:
        client = DeepgramClient(api_key="none", environment=environment)
        with client.listen.v2.connect(model="flux-general-en") as connection:
            connection.on(EventType.MESSAGE, turns.feed)
            connection.start_listening()

    async def call() -> None:
        async with flux_server(TURN, []) as environment:
            await asyncio.to_thread(listen, environment)

    asyncio.run(call())
    assert said == ["Hi, I need help."]


def test_an_error_of_the_sdks_settles_the_turn() -> None:
    turns = Turns(source=Flux())
    turns.feed(by_the_sdk(info("StartOfTurn", "a")))
    report, *_ = turns.feed(by_the_sdk(OTHERS[ListenV2FatalError]))
    assert isinstance(report, Report)
    assert report.event == ServerError(title="Error", message="d", error_code="C")
    assert turns.machine.turn is None


def test_the_bounds_are_the_sdks() -> None:
    """Where it says them: in the words above its types."""
    modules = {
        "eot_threshold": listen_v2eot_threshold,
        "eager_eot_threshold": listen_v2eager_eot_threshold,
        "eot_timeout_ms": listen_v2eot_timeout_ms,
    }
    for name, module in modules.items():
        source = " ".join(Path(inspect.getfile(module)).read_text().split())
        low, high = re.findall(r"Valid Values ([\d.]+) - ([\d.]+?)\.?(?: |$)", source)[0]
        assert BOUNDS[name] == (float(low), float(high))


def test_the_query_is_the_sdks() -> None:
    asked: list[str] = []
    settings = FluxSettings(eot_threshold=0.8, eager_eot_threshold=0.4, eot_timeout_ms=6000)

    async def call() -> None:
        async with flux_server([], asked) as environment:
            client = AsyncDeepgramClient(api_key="none", environment=environment)
            async with client.listen.v2.connect(model="flux-general-en", **settings.given()) as connection:
                async for _ in connection:
                    pass

    asyncio.run(call())
    assert set(asked[0].partition("?")[2].split("&")) == {"model=flux-general-en", *settings.query().split("&")}
