"""Defects that were seen in released packages, each shown twice: the package's own path does it, inkturns' does not.

F04 and F10 in livekit-plugins-cartesia, F09 and F11 in the cartesia SDK; the numbers are those of the README. Over real
sockets to a server here. Where a later version has mended a defect, its test fails and says so: then the README may."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib.metadata import version
from threading import Thread
from typing import Any

import aiohttp
import pytest
from cartesia import AsyncCartesia, Cartesia
from cartesia.types.stt import STTAutoFinalizeConnected
from cartesia.types.websocket_reconnection import ReconnectingEvent, ReconnectingOverrides
from livekit.agents import APIConnectOptions
from livekit.agents.stt import SpeechEvent, SpeechEventType
from livekit.plugins import cartesia
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosedError
from websockets.sync.server import ServerConnection as SyncServerConnection
from websockets.sync.server import serve as serve_from_threads

from inkturns import DecodeError, Turns, decode
from inkturns.actions import Report, ReportKind, Respond
from inkturns.adapters.livekit import LiveKit, watched
from inkturns.events import Connected, Unknown

AUDIO = b"\xff\xfe\x01\x80" * 80  # samples: no UTF-8


@contextmanager
def defect_of(package: str, seen_in: str) -> Iterator[None]:
    """Inside, what the package does wrong is shown. It was seen in that version; later ones may do it still."""
    try:
        yield
    except (AssertionError, pytest.fail.Exception) as mended:
        if version(package) == seen_in:
            raise
        pytest.fail(f"{package} {version(package)} does no more what {seen_in} did; say so in the README. {mended}")


def frame(kind: str, **fields: Any) -> str:
    return json.dumps({"type": kind, "request_id": "connection 1", **fields})


def turn(text: str) -> list[str]:
    return [frame("turn.start"), frame("turn.update", transcript=text), frame("turn.end", transcript=text)]


@asynccontextmanager
async def server(*scripts: list[str]) -> AsyncIterator[str]:
    """It says a script a connection; all but the last are then cut off with 1011, the last closed in order."""
    remaining = list(scripts)

    async def call(socket: ServerConnection) -> None:
        for said in remaining.pop(0):
            await socket.send(said)
        if remaining:
            await socket.close(1011)

    async with asyncio.timeout(30), serve(call, "127.0.0.1", 0) as listening:
        yield f"127.0.0.1:{next(iter(listening.sockets)).getsockname()[1]}"


def by_livekit(*frames: str, turns: Turns | None = None) -> tuple[list[SpeechEvent], Exception | None]:
    """What LiveKit's plugin gives an agent of these frames, and what its stream then raises; watched by `turns`."""
    events: list[SpeechEvent] = []

    async def call() -> Exception | None:
        once = APIConnectOptions(max_retry=0, timeout=10.0)
        async with server(list(frames)) as address, aiohttp.ClientSession() as session:
            ear = cartesia.STT(api_key="none", base_url=f"http://{address}", http_session=session)
            async with ear.stream(conn_options=once) as stream:
                try:
                    async for event in stream if turns is None else watched(stream, turns):
                        events.append(event)
                except Exception as error:
                    return error
        return None

    return events, asyncio.run(call())


def texts(events: list[SpeechEvent]) -> list[str]:
    return [event.alternatives[0].text for event in events if event.type is SpeechEventType.FINAL_TRANSCRIPT]


def by_inkturns(*items: object) -> tuple[list[str], list[ReportKind]]:
    """What is answered, and what reported."""
    turns = Turns()
    actions = [action for item in items for action in turns.feed(item)]
    answered = [action.turn.transcript for action in actions if isinstance(action, Respond)]
    return answered, [action.kind for action in actions if isinstance(action, Report)]


# -- F04: the end of a turn whose start was missed


def test_f04_livekits_plugin_drops_an_end_without_a_start() -> None:
    frames = [frame("turn.end", transcript="cancel it"), *turn("hello")]
    with defect_of("livekit-plugins-cartesia", "1.8.9"):
        events, _ = by_livekit(*frames)
        assert texts(events) == ["hello"]
    assert by_inkturns(*frames) == (["cancel it", "hello"], [ReportKind.MISSED_START])


# -- F10: a frame that is none


NO_FRAMES = {
    "no type": '{"transcript": "cancel"}',
    "an array": '[{"type": "turn.update"}]',
    "no transcript": '{"type": "turn.update"}',
}


@pytest.mark.parametrize("bad", NO_FRAMES.values(), ids=NO_FRAMES)
def test_f10_a_bad_frame_kills_the_stream_of_livekits_plugin_for_the_session(bad: str) -> None:
    frames = [*turn("hello"), frame("turn.start"), bad, *turn("are you there")[1:]]
    with defect_of("livekit-plugins-cartesia", "1.8.9"):
        events, raised = by_livekit(*frames)
        assert isinstance(raised, KeyError | AttributeError), raised  # no APIError, so nothing is retried
        assert texts(events) == ["hello"]
    answered, reported = by_inkturns(*frames)
    assert answered == ["hello", "are you there"]
    assert reported == ([] if bad is NO_FRAMES["no transcript"] else [ReportKind.BAD_FRAME])


@pytest.mark.parametrize("bad", NO_FRAMES.values(), ids=NO_FRAMES)
def test_f10_what_watches_beside_it_does_not_die_with_it(bad: str) -> None:
    """The words of the turn that was open are handed over; a new stream is heard by the same Turns."""
    turns, seen = Turns(source=LiveKit()), list[tuple[str, str]]()
    turns.on_end(lambda turn: seen.append(("answered", turn.transcript)))
    turns.on_abandon(lambda turn: seen.append(("lost", turn.transcript)))
    by_livekit(*turn("book a table")[:2], bad, turns=turns)
    by_livekit(*turn("hello"), turns=turns)
    assert seen[-1] == ("answered", "hello")
    assert "book a table" in [words for _, words in seen]


# -- F09: a type that the SDK does not know


def sigh_and_turn() -> list[str]:
    return [frame("turn.start"), frame("turn.sigh", transcript="ah"), *turn("hello")[1:]]


def test_f09_the_sdk_makes_an_unknown_type_an_object_of_another_events_class() -> None:
    async def call() -> list[Any]:
        async with (
            server(sigh_and_turn()) as address,
            AsyncCartesia(api_key="none", websocket_base_url=f"ws://{address}") as client,
            client.stt.auto_finalize.websocket(model="ink-2", encoding="pcm_s16le", sample_rate=16000) as ink,
        ):
            return [event async for event in ink]

    events = asyncio.run(call())
    sigh = events[1]
    with defect_of("cartesia", "4.2.0"):
        assert isinstance(sigh, STTAutoFinalizeConnected)  # so who asks for the class takes it for a new connection
    assert decode(sigh) == Unknown(kind="turn.sigh", fields={"transcript": "ah"}, request_id="connection 1")
    assert not isinstance(decode(sigh), Connected)
    assert by_inkturns(*events) == (["hello"], [ReportKind.UNKNOWN_TYPE])


# -- F11: audio while reconnecting


def refused(error: BaseException | None) -> None:
    with defect_of("cartesia", "4.2.0"):
        assert isinstance(error, UnicodeDecodeError), error


def is_a_bad_frame(audio: bytes) -> None:
    with pytest.raises(DecodeError):
        decode(audio)
    assert by_inkturns(*turn("hello")[:2], audio, *turn("hello")[2:]) == (["hello"], [ReportKind.BAD_FRAME])


def test_f11_the_async_sdk_takes_audio_for_text_while_it_reconnects() -> None:
    sent: list[asyncio.Task[None]] = []

    async def call() -> list[Any]:
        def on_reconnecting(event: ReconnectingEvent) -> ReconnectingOverrides | None:
            sent.append(asyncio.create_task(ink.send_raw(AUDIO)))  # as the microphone's task would, meanwhile
            return None

        async with (
            server(turn("hello"), turn("again")) as address,
            AsyncCartesia(api_key="none", websocket_base_url=f"ws://{address}") as client,
            client.stt.auto_finalize.websocket(
                model="ink-2",
                encoding="pcm_s16le",
                sample_rate=16000,
                on_reconnecting=on_reconnecting,
                initial_delay=0.01,
            ) as ink,
        ):
            return [event async for event in ink]

    events = asyncio.run(call())
    refused(sent[0].exception())
    is_a_bad_frame(AUDIO)
    assert by_inkturns(*events) == (["hello", "again"], [])


def test_f11_the_sync_sdk_takes_audio_for_text_while_it_reconnects() -> None:
    raised: list[BaseException | None] = []

    def on_reconnecting(event: ReconnectingEvent) -> ReconnectingOverrides:
        try:
            ink.send_raw(AUDIO)
            raised.append(None)
        except Exception as error:
            raised.append(error)
        return {"abort": True}

    def call(socket: SyncServerConnection) -> None:
        for said in turn("hello"):
            socket.send(said)
        socket.close(1011)

    events: list[Any] = []
    with serve_from_threads(call, "127.0.0.1", 0) as listening:
        Thread(target=listening.serve_forever).start()
        url = f"ws://127.0.0.1:{listening.socket.getsockname()[1]}"
        with (
            Cartesia(api_key="none", websocket_base_url=url) as client,
            client.stt.auto_finalize.websocket(
                model="ink-2", encoding="pcm_s16le", sample_rate=16000, on_reconnecting=on_reconnecting
            ) as ink,
            pytest.raises(ConnectionClosedError),
        ):
            events.extend(ink)
    refused(raised[0])
    is_a_bad_frame(AUDIO)
    assert by_inkturns(*events) == (["hello"], [])
