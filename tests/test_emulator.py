"""The emulator, through real sockets: what the protocol promises, what it leaves open, each trouble, the storm.

Its clock is the audio, so nothing here waits for time to pass: a test sends seconds of audio at once."""

import asyncio
import json
import logging
import re
import unicodedata
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from functools import partial, wraps
from inspect import iscoroutinefunction
from typing import Any
from urllib.parse import quote

import pytest
from cartesia import AsyncCartesia
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as plain_connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from inkturns import (
    BALANCED,
    AfterDisconnect,
    Agent,
    Disconnected,
    Policy,
    Tick,
    TurnMachine,
    Turns,
    TurnSettings,
    close_command,
    config_command,
    connect_query,
    decode,
)
from inkturns.actions import Abandon, Action, EndReason, Report, ReportKind, Respond, Stall
from inkturns.errors import DecodeError
from inkturns.testing.emulator import InkEmulator, Script, hesitation, noise, say, trouble
from inkturns.testing.emulator.connection import Closing
from inkturns.testing.emulator.conversations import conversation, troubled_conversation
from inkturns.testing.emulator.fixtures import ink_emulator  # noqa: F401  a fixture
from inkturns.testing.emulator.parts import GARBAGE, Trouble
from inkturns.testing.oracle import Oracle

CALL = Script(say("I would like to book a table."), say("For two", hesitation(0.9), "no, four people."), seed=5)
QUERY = connect_query(encoding="pcm_mulaw", sample_rate=8000)
WARY = TurnSettings(start_threshold=0.85, eager_end_threshold=0.8, end_threshold=0.3)  # eager at every hesitation
FAST = float("inf")
# With many frames unread, a client stops reading, does not see that the server closes, and waits for that for 10 s.
connect = partial(plain_connect, max_queue=None)
Frame = str | bytes


def in_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Runs an async test, and sees that it leaves no task."""

    async def alone(*args: Any, **kwargs: Any) -> None:
        async with asyncio.timeout(60):
            await test(*args, **kwargs)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(alone(*args, **kwargs))

    assert iscoroutinefunction(test)
    return run


@asynccontextmanager
async def calling(
    script: Any, query: str = QUERY, **options: Any
) -> AsyncIterator[tuple[ClientConnection, InkEmulator]]:
    """A connection to an emulator of its own."""
    async with (
        InkEmulator(script, **{"speed": FAST, **options}) as emulator,
        connect(f"{emulator.url}?{query}") as socket,
    ):
        yield socket, emulator


async def rest(socket: ClientConnection) -> list[Frame]:
    """Every frame until the connection is closed, however it is."""
    frames: list[Frame] = []
    with suppress(ConnectionClosed):
        while True:
            frames.append(await socket.recv())
    return frames


async def heard(script: Script, *, seconds: float = 40, query: str = QUERY, close: bool = True) -> list[Frame]:
    """The frames that a client gets who sends so much audio and, to see the end of it, `close`."""
    async with calling(script, query) as (socket, _):
        await talk(socket, seconds)
        if close:
            await say_to(socket, close_command())
        return await rest(socket)


async def talk(socket: ClientConnection, seconds: float, piece: float = 1.0) -> None:
    with suppress(ConnectionClosed):
        for _ in range(round(seconds / piece)):
            await socket.send(bytes(round(8000 * piece)))


async def say_to(socket: ClientConnection, command: str) -> None:
    with suppress(ConnectionClosed):
        await socket.send(command)


async def until(socket: ClientConnection, kind: str) -> list[dict[str, Any]]:
    """The frames up to the first of this type."""
    frames: list[dict[str, Any]] = []
    while not frames or frames[-1]["type"] != kind:
        frames.append(json.loads(await socket.recv()))
    return frames


def kinds(frames: Iterable[Frame]) -> list[str]:
    return [json.loads(frame)["type"] for frame in frames]


# -- what is promised


@in_a_loop
async def test_a_turn_begins_with_its_start_and_ends_with_its_end() -> None:
    """And eager_end is followed by resume or end, resume comes only after it, the text only grows, the end's is the
    definitive one; turn_id is there, "1" first; the request_id is one."""
    for seed in range(20):
        frames = [json.loads(frame) for frame in await heard(conversation(seed))]
        assert frames[0]["type"] == "connected"
        assert len({frame["request_id"] for frame in frames}) == 1
        phase, text, number = "idle", "", 0
        for frame in frames[1:]:
            kind = frame["type"]
            if kind == "turn.start":
                assert phase == "idle"
                phase, text, number = "speaking", "", number + 1
            assert phase != "idle"
            assert frame["turn_id"] == str(number)
            assert kind != "turn.resume" or phase == "eager"
            assert kind != "turn.eager_end" or phase == "speaking"
            assert frame.get("transcript", text).startswith(text)
            text = frame.get("transcript", text)
            assert ("transcript" in frame) == (kind in ("turn.update", "turn.eager_end", "turn.end"))
            phase = {"turn.eager_end": "eager", "turn.resume": "speaking", "turn.end": "idle"}.get(kind, phase)
        assert phase == "idle"


@in_a_loop
async def test_a_socket_says_what_the_script_says_without_one() -> None:
    async with calling(CALL, seed=CALL.seed, idle_timeout=None) as (socket, emulator):
        await talk(socket, CALL.seconds)
        expected = list(CALL.frames())
        assert [await socket.recv() for _ in expected] == [frame for _, frame in expected]
        assert emulator.connections[0].sent == expected


@in_a_loop
async def test_each_connection_has_a_request_id() -> None:
    async with InkEmulator(CALL, speed=FAST) as emulator:
        ids = []
        for _ in range(3):
            async with connect(f"{emulator.url}?{QUERY}") as socket:
                ids.append(json.loads(await socket.recv())["request_id"])
        assert len(set(ids)) == 3
        assert [session.request_id for session in emulator.connections] == ids


@in_a_loop
async def test_a_session_is_forgotten_with_its_connection_where_asked() -> None:
    async with InkEmulator(CALL, speed=FAST, keep=False) as emulator:
        for _ in range(3):
            async with connect(f"{emulator.url}?{QUERY}") as socket:
                await socket.recv()
                assert emulator.connections[-1].sent
    assert emulator.connections == []


@in_a_loop
async def test_connections_have_the_scripts_in_order() -> None:
    scripts = [Script(say(word), seed=1) for word in ("First", "Second")]
    async with InkEmulator(scripts, speed=FAST) as emulator:
        for word in ("First", "Second", "Second"):
            async with connect(f"{emulator.url}?{QUERY}") as socket:
                await talk(socket, 8)
                assert (await until(socket, "turn.end"))[-1]["transcript"] == word


@in_a_loop
async def test_audio_may_be_sent_before_connected_comes() -> None:
    async with calling(CALL) as (socket, _):
        await talk(socket, 10)
        assert (await until(socket, "turn.end"))[0]["type"] == "connected"


@pytest.mark.parametrize(
    ("encoding", "width"),
    [("pcm_s16le", 2), ("pcm_s32le", 4), ("pcm_f16le", 2), ("pcm_f32le", 4), ("pcm_mulaw", 1), ("pcm_alaw", 1)],
)
@in_a_loop
async def test_a_second_is_a_second_in_every_encoding(encoding: str, width: int) -> None:
    async with calling(CALL, connect_query(encoding=encoding, sample_rate=16000)) as (socket, emulator):
        await socket.send(bytes(16000 * width + 1))  # a frame may end inside a sample
        await socket.send(bytes(16000 * width - 1))
        await socket.send(close_command())
        await rest(socket)
        assert emulator.connections[0].seconds == pytest.approx(2)


@in_a_loop
async def test_settings_move_the_events() -> None:
    async def at(settings: TurnSettings) -> dict[str, float]:
        async with calling(CALL, f"{QUERY}&{settings.query()}") as (socket, emulator):
            await talk(socket, 7, 0.01)
            await until(socket, "turn.end")
            return {json.loads(str(frame))["type"]: at for at, frame in reversed(emulator.connections[0].sent)}

    slow = await at(TurnSettings(eager_end_threshold=0.4, end_threshold=0.2))
    fast = await at(TurnSettings(start_threshold=0.7, eager_end_threshold=0.6, end_threshold=0.5))
    assert fast["turn.start"] < slow["turn.start"]
    assert fast["turn.eager_end"] < slow["turn.eager_end"]
    assert fast["turn.end"] < slow["turn.end"]


@in_a_loop
async def test_config_moves_them_in_mid_session_and_is_not_acknowledged() -> None:
    script = Script(say("Well, we could come at", hesitation(5), "eight."), seed=5)
    timeout = TurnSettings(end_timeout_ms=1000)

    async def ends(config: str | None) -> list[str]:
        async with calling(script) as (socket, _):
            await talk(socket, 1)
            if config is not None:
                await socket.send(config)
            await talk(socket, 10)
            await socket.send(close_command())
            frames = [json.loads(frame) for frame in await rest(socket)]
            assert "error" not in kinds(map(json.dumps, frames))
            return [frame["transcript"] for frame in frames if frame["type"] == "turn.end"]

    assert await ends(None) == ["Well, we could come at eight."]
    assert await ends(config_command(timeout)) == ["Well, we could come at", "eight."]
    for nothing in ("{}", '{"end_timeout_ms": null}', "null"):
        assert len(await ends(f'{{"type":"config","turn":{nothing}}}')) == 1
    assert len(await ends('{"type":"config"}')) == 1


@pytest.mark.parametrize(
    "turn", ['{"end_threshold": 0.9}', '{"end_timeout_ms": 1}', '{"speed": 1}', '"fast"', '{"end_threshold": "low"}']
)
@in_a_loop
async def test_a_config_out_of_bounds_gets_an_error_and_changes_nothing(turn: str) -> None:
    async with calling(CALL) as (socket, emulator):
        await socket.send(f'{{"type":"config","turn":{turn}}}')
        assert (await until(socket, "error"))[-1]["status_code"] == 400
        assert emulator.connections[0].settings == BALANCED


@pytest.mark.parametrize("where", ["query", "config"])
@in_a_loop
async def test_thresholds_out_of_order_close_with_1008(where: str) -> None:
    bad = "turn_start_threshold=0.6&turn_eager_end_threshold=0.6"
    async with calling(CALL, f"{QUERY}&{bad}" if where == "query" else QUERY) as (socket, _):
        if where == "config":
            await socket.send('{"type":"config","turn":{"start_threshold":0.6,"eager_end_threshold":0.6}}')
        frames = await rest(socket)
        assert kinds(frames) == ([] if where == "query" else ["connected"])
        assert (socket.protocol.close_code, socket.protocol.close_reason) == (1008, "Invalid turn thresholds")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (("model=ink-2", "model=ink-3"), "model_not_found"),
        (("model=ink-2&", ""), None),
        (("pcm_mulaw", "mp3"), None),
        (("sample_rate=8000", "sample_rate=fast"), None),
        (("sample_rate=8000", "sample_rate=0"), None),
        (("sample_rate=8000", ""), None),
        (("8000", "8000&turn_end_threshold=0.9"), None),
        (("8000", "8000&turn_end_threshold=low"), None),
        (("8000", "8000&turn_end_threshold=nan"), None),
        (("8000", "8000&turn_end_timeout_ms=inf"), None),
        (("8000", "8000&turn_end_timeout_ms=100"), None),
        (("8000", "8000" + "&keyterm=a" * 101), None),
        (("8000", "8000&keyterm=" + "a" * 1201), None),
    ],
)
@in_a_loop
async def test_bad_settings_get_an_error_instead_of_connected(change: tuple[str, str], code: str | None) -> None:
    async with calling(CALL, QUERY.replace(*change)) as (socket, emulator):
        (frame,) = await rest(socket)
        error = json.loads(frame)
        assert (error["type"], error["status_code"], error["error_code"]) == ("error", 400, code)
        assert error["title"]
        assert error["message"]
        assert emulator.connections == []


@pytest.mark.parametrize(("space", "said"), [("%20", False), ("+", True)])
@in_a_loop
async def test_a_plus_in_a_keyterm_is_a_plus_and_is_said(space: str, said: bool) -> None:
    log: list[str] = []
    async with calling(CALL, f"{QUERY}&keyterm=Mill{space}Road", log=log.append) as (socket, _):
        assert kinds([await socket.recv()]) == ["connected"]
    assert any('"Mill+Road"' in line for line in log) == said


@in_a_loop
async def test_unknown_query_fields_are_tolerated() -> None:
    async with calling(CALL, f"{QUERY}&cartesia_version=2026-08-14&access_token=x&mood=fine") as (socket, _):
        assert kinds([await socket.recv()]) == ["connected"]


@in_a_loop
async def test_what_is_no_caller_has_no_script_and_is_no_fault(caplog: pytest.LogCaptureFixture) -> None:
    asked: list[int] = []

    def script(number: int) -> Script:
        asked.append(number)
        return CALL

    async with InkEmulator(script, speed=FAST) as emulator:
        reader, browser = await asyncio.open_connection(emulator.host, emulator.port)
        browser.write(f"GET /stt/turns/websocket?{QUERY} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert b" 426 " in await reader.readline()
        _, probe = await asyncio.open_connection(emulator.host, emulator.port)
        for writer in (browser, probe):
            writer.close()
        with suppress(InvalidStatus):
            await connect(emulator.base_url)
        async with connect(f"{emulator.url}?{QUERY}") as socket:
            await socket.recv()
    assert asked == [0]
    assert caplog.records == []


@in_a_loop
async def test_a_script_that_fails_is_a_fault(caplog: pytest.LogCaptureFixture) -> None:
    async with InkEmulator(lambda number: [CALL][number + 1]) as emulator:
        with pytest.raises(InvalidStatus) as caught:
            await connect(f"{emulator.url}?{QUERY}")
        assert caught.value.response.status_code == 500
    assert [type(record.exc_info[1]) for record in caplog.records if record.exc_info] == [IndexError]


@in_a_loop
async def test_there_is_no_other_path() -> None:
    async with InkEmulator(CALL) as emulator:
        with pytest.raises(InvalidStatus) as caught:
            await connect(f"{emulator.base_url}/stt/websocket?{QUERY}")
        assert caught.value.response.status_code == 404


@pytest.mark.parametrize("command", ["close", "done"])
@in_a_loop
async def test_close_flushes_what_is_open_and_closes(command: str) -> None:
    async with calling(CALL) as (socket, _):
        await talk(socket, 2)
        await socket.send(json.dumps({"type": command}))
        frames = [json.loads(frame) for frame in await rest(socket)]
        assert [frame["type"] for frame in frames].count("turn.end") == 1
        assert frames[-1]["type"] == "turn.end"
        assert "I would like to book a table.".startswith(frames[-1]["transcript"].rstrip())
        assert frames[-1]["transcript"]
        assert socket.protocol.close_code == 1000


@in_a_loop
async def test_close_without_a_turn_just_closes() -> None:
    assert kinds(await heard(CALL, seconds=0)) == ["connected"]


@pytest.mark.parametrize(
    ("message", "what"),
    [
        ('{"type": "finalize"}', 'Unrecognized message type "finalize". Expected one of: "done", "close", "config".'),
        ("finalize", 'Message is not valid. Expected one of: "done", "close", "config".'),
        ("[1]", 'Message is not valid. Expected one of: "done", "close", "config".'),
        ('{"type": 1}', 'Message is not valid. Expected one of: "done", "close", "config".'),
        ("[" * 100_000, 'Message is not valid. Expected one of: "done", "close", "config".'),
    ],
)
@in_a_loop
async def test_any_other_message_gets_the_error_that_was_recorded(message: str, what: str) -> None:
    async with calling(CALL) as (socket, _):
        await socket.send(message)
        error = (await until(socket, "error"))[-1]
        assert error == {
            "type": "error",
            "error_code": None,
            "message": what,
            "status_code": 400,
            "title": "Invalid client message",
        }
        await talk(socket, 8)
        assert (await until(socket, "turn.end"))[-1]["transcript"]  # and it goes on: whether it does is not known


# -- audio time


@in_a_loop
async def test_without_audio_an_open_turn_stays_open() -> None:
    async with calling(CALL) as (socket, emulator):
        await talk(socket, 3)
        await until(socket, "turn.update")
        pong = await socket.ping()
        await pong  # it has seen all the audio there is
        assert emulator.connections[0].turn_open
        assert "turn.end" not in kinds(str(frame) for _, frame in emulator.connections[0].sent)
        await talk(socket, 5)
        await until(socket, "turn.end")


@in_a_loop
async def test_audio_that_comes_too_fast_is_said_once_a_burst_and_answered_where_asked() -> None:
    for strict in (False, True):
        log: list[str] = []
        async with calling(CALL, speed=1.0, strict=strict, log=log.append) as (socket, _):
            await talk(socket, 5)
            await socket.send(close_command())
            frames = await rest(socket)
        assert [line for line in log if "faster than 1 times real time" in line] == [
            "connection 0: audio comes faster than 1 times real time"
        ]
        assert kinds(frames).count("error") == strict


@in_a_loop
async def test_time_in_which_nothing_was_sent_is_not_saved_up(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, log, skipped = asyncio.get_running_loop(), list[str](), 0.0
    time, faster = loop.time, "audio comes faster than 1 times real time"
    monkeypatch.setattr(loop, "time", lambda: time() + skipped)

    async def answer(seconds: float) -> str:
        """To so much audio, and a message that gets an error in any case."""
        await socket.send(bytes(round(8000 * seconds)))
        await socket.send("finalize")
        return str((await until(socket, "error"))[-1]["message"])

    async with calling(CALL, speed=1.0, strict=True, log=log.append) as (socket, _):
        for _ in range(30):
            assert await answer(0.1) != faster
            skipped += 0.1
        skipped += 2.5
        assert await answer(3) == faster
    assert [line for line in log if faster in line] == [f"connection 0: {faster}"]


@in_a_loop
async def test_the_log_says_what_happens() -> None:
    log: list[str] = []
    async with calling(CALL, log=log.append) as (socket, emulator):
        await talk(socket, 2)
        await socket.send(close_command())
        await rest(socket)
    assert log == [
        f"connection 0: open, {emulator.connections[0].request_id}",
        'connection 0: gets {"type":"close"}',
        "connection 0: closed after 2.00 s of audio",
    ]


# -- trouble, and what the table makes of it


async def driven(script: Script, policy: Policy | None = None) -> list[tuple[Frame | None, tuple[Action, ...]]]:
    """Each frame that comes through a socket (None: that the connection is gone) with what Turns makes of it, held
    against the laws."""
    turns, oracle = Turns(policy or Policy()), Oracle()
    trace: list[tuple[Frame | None, tuple[Action, ...]]] = []
    items: list[Any] = [*await heard(script, query=f"{QUERY}&{WARY.query()}"), Disconnected()]
    for item in items:
        trace.append((item if isinstance(item, Frame) else None, actions := turns.feed(item)))
        oracle.step(event_of(item), actions)
    return trace


def event_of(item: Any) -> Any:
    try:
        return decode(item) if isinstance(item, Frame) else item
    except DecodeError:
        return None


def ends(actions: Iterable[Action]) -> list[EndReason | None]:
    return [action.turn.end for action in actions if isinstance(action, Respond | Abandon)]


SERVER, LOST, EMPTY, SUPERSEDED = EndReason.SERVER, EndReason.LOST, EndReason.EMPTY, EndReason.SUPERSEDED
R = ReportKind
BOOK, THEN = say("Could you tell me when you open?"), say("I would like to book a table.")
UNSURE = say("I would like to book", hesitation(0.9), "a table.")


def named(value: Any) -> str:
    first = value[0] if value and isinstance(value, tuple) else None
    return "-".join(filter(None, (first.trouble, first.on, first.kind))) if isinstance(first, Trouble) else ""


@pytest.mark.parametrize(
    ("parts", "reports", "ended"),
    [
        # lose
        ((trouble("lose", on="connected"), BOOK), [], [SERVER]),
        ((trouble("lose", on="turn.start"), BOOK), [R.MISSED_START], [SERVER]),
        ((trouble("lose", on="turn.update"), BOOK), [], [SERVER]),
        ((trouble("lose", on="turn.eager_end"), BOOK), [], [SERVER]),
        ((trouble("lose", on="turn.resume"), UNSURE), [], [SERVER]),
        ((trouble("lose", on="turn.end"), BOOK, THEN), [R.MISSED_END], [SUPERSEDED, SERVER]),
        # repeat
        ((trouble("repeat", on="connected"), BOOK), [R.DUPLICATE_CONNECTED], [SERVER]),
        ((trouble("repeat", on="turn.start"), BOOK), [R.DUPLICATE_START], [SERVER]),
        ((trouble("repeat", on="turn.update"), BOOK), [], [SERVER]),
        ((trouble("repeat", on="turn.eager_end"), BOOK), [], [SERVER]),
        ((trouble("repeat", on="turn.resume"), UNSURE), [R.STRAY_RESUME], [SERVER]),
        ((trouble("repeat", on="turn.end"), BOOK), [R.LATE], [SERVER]),
        # reorder
        ((trouble("reorder", on="connected"), BOOK), [R.DUPLICATE_CONNECTED], [SERVER]),
        ((trouble("reorder", on="turn.start"), BOOK), [R.MISSED_START, R.DUPLICATE_START], [SERVER]),
        ((trouble("reorder", on="turn.eager_end"), BOOK), [R.LATE], [SERVER]),
        ((trouble("reorder", on="turn.end"), BOOK, THEN), [R.MISSED_END, R.LATE], [SUPERSEDED, SERVER]),
        # late text
        ((trouble("late", on="turn.end"), BOOK, THEN), [R.LATE], [SERVER, SERVER]),
        ((trouble("late", on="turn.end", text=" Hello?"), BOOK), [R.MISSED_START], [SERVER, LOST]),
        # errors, in every phase
        *(
            ((trouble("error", on=on, status=status), UNSURE), [R.SERVER_ERROR], [SERVER])
            for on in ("turn.start", "turn.update", "turn.eager_end", "turn.resume", "turn.end")
            for status in (400, 429, 500)
        ),
        ((trouble("error", on="connected"), BOOK), [R.SERVER_ERROR], []),
        ((trouble("error", on="close"), BOOK), [R.SERVER_ERROR], [SERVER]),
        ((trouble("error", on="turn.update", fatal=True), BOOK), [R.SERVER_ERROR], [LOST]),
        # garbage
        *(
            ((trouble("garbage", on="turn.update", kind=kind), BOOK), [R.BAD_FRAME], [SERVER])
            for kind in GARBAGE
            if kind != "unknown"
        ),
        ((trouble("garbage", on="turn.update", kind="unknown"), BOOK), [R.UNKNOWN_TYPE], [SERVER]),
        # a lost connection, in every phase
        ((trouble("drop"), BOOK), [], []),
        ((trouble("drop", on="connected"), BOOK), [], []),
        ((trouble("drop", on="turn.start"), BOOK), [], [LOST]),
        ((trouble("drop", on="turn.update"), BOOK), [], [LOST]),
        ((trouble("drop", on="turn.eager_end"), BOOK), [], [LOST]),
        ((trouble("drop", on="turn.resume"), UNSURE), [], [LOST]),
        ((trouble("drop", on="turn.end"), BOOK), [], [SERVER]),
        ((trouble("drop", on="turn.update", code=1011), BOOK), [], [LOST]),
        # a mute server: the next turn, or the end of the connection, shows it
        ((trouble("mute", on="turn.update"), BOOK), [], [LOST]),
        ((trouble("mute", on="turn.update", chatty=True), BOOK), [], [LOST]),
        ((trouble("mute", on="turn.eager_end", seconds=2), BOOK, THEN), [R.MISSED_END], [SUPERSEDED, SERVER]),
        # and a slow one does nothing but wait
        ((trouble("slow", seconds=0.7), UNSURE, THEN), [], [SERVER, SERVER]),
        ((trouble("slow", on="turn.eager_end"), BOOK), [], [SERVER]),
        # nor is a noise any trouble
        ((noise(0.6), BOOK), [], [EMPTY, SERVER]),
    ],
    ids=named,
)
@in_a_loop
async def test_a_trouble_gives_what_the_table_says(
    parts: Any, reports: list[ReportKind], ended: list[EndReason]
) -> None:
    trace = await driven(Script(*parts, seed=9))
    actions = [action for _, some in trace for action in some]
    assert [action.kind for action in actions if isinstance(action, Report)] == reports
    assert ends(actions) == ended


@pytest.mark.parametrize("status", [401, 402, 403, 429])
@in_a_loop
async def test_an_upgrade_is_refused_with_the_status_that_is_asked_for(status: int) -> None:
    async with InkEmulator([Script(trouble("refuse", status=status), BOOK), Script(BOOK)]) as emulator:
        with pytest.raises(InvalidStatus) as caught:
            await connect(f"{emulator.url}?{QUERY}")
        assert caught.value.response.status_code == status
        async with connect(f"{emulator.url}?{QUERY}") as socket:  # and the next is not
            assert kinds([await socket.recv()]) == ["connected"]
    assert list(Script(trouble("refuse", status=status)).frames()) == []


@pytest.mark.parametrize("chatty", [False, True])
def test_a_mute_server_stalls_the_turn_however_chatty_it_is(chatty: bool) -> None:
    """F13."""
    script = Script(BOOK, trouble("mute", on="turn.update", chatty=chatty), THEN, seed=9)
    machine, stalls = TurnMachine(Policy(stall_timeout=3)), []
    for at, frame in script.frames():
        if machine.deadline is not None and at >= machine.deadline:
            stalls += [action for action in machine.receive(Tick(), at) if isinstance(action, Stall)]
        machine.receive(decode(frame), at)
    frames = [json.loads(frame) for _, frame in script.frames()]
    assert machine.turn is not None
    assert machine.turn.transcript
    assert len(stalls) == chatty  # without a frame there is no time here
    empty = [frame for frame in frames if frame.get("transcript") == "" and frame["turn_id"] == "1"]
    assert (len(empty) > 20) == chatty


def test_a_slow_server_says_the_same_later() -> None:
    fast, slow = Script(UNSURE, THEN, seed=9), Script(trouble("slow", seconds=0.7), UNSURE, THEN, seed=9)
    before, after = list(fast.frames()), list(slow.frames())
    assert [frame for _, frame in after] == [frame for _, frame in before]
    assert [at for at, _ in after] == pytest.approx([at + 0.7 for at, _ in before])


@in_a_loop
async def test_troubles_meet_where_they_stand() -> None:
    """In a breath, at its place; together, in order; not at all, where their event does not come."""
    first = await heard(
        Script(say("Well,", trouble("garbage"), "hello", trouble("error", status=429), "there."), seed=9)
    )
    shown = ["garbage" if "<html>" in str(frame) else json.loads(frame)["type"] for frame in first]
    assert shown.index("turn.start") < shown.index("garbage") < shown.index("error") < shown.index("turn.end")
    both = await heard(Script(trouble("repeat", on="turn.end"), trouble("late", on="turn.end"), BOOK, seed=9))
    assert kinds(both)[-3:] == ["turn.end", "turn.end", "turn.update"]
    assert await heard(Script(trouble("drop", on="turn.resume"), BOOK, seed=2)) == await heard(Script(BOOK, seed=2))
    assert await heard(Script(trouble("late"), BOOK, seed=9)) == await heard(Script(BOOK, seed=9))


@in_a_loop
async def test_what_waits_for_the_next_event_comes_with_the_close() -> None:
    assert kinds(await heard(Script(trouble("reorder", on="turn.end"), BOOK, seed=9)))[-1] == "turn.end"
    slow = Script(trouble("slow", seconds=3600), BOOK, seed=9)
    assert kinds(await heard(slow))[-1] == "turn.end"


async def by_hand(emulator: InkEmulator, query: str = QUERY) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A client that opens a connection, and then does nothing of what a WebSocket's does."""
    reader, writer = await asyncio.open_connection(emulator.host, emulator.port)
    head = f"GET /stt/turns/websocket?{query} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    writer.write(f"{head}Sec-WebSocket-Key: {'A' * 22}==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
    return reader, writer


@in_a_loop
async def test_a_client_that_does_not_leave_a_connection_that_is_gone_is_cut_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("inkturns.testing.emulator.server.VANISH", 0.01)
    async with InkEmulator(Script(trouble("drop", on="connected"), BOOK), speed=FAST) as emulator:
        reader, writer = await by_hand(emulator)
        assert b"connected" in await reader.read()  # until the end
        while (connection := asyncio.all_tasks() - {asyncio.current_task()}) and emulator.connections[0].over:
            if len(connection) == 1:  # the server's own
                break
            await asyncio.sleep(0.01)
        writer.close()


@pytest.mark.parametrize("seconds", [0, 1])
@in_a_loop
async def test_leaving_the_block_closes_what_is_open(seconds: int) -> None:
    async with InkEmulator(CALL, speed=FAST) as emulator:
        socket = await connect(f"{emulator.url}?{QUERY}")
        await talk(socket, seconds)
    await rest(socket)
    assert socket.protocol.close_code == 1001


@in_a_loop
async def test_a_client_that_does_not_close_does_not_keep_it_from_leaving(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inkturns.testing.emulator.server.VANISH", 0.01)
    time = asyncio.get_running_loop().time
    async with InkEmulator(CALL) as emulator:
        reader, writer = await by_hand(emulator)
        await reader.readuntil(b"connected")
        begun = time()
    assert time() - begun < 5  # websockets would wait for 10
    writer.close()


def test_what_is_no_script_is_refused() -> None:
    for bad in ([], ["hi"], None, 3):
        with pytest.raises(TypeError, match="script must be a Script"):
            InkEmulator(bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="speed must be above 0, got 0"):
        InkEmulator(CALL, speed=0)


@pytest.mark.parametrize(
    "origin", ["app.example", "https://", "https://app.example/", "https://App.example", "https://a b", "*"]
)
def test_an_origin_that_no_browser_sends_is_refused(origin: str) -> None:
    with pytest.raises(ValueError, match="an origin must be such as"):
        InkEmulator(CALL, origins=["http://[::1]:8080", "null", "https://app.example:8443", origin])


# -- clients that are not to be trusted, through real sockets


HOSTILE = "\x1b]0;pwned\x07\x1b[2J\r\n9.99  connection 0: forged\x9b31m\u202eevil\u2066\x00"


# A megabyte is 12 days of audio, and the server answers each quarter of a second of it.
SECOND_A_BYTE = connect_query(encoding="pcm_mulaw", sample_rate=1)
CHATTY = Script(say("Hello"), trouble("mute", on="turn.update", chatty=True), say("there"), seed=9)


async def shake_hands(emulator: InkEmulator, path: str = f"/stt/turns/websocket?{QUERY}", *more: bytes) -> bytes:
    """The status line that a client gets for this request, which is written by hand."""
    reader, writer = await asyncio.open_connection(emulator.host, emulator.port)
    head = f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    key = f"Sec-WebSocket-Key: {'A' * 22}==\r\nSec-WebSocket-Version: 13\r\n"
    writer.write((head + key).encode() + b"".join(line + b"\r\n" for line in more) + b"\r\n")
    line = await reader.readline()
    writer.close()
    return line


def is_harmless(line: str) -> bool:
    return not any(unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") for char in line)


@in_a_loop
async def test_f57_no_line_of_the_log_has_a_control_character_of_a_client(caplog: pytest.LogCaptureFixture) -> None:
    log: list[str] = []
    async with InkEmulator(CALL, speed=FAST, log=log.append) as emulator:
        keyterm = quote(f"a+{HOSTILE}")
        async with connect(f"{emulator.url}?{QUERY}&keyterm={keyterm}") as socket:
            await socket.send(HOSTILE)
            await until(socket, "error")
            await socket.send(json.dumps({"type": HOSTILE}, ensure_ascii=False))
            await until(socket, "error")
            await socket.close(1000, "\x1b[2J")
        for change in (("8000", f"8000&turn_end_threshold={quote(HOSTILE)}"), ("ink-2", quote(HOSTILE))):
            async with connect(f"{emulator.url}?{QUERY.replace(*change)}") as socket:
                await rest(socket)
        await shake_hands(emulator, "/\x1b[2J\u202e")
        await shake_hands(emulator, "/stt/turns/websocket", b"Origin: http://\x9b2J\xe2\x80\xae.example")
        await shake_hands(emulator, "/stt/turns/websocket", b"\x1b[2J: \x1b[2J")
        _, garbage = await asyncio.open_connection(emulator.host, emulator.port)
        garbage.write(b"\x1b[2J\x00\xff\r\n\r\n")
        garbage.close()
    assert sum("connection 0: gets " in line for line in log) == 2
    assert sum("pwned" in line for line in log) >= 4
    assert sum("refused with HTTP 40" in line for line in log) == 2
    assert all(is_harmless(line) for line in log)
    assert caplog.records == []


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("https://evil.example", b"403"),
        ("null", b"403"),  # a page in a sandbox, or a file
        ("http://localhost.evil.example", b"403"),
        ("http://[::1", b"403"),
        ("http://localhost:3000", b"101"),
        ("http://127.0.0.1", b"101"),
        ("http://[::1]:8080", b"101"),
        ("https://app.example", b"101"),
        ("http://app.example", b"403"),
    ],
)
@in_a_loop
async def test_f57_a_web_page_from_elsewhere_is_refused(origin: str, status: bytes) -> None:
    """A browser lets every page open a WebSocket to this machine, and says only in `Origin` whose page it is."""
    log: list[str] = []
    async with InkEmulator(CALL, origins=["https://app.example"], log=log.append) as emulator:
        line = await shake_hands(emulator, f"/stt/turns/websocket?{QUERY}", f"Origin: {origin}".encode())
        twice = [b"Origin: http://localhost", f"Origin: {origin}".encode()]
        both = await shake_hands(emulator, f"/stt/turns/websocket?{QUERY}", *twice)
    assert line.split()[1] == status
    assert both.split()[1] in (status, b"400")
    assert any(f"refused with HTTP 403: a web page from {origin}" in line for line in log) == (status == b"403")


@in_a_loop
async def test_f57_a_frame_that_is_too_long_ends_its_connection() -> None:
    log: list[str] = []
    async with calling(CALL, max_frame=1000, log=log.append) as (socket, _):
        await socket.send(bytes(1000))
        await socket.send(bytes(1001))
        await rest(socket)
        assert socket.protocol.close_code == 1009
    assert log[-1] == "connection 0: closed after 0.12 s of audio, because a frame had more than 1000 bytes"


@in_a_loop
async def test_f57_an_idle_connection_is_closed() -> None:
    log: list[str] = []
    async with calling(CALL, idle_timeout=0.2, log=log.append) as (socket, _):
        for _ in range(5):
            await socket.send(bytes(800))
            await asyncio.sleep(0.1)
        assert socket.protocol.close_code is None
        await rest(socket)
        assert (close := socket.protocol.close_rcvd) is not None
        assert (close.code, close.reason) == (1000, "idle")
    assert log[-1] == "connection 0: closed after 0.50 s of audio, because no frame came for 0.2 s"


@in_a_loop
async def test_f57_a_client_that_never_reads_is_idle_and_costs_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server cannot send to it, so it does not read from it either: what the client sends stays with the client.
    While it closes the connection it reads on, for as long as a close may take, and keeps nothing."""
    monkeypatch.setattr("inkturns.testing.emulator.server.VANISH", 0.1)
    loop = asyncio.get_running_loop()
    closed: asyncio.Future[str] = loop.create_future()

    def log(line: str) -> None:
        if "closed after" in line:
            closed.set_result(line)

    async with InkEmulator(CHATTY, speed=FAST, idle_timeout=0.5, log=log) as emulator:
        _, writer = await by_hand(emulator, SECOND_A_BYTE)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        frame, taken, begin = b"\x82\xfe\xff\xff" + bytes(4 + 65535), 0, loop.time()  # masked
        with suppress(ConnectionError):
            while not closed.done() and loop.time() < begin + 10:
                writer.write(frame)
                drained: asyncio.Future[Any] = asyncio.ensure_future(writer.drain())
                await asyncio.wait(list[asyncio.Future[Any]]([closed, drained]), return_when="FIRST_COMPLETED")
                taken += len(frame) if loop.time() < begin + 0.5 else 0
        assert loop.time() < begin + 10  # it was closed by the server
        writer.transport.abort()
        await asyncio.gather(drained, return_exceptions=True)
    assert re.fullmatch(
        r"connection 0: closed after \d+\.\d\d s of audio, because no frame came for 0\.5 s", closed.result()
    )
    assert taken < 100_000_000  # what the system's buffers hold


@in_a_loop
async def test_f57_one_connection_too_many_is_refused() -> None:
    log: list[str] = []
    async with InkEmulator(CALL, max_connections=2, log=log.append) as emulator:
        url = f"{emulator.url}?{QUERY}"
        async with connect(url), connect(url):
            with pytest.raises(InvalidStatus) as caught:
                await connect(url)
            assert caught.value.response.status_code == 429
        async with connect(url) as socket:
            assert kinds([await socket.recv()]) == ["connected"]
    assert "refused with HTTP 429: the limit of open connections, 2, is reached" in log


@in_a_loop
async def test_f57_sockets_that_say_nothing_are_limited_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inkturns.testing.emulator.server.HANDSHAKES", 2)
    async with InkEmulator(CALL, max_connections=2) as emulator:
        silent = [await asyncio.open_connection(emulator.host, emulator.port) for _ in range(6)]
        cut = [asyncio.create_task(reader.read()) for reader, _ in silent]
        done, _ = await asyncio.wait(cut, timeout=5, return_when=asyncio.FIRST_COMPLETED)
        while len(done) < 2:
            done, _ = await asyncio.wait(cut, timeout=0.1)
        assert len(done) == 2
        for _, writer in silent:
            writer.close()
        await asyncio.wait(cut)


@in_a_loop
async def test_f57_much_audio_in_one_frame_does_not_hold_up_the_others() -> None:
    async with (
        InkEmulator([CHATTY, CALL], speed=FAST) as emulator,
        connect(f"{emulator.url}?{SECOND_A_BYTE}", max_queue=1) as greedy,
        connect(f"{emulator.url}?{QUERY}", max_queue=None) as other,
    ):
        await greedy.send(bytes(1 << 20))
        await talk(other, 10)
        await until(other, "turn.end")
        assert emulator.connections[0].seconds < 1 << 20
        greedy.transport.abort()


@pytest.mark.parametrize("name", ["speed", "max_frame", "idle_timeout", "max_connections"])
def test_limits_that_are_none_are_refused(name: str) -> None:
    options: dict[str, Any] = {name: 0}
    with pytest.raises(ValueError, match=f"InkEmulator: {name} must be above 0, got 0"):
        InkEmulator(CALL, **options)


# -- lawful, through sockets


@in_a_loop
async def test_lawful_scripts_give_no_report_through_a_socket() -> None:
    for seed in range(60):
        turns, oracle = Turns(), Oracle(lawful=True)
        for frame in await heard(conversation(seed, 4)):
            oracle.step(decode(frame), turns.feed(frame))
        assert turns.machine.turn is None


# -- the storm


async def storm_session(url: str, given: Policy) -> tuple[str | None, list[tuple[Frame, tuple[Action, ...]]]]:
    """One call in a storm: its request_id, and what came, with what Turns made of it."""
    turns, oracle = Turns(given), Oracle()
    trace: list[tuple[Frame, tuple[Action, ...]]] = []
    try:
        async with connect(f"{url}?{QUERY}", compression=None) as socket:

            async def user() -> None:
                await talk(socket, 36, 3)
                await say_to(socket, close_command())

            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(user())
                for frame in await rest(socket):
                    trace.append((frame, turns.feed(frame)))
                    oracle.step(event_of(frame), trace[-1][1])
    except InvalidStatus:
        pass
    actions = turns.feed(Disconnected())
    oracle.step(Disconnected(), actions)
    trace.append(("", actions))
    ids = (json.loads(frame)["request_id"] for frame, _ in trace if isinstance(frame, str) and "request_id" in frame)
    return next(ids, None), trace


def words_of(sent: Iterable[tuple[float, Any]]) -> list[str]:
    """The texts that stand: events' (no garbage's), and not revised by a later one of their turn."""
    events = [event_of(out) for _, out in sent if not isinstance(out, Closing)]
    texts = [(event.turn_id, event.transcript) for event in events if getattr(event, "transcript", "").strip()]
    return [
        text
        for i, (turn, text) in enumerate(texts)
        if all(later.startswith(text) for other, later in texts[i + 1 :] if other == turn)
    ]


@in_a_loop
async def test_a_storm_loses_no_word(caplog: pytest.LogCaptureFixture, full: bool) -> None:
    """Each text that the emulator sent, and did not take back, is or begins the text of a turn that was answered or
    abandoned, or stands in a report; no exception; no task left."""
    met, sessions = Counter[str](), 2000 if full else 50
    async with InkEmulator(lambda number: troubled_conversation(number, 2), speed=FAST) as emulator:
        results: list[tuple[str | None, list[tuple[Frame, tuple[Action, ...]]]]] = []

        async def caller(first: int) -> None:
            for number in range(first, sessions, 16):
                policy = Policy(after_disconnect=AfterDisconnect.RESPOND if number % 2 else AfterDisconnect.ABANDON)
                results.append(await storm_session(emulator.url, policy))

        async with asyncio.TaskGroup() as tasks:
            for first in range(16):
                tasks.create_task(caller(first))
        sent = {session.request_id: session.sent for session in emulator.connections}
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []  # the server's
    assert len(results) == sessions
    assert len(sent) > 0.9 * sessions
    for request_id, trace in results:
        kept, reported = list[str](), list[str]()
        for action in (action for _, actions in trace for action in actions):
            if isinstance(action, Respond | Abandon):
                kept.append(action.turn.transcript)
                met[str(action.turn.end)] += 1
            elif isinstance(action, Report):
                met[action.kind] += 1
                reported.append(getattr(action.event, "transcript", ""))
        for text in words_of(sent.get(request_id, ())) if request_id else ():
            met["words"] += 1
            assert text in reported or any(whole.startswith(text) for whole in kept)
    assert {"server", "lost", "empty", "superseded"} <= met.keys()
    assert {R.LATE, R.MISSED_START, R.MISSED_END, R.BAD_FRAME, R.SERVER_ERROR, R.DUPLICATE_START} <= met.keys()
    assert met["words"] > 5 * sessions


# -- the SDK


def client(emulator: InkEmulator) -> AsyncCartesia:
    return AsyncCartesia(api_key="none", websocket_base_url=emulator.base_url)


async def through_the_sdk(script: Script, *, raw: bool) -> list[tuple[Action, ...]]:
    turns, made = Turns(), list[tuple[Action, ...]]()
    async with InkEmulator(script, speed=FAST) as emulator, client(emulator) as cartesia:
        websocket = cartesia.stt.auto_finalize.websocket(
            model="ink-2", encoding="pcm_mulaw", sample_rate=8000, keyterm=["Mill Road", "naïve"],
            turn_start_threshold=0.85, turn_eager_end_threshold=0.8, turn_end_threshold=0.3, turn_end_timeout_ms=5600,
        )  # fmt: skip
        async with websocket as connection:
            for _ in range(30):
                await connection.send_raw(bytes(8000))
            await connection.send({"type": "close"})
            try:
                while True:
                    made.append(turns.feed(await connection.recv_bytes() if raw else await connection.recv()))
            except ConnectionClosed:
                made.append(turns.feed(Disconnected()))
    return made


@pytest.mark.parametrize("seed", range(10))
@in_a_loop
async def test_the_sdks_objects_and_its_raw_frames_give_the_same_actions(seed: int) -> None:
    troubles = (trouble("garbage", on="turn.update", kind="unknown"), trouble("error", on="turn.eager_end", status=429))
    for script in (conversation(seed), Script(*troubles, *conversation(seed, 2).parts, seed=seed)):
        objects, raw = [await through_the_sdk(script, raw=raw) for raw in (False, True)]
        # the same, but for what only a report quotes
        assert len(objects) == len(raw) > 5
        for one, other in zip(objects, raw, strict=True):
            assert one == other


@pytest.mark.parametrize("seed", range(5))
@in_a_loop
async def test_the_sdks_objects_and_its_raw_frames_drive_an_agent_alike(seed: int) -> None:
    async def told(raw: bool) -> list[tuple[object, ...]]:
        agent, heard = Agent(), list[tuple[object, ...]]()
        agent.on_think(lambda turn: heard.append(("think", turn.number, turn.transcript)))
        agent.on_cancel(lambda turn, reason: heard.append(("cancel", turn.number, reason)))
        agent.on_end(lambda turn: heard.append(("end", turn.number, turn.transcript, turn.end)))
        agent.on_abandon(lambda turn: heard.append(("abandon", turn.number, turn.transcript, turn.end)))
        async with InkEmulator(conversation(seed), speed=FAST) as emulator, client(emulator) as cartesia:
            websocket = cartesia.stt.auto_finalize.websocket(model="ink-2", encoding="pcm_mulaw", sample_rate=8000)
            async with websocket as connection:

                async def frames() -> AsyncIterator[bytes]:
                    with suppress(ConnectionClosed):
                        while True:
                            yield await connection.recv_bytes()

                await connection.send_raw(bytes(240_000))
                await connection.send({"type": "close"})
                await agent.run(frames() if raw else connection)
        return heard

    assert await told(raw=True) == await told(raw=False) != []


@in_a_loop
async def test_the_sdk_says_a_space_in_a_keyterm_as_a_plus_and_the_log_says_so() -> None:
    """SDK 4.2.0, httpx 0.28; a later one may mend it."""
    log: list[str] = []
    async with InkEmulator(CALL, log=log.append) as emulator, client(emulator) as cartesia:
        websocket = cartesia.stt.auto_finalize.websocket(
            model="ink-2", encoding="pcm_s16le", sample_rate=16000, keyterm=["Mill Road"]
        )
        async with websocket as connection:
            assert (await connection.recv()).type == "connected"
            plus = "+" in str(connection._connection.request.path)  # type: ignore[union-attr]
    assert [line.partition('"')[2].partition('"')[0] for line in log if "keyterm" in line] == ["Mill+Road"] * plus


@in_a_loop
async def test_garbage_makes_the_sdks_iterator_raise_which_is_a_lost_connection() -> None:
    turns = Turns()
    script = Script(trouble("garbage", on="turn.update"), BOOK, seed=9)
    async with InkEmulator(script, speed=FAST) as emulator, client(emulator) as cartesia:
        websocket = cartesia.stt.auto_finalize.websocket(model="ink-2", encoding="pcm_mulaw", sample_rate=8000)
        async with websocket as connection:
            await connection.send_raw(bytes(80_000))
            with pytest.raises(json.JSONDecodeError):
                [turns.feed(event) async for event in connection]
    assert ends(turns.feed(Disconnected())) == [LOST]


# -- as a fixture


def test_a_fixture_gives_an_emulator_to_tests_that_are_not_async(ink_emulator: Callable[..., InkEmulator]) -> None:  # noqa: F811
    from websockets.sync.client import connect as connect_now

    emulator = ink_emulator(CALL, speed=FAST)
    with connect_now(f"{emulator.url}?{QUERY}") as socket:
        socket.send(bytes(80_000))
        socket.send(close_command())
        assert kinds(socket)[-1] == "turn.end"
