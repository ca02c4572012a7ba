"""Ink's client on one connection: what is said and heard, sound that is not as it should be, silence, settings."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request

from inkturns.ink import Sound
from inkturns.ink import client as the_client
from inkturns.ink.sound import WIDTHS, silence
from inkturns.settings import BALANCED, PATIENT, TurnSettings
from inkturns.testing.emulator import InkEmulator, Script, say
from tests.ink_calls import (
    RATE,
    Frame,
    Line,
    SocketLoop,
    answering,
    cut,
    heard,
    kinds,
    mulaw,
    now,
    run,
    says,
    serving,
    silent,
    speech,
    spoken,
)

# -- one connection


@pytest.mark.parametrize("encoding", WIDTHS)
@pytest.mark.parametrize("chunk", [3, *(pytest.param(one, marks=pytest.mark.full) for one in (1, 160, 1601))])
def test_what_is_said_arrives_to_the_letter(encoding: str, chunk: int) -> None:
    width = WIDTHS[encoding]
    data = speech(chunk / 100 if chunk < 160 else 0.4, width) + b"\x01"  # half a sample at the end of the wide ones

    async def call() -> None:
        async with serving(line := Line()) as url:
            ink = mulaw(url, encoding=encoding)
            await heard(ink, spoken(data, chunk, RATE * width))
            assert line.sound == data
            assert line.commands == ['{"type":"close"}']
            assert ink.stats.sent == pytest.approx(len(data) // width / RATE)
            assert (ink.stats.dropped, ink.stats.losses, ink.stats.connections) == (0, 0, 1)

    run(call())


def test_what_was_said_while_the_connection_was_made_is_not_lost() -> None:
    async def call() -> None:
        async def slow(socket: ServerConnection, request: Request) -> None:
            await asyncio.sleep(0.5)

        data = speech(1)
        async with serving(line := Line(), process_request=slow) as url:
            ink = mulaw(url)
            await heard(ink, spoken(data))
            assert line.sound == data
            assert ink.stats.kept == pytest.approx(0.5, abs=0.03)

    run(call())


def test_frames_come_as_they_came_and_in_order() -> None:
    async def call() -> None:
        script = Script(say("Hello there."), say("A table for two, please."))
        async with InkEmulator(script) as emulator:
            frames = await heard(mulaw(emulator.url, settings=BALANCED), spoken(speech(script.seconds)))
            (connection,) = emulator.connections
            assert [frame for _, frame in frames] == [out for _, out in connection.sent if isinstance(out, str)]
            assert kinds(frames).count("turn.end") == 2

    run(call())


def test_the_first_lines_of_the_readme(monkeypatch: pytest.MonkeyPatch) -> None:
    async def call() -> None:
        script = Script(say("Hello there."))
        async with InkEmulator(script) as emulator:
            monkeypatch.setattr("inkturns.ink.client.LIVE", emulator.url)
            names: dict[str, Any] = {}
            exec(compile(code, "README.md", "exec"), names)
            turns: list[str] = []
            names["agent"].on_end(lambda turn: turns.append(turn.transcript))
            answered = asyncio.create_task(names["answer"]("key"))
            async for chunk in spoken(speech(script.seconds)):
                names["sound"].put(chunk)
            names["sound"].end()
            await answered
            assert turns == ["Hello there."]

    readme = (Path(the_client.__file__).parent / "README.md").read_text()
    code = re.findall(r"^```python\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)[0]
    run(call())


def test_the_address_says_what_was_asked_for() -> None:
    async def call() -> str:
        async with serving(line := Line()) as url:
            ink = mulaw(url + "?region=eu", settings=TurnSettings(end_threshold=0.4), keyterms=["Ink 2"], model="ink-2")
            await heard(ink, spoken(speech(0.1)))
            return line.requests[0].path.partition("?")[2]

    assert run(call()) == (
        "region=eu&model=ink-2&encoding=pcm_mulaw&sample_rate=8000&cartesia_version=2026-08-14"
        "&keyterm=Ink%202&turn_end_threshold=0.4"
    )


def test_the_key_and_more_headers_are_sent() -> None:
    async def call() -> None:
        async with serving(line := Line()) as url:
            ink = mulaw(url, api_key="secret", options={"additional_headers": {"X-Trace": "7"}})
            await heard(ink, spoken(speech(0.1)))
            headers = line.requests[0].headers
            assert (headers["X-API-Key"], headers["X-Trace"]) == ("secret", "7")
            assert "permessage" not in headers.get("Sec-WebSocket-Extensions", "")
            assert "secret" not in repr(ink)

    run(call())


# -- sound that is not as it should be


class BrokenError(Exception):
    pass


def test_a_sound_that_raises_ends_the_call_with_that() -> None:
    async def breaks() -> AsyncIterator[bytes]:
        async for chunk in spoken(speech(1)):
            yield chunk
        raise BrokenError

    async def call() -> None:
        last = [{"type": "turn.end", "transcript": "Bye."}]
        async with serving(Line(at_close=last)) as url:
            frames: list[tuple[float, Frame]] = []
            with pytest.raises(BrokenError):
                await heard(mulaw(url), breaks(), frames)
            assert kinds(frames) == ["connected", "turn.end"]  # the last words too

    run(call())


def test_a_sound_that_is_cancelled_from_elsewhere_is_an_error() -> None:
    async def cancelled() -> AsyncIterator[bytes]:
        yield b"sound"
        raise asyncio.CancelledError

    async def call() -> None:
        async with serving(Line()) as url:
            with pytest.raises(RuntimeError, match="sound raised CancelledError") as error:
                await heard(mulaw(url), cancelled())
            assert isinstance(error.value.__cause__, asyncio.CancelledError)

    run(call())


class UnawareError(BaseException):
    pass


@pytest.mark.parametrize("error", [BrokenError, UnawareError])
def test_a_sound_that_cannot_even_begin_ends_the_call_with_that(error: type[BaseException]) -> None:
    class Sounds:
        def __aiter__(self) -> AsyncIterator[bytes]:
            raise error

    async def call() -> None:
        async with serving(Line()) as url:
            with pytest.raises(error):
                await asyncio.wait_for(heard(mulaw(url), Sounds()), 60)

    run(call())


@pytest.mark.parametrize("chunk", [b"", bytes(400)])
def test_a_sound_that_never_waits_does_not_hold_up_the_loop(chunk: bytes) -> None:
    """A file read to its end gives b"" for ever."""

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(20_000):
            yield chunk
        raise AssertionError("nobody else had a turn")

    async def call() -> None:
        async with serving(line := Line()) as url, mulaw(url).connect(endless()) as frames:
            assert isinstance(await anext(frames), str)
            assert len(line.sound) <= 20_000 * len(chunk) / 2

    run(call())


def test_a_sound_of_something_else_is_refused() -> None:
    async def words() -> AsyncIterator[Any]:
        yield "hello"

    async def call() -> None:
        async with serving(Line()) as url:
            with pytest.raises(TypeError, match="sound must be an async iterable of bytes, got str"):
                await heard(mulaw(url), words())
            with pytest.raises(TypeError, match="got list"):
                await heard(mulaw(url), [b"sound"])

    run(call())


def test_sound_in_other_bytes_and_in_none() -> None:
    async def sound() -> AsyncIterator[Any]:
        await asyncio.sleep(0.1)
        reused = bytearray(b"one ")
        yield reused
        reused[:] = b"two "
        yield memoryview(reused)
        yield b""

    async def call() -> None:
        async with serving(line := Line()) as url:
            await heard(mulaw(url), sound())
            assert line.sound == b"one two "

    run(call())


def test_a_caller_who_says_nothing_stays_connected_until_the_block_is_left() -> None:
    async def call() -> None:
        async with serving(line := Line()) as url:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(heard(mulaw(url), silent()), 600)
            assert line.sound == b""

    run(call())


def test_a_sound_that_does_not_end_when_it_is_cancelled_is_left(caplog: pytest.LogCaptureFixture) -> None:
    async def call() -> None:
        released = asyncio.Event()

        async def stuck() -> AsyncIterator[bytes]:
            try:
                await asyncio.sleep(100)
            finally:
                await released.wait()
            yield b""

        async with serving(Line()) as url:
            async with mulaw(url, close_timeout=2).connect(stuck()) as frames:
                await anext(frames)
            assert now() == pytest.approx(2)
            released.set()
            await asyncio.sleep(0.01)

    run(call())
    assert "the sound has not ended 2 s after it was cancelled" in caplog.text


def test_the_sounds_generator_is_closed() -> None:
    async def call() -> None:
        closed: list[bool] = []

        async def sound() -> AsyncIterator[bytes]:
            try:
                async for chunk in spoken(speech(10)):
                    yield chunk
            finally:
                closed.append(True)

        async with serving(Line()) as url, mulaw(url).connect(sound()) as frames:
            await anext(frames)
            await asyncio.sleep(1)
        assert closed == [True]

    run(call())


def test_leaving_the_block_ends_the_connection_whoever_reads_it() -> None:
    async def call() -> None:
        async with serving(Line()) as url:
            async with mulaw(url).connect(silent()) as frames:
                assert isinstance(await anext(frames), str)
                reader = asyncio.ensure_future(anext(frames))
                await asyncio.sleep(1)
            with pytest.raises(StopAsyncIteration):
                await reader
            async with mulaw("ws://127.0.0.1:1").connect(silent()) as frames:  # the same in an outage
                reader = asyncio.ensure_future(anext(frames))
                await asyncio.sleep(1)
            with pytest.raises(StopAsyncIteration):
                await reader

    run(call())


def test_a_block_that_is_cancelled_twice_leaves_no_socket() -> None:
    async def call() -> None:
        async def stays(socket: ServerConnection) -> None:
            socket.transport.pause_reading()
            await asyncio.sleep(5)

        async def talk() -> None:
            await heard(mulaw(url), silent())

        async with serving(stays) as url:
            task = asyncio.create_task(talk())
            await asyncio.sleep(1)
            task.cancel()
            await asyncio.sleep(1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    run(call())


# -- silence


@pytest.mark.parametrize("encoding", WIDTHS)
def test_silence_fills_what_the_caller_leaves_open(encoding: str) -> None:
    async def call() -> None:
        width = WIDTHS[encoding]

        async def mutes() -> AsyncIterator[bytes]:
            async for chunk in spoken(data, 160 * width, RATE * width):
                yield chunk
            await asyncio.sleep(5)
            async for chunk in spoken(data, 160 * width, RATE * width):
                yield chunk

        data = speech(1, width)
        async with serving(line := Line()) as url:
            ink = mulaw(url, encoding=encoding, fill=True)
            await heard(ink, mutes())
            assert line.sound.startswith(data)
            assert line.sound.endswith(data)
            quiet = line.sound[len(data) : -len(data)]
            assert quiet == silence(encoding, len(quiet) // width)
            assert len(quiet) / width / RATE == pytest.approx(5, abs=0.21)
            assert ink.stats.silence == pytest.approx(len(quiet) / width / RATE)
            assert ink.stats.sent == pytest.approx(2)

    run(call())


def test_silence_keeps_to_real_time_and_stops_at_the_hang_up() -> None:
    async def call() -> None:
        sound = Sound()
        async with serving(line := Line()) as url, mulaw(url, fill=True).connect(sound) as frames:
            await anext(frames)
            for second in range(1, 11):
                await asyncio.sleep(1)
                assert len(line.sound) / RATE == pytest.approx(second, abs=0.21)
            sound.end()
            assert [frame async for frame in frames] == []
            heard_so_far = len(line.sound)
            await asyncio.sleep(5)
            assert len(line.sound) == heard_so_far

    run(call())


def test_sound_that_is_a_little_late_is_not_torn_apart() -> None:
    async def call() -> None:
        async def jittery() -> AsyncIterator[bytes]:
            random = Random(1)
            begin = now()
            for n in range(500):
                await asyncio.sleep(max(0.0, begin + n * 0.02 + random.uniform(0, 0.15) - now()))
                yield data[n * 160 : n * 160 + 160]

        data = speech(10)
        async with serving(line := Line()) as url:
            await heard(mulaw(url, fill=True), jittery())
            assert line.sound == data

    run(call())


def test_silence_after_a_loop_that_stood_still_is_no_burst() -> None:
    async def call() -> None:
        async with serving(line := Line()) as url, mulaw(url, fill=True).connect(silent()) as frames:
            await anext(frames)
            loop = asyncio.get_running_loop()
            assert isinstance(loop, SocketLoop)
            loop.jump(3600)
            await asyncio.sleep(0.1)
            assert 0 < len(line.sound) <= 2 * RATE

    run(call())


def test_silence_only_while_a_turn_is_open() -> None:
    async def call() -> None:
        async def mutes() -> AsyncIterator[bytes]:
            async for chunk in spoken(speech(1)):
                yield chunk
            await asyncio.sleep(20)

        turn = {8000: says({"type": "turn.start"}), 3 * RATE: says({"type": "turn.end", "transcript": "Hello."})}
        async with serving(line := Line(dict(turn))) as url:
            ink = mulaw(url, fill="open_turn")
            assert kinds(await heard(ink, mutes())) == ["connected", "turn.start", "turn.end"]
            assert len(line.sound) / RATE == pytest.approx(3, abs=0.21)
            assert ink.stats.silence == pytest.approx(2, abs=0.21)

    run(call())


def test_no_silence_in_an_outage() -> None:
    async def call() -> None:
        async with serving(
            line := Line({8000: cut}), process_request=answering((503, {"Retry-After": "5"}, ""), before=1)
        ) as url:
            ink = mulaw(url, fill=True)
            async with ink.connect(sound := Sound()) as frames:
                assert [frame async for frame in _until(frames, 3)]
                assert ink.stats.silence == pytest.approx(1, abs=0.21)
                await asyncio.sleep(1)
                sound.end()
                assert not [frame async for frame in frames]
            assert len(line.sound) / RATE == pytest.approx(2, abs=0.4)

    run(call())


async def _until(frames: AsyncIterator[Frame], count: int) -> AsyncIterator[Frame]:
    for _ in range(count):
        yield await anext(frames)


# -- settings, and what is known of a call


def test_new_settings_are_told_at_once_and_kept_over_a_reconnection() -> None:
    async def call() -> None:
        async with serving(line := Line({16000: cut}), line) as url:
            ink = mulaw(url, settings=PATIENT)

            async def changes() -> AsyncIterator[bytes]:
                async for at, chunk in _counted(spoken(speech(4), 800)):
                    if at == 10:
                        ink.use(TurnSettings(end_threshold=0.2))
                    yield chunk

            await heard(ink, changes())
            assert line.commands[0] == '{"type":"config","turn":{"end_threshold":0.2}}'
            assert "turn_end_threshold=0.1" in line.requests[0].path
            assert "turn_end_threshold=0.2" in line.requests[1].path
            assert "turn_end_timeout_ms=8000" in line.requests[1].path
            with pytest.raises(ValueError, match="must be below"):
                ink.use(TurnSettings(end_threshold=0.4))

    run(call())


async def _counted(chunks: AsyncIterator[bytes]) -> AsyncIterator[tuple[int, bytes]]:
    at = 0
    async for chunk in chunks:
        yield at, chunk
        at += 1


def test_settings_that_change_while_the_connection_is_made_are_told_when_it_is() -> None:
    async def call() -> None:
        async def slowly(socket: ServerConnection, request: Request) -> None:
            await asyncio.sleep(0.5)

        async with serving(line := Line(), process_request=slowly) as url:
            ink = mulaw(url, settings=PATIENT)
            async with ink.connect(spoken(speech(2), 800)) as frames:
                asyncio.get_running_loop().call_later(0.3, ink.use, TurnSettings(end_threshold=0.2))
                assert len([frame async for frame in frames]) == 1
            assert "turn_end_threshold=0.1" in line.requests[0].path
            assert line.commands == ['{"type":"config","turn":{"end_threshold":0.2}}', '{"type":"close"}']

    run(call())


def test_settings_before_the_call_and_in_an_outage() -> None:
    async def call() -> None:
        async with serving(line := Line()) as url:
            ink = mulaw(url)
            ink.use(TurnSettings(end_threshold=0.2))
            async with ink.connect(spoken(speech(1))) as frames:
                ink.use(TurnSettings(end_threshold=0.4))
                assert len([frame async for frame in frames]) == 1
            assert "turn_end_threshold=0.4" in line.requests[0].path
            assert line.commands == ['{"type":"close"}']

    run(call())


def test_the_round_trip_of_a_ping_is_known() -> None:
    async def call() -> None:
        async def lags(socket: ServerConnection) -> None:
            socket.transport.pause_reading()
            asyncio.get_running_loop().call_later(0.3, socket.transport.resume_reading)

        async with serving(Line({round(4.9 * RATE): lags})) as url:
            ink = mulaw(url)
            pings: list[float | None] = []

            async def sound() -> AsyncIterator[bytes]:
                async for chunk in spoken(speech(7), 800):
                    pings.append(ink.stats.ping)
                    yield chunk

            assert not ink.connected
            await heard(ink, sound())
            assert not ink.connected
            assert pings[0] is None
            assert pings[-1] == pytest.approx(0.2, abs=0.05)
            assert ink.stats.ping == pings[-1]

    run(call())


def test_one_ink_serves_one_call() -> None:
    async def call() -> None:
        async with serving(Line()) as url:
            ink = mulaw(url)
            await heard(ink, spoken(speech(1)))
            with pytest.raises(RuntimeError, match="one Ink serves one call"):
                await heard(ink, spoken(speech(1)))

    run(call())


async def test_on_trio_a_sentence_says_what_to_do(backend: str) -> None:
    if backend == "trio":
        with pytest.raises(RuntimeError, match=r"needs asyncio.*trio-websocket.*agent\.run"):
            await heard(mulaw("ws://127.0.0.1:1"), silent())


def test_what_happens_is_in_the_log_without_words_or_keys(caplog: pytest.LogCaptureFixture) -> None:
    async def call() -> None:
        async with serving(Line({800: cut}), process_request=answering(503)) as url:
            await heard(mulaw(url, api_key="secret"), spoken(speech(2)))

    caplog.set_level(logging.INFO, "inkturns.ink")
    run(call())
    said = [record.getMessage() for record in caplog.records if record.name == "inkturns.ink"]
    assert said == [
        "refused: HTTP 503: No.",
        "connected",
        "the connection was lost; connecting again",
        "connected",
    ]
