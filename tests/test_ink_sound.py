"""Sound on its way: what waits is bounded, whole, and the newest; a Sound is safe from threads."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inkturns.ink.sound import WIDTHS, Backlog, Sound, silence
from inkturns.settings import ENCODINGS


def test_every_encoding_has_a_width_and_a_silence() -> None:
    assert tuple(WIDTHS) == ENCODINGS
    assert {encoding: silence(encoding, 2).hex() for encoding in ENCODINGS} == {
        "pcm_s16le": "00000000",
        "pcm_s32le": "0000000000000000",
        "pcm_f16le": "00000000",
        "pcm_f32le": "0000000000000000",
        "pcm_mulaw": "ffff",
        "pcm_alaw": "d5d5",
    }


@given(st.lists(st.binary(max_size=9)), st.integers(0, 20), st.sampled_from([1, 2, 4]), st.integers(0, 3))
def test_a_backlog_is_the_newest_whole_samples(chunks: list[bytes], limit: int, width: int, pops: int) -> None:
    backlog, dropped, popped = Backlog(limit, width), 0, b""
    for at, chunk in enumerate(chunks):
        whole = backlog.whole(chunk)
        assert len(whole) % width == 0
        dropped += backlog.put(whole)
        assert backlog.size <= limit
        if at == pops and backlog.size:
            popped = backlog.pop()
    left = popped + b"".join(iter(lambda: backlog.pop() if backlog.size else b"", b""))
    rest = backlog.rest()
    assert len(rest) < width
    assert backlog.rest() == b""
    assert dropped % width == 0
    assert dropped + len(left) + len(rest) == sum(map(len, chunks))
    if not popped:
        assert b"".join(chunks).endswith(left + rest)


def test_a_backlog_is_dropped_as_a_whole_too() -> None:
    backlog = Backlog(100, 1)
    backlog.put(b"some")
    backlog.put(b"more")
    assert backlog.clear() == 8
    assert (backlog.size, backlog.clear()) == (0, 0)


async def collected(sound: Sound) -> list[bytes]:
    return [chunk async for chunk in sound]


def test_a_sound_gives_what_was_put_until_its_end() -> None:
    sound = Sound()
    sound.put(b"one")
    sound.put(b"two")
    sound.end()
    sound.end()
    sound.put(b"too late")
    assert asyncio.run(collected(sound)) == [b"one", b"two"]


def test_a_sound_is_safe_from_threads() -> None:
    async def call() -> None:
        sound = Sound()

        def speak(name: int) -> None:
            for number in range(500):
                sound.put(bytes([name]) + number.to_bytes(2))

        def all_of_them() -> None:
            threads = [threading.Thread(target=speak, args=(name,)) for name in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            sound.end()

        director = threading.Thread(target=all_of_them)
        director.start()
        chunks = await asyncio.wait_for(collected(sound), 30)
        director.join()
        assert len(chunks) == 2000
        for name in range(4):
            assert [chunk[1:] for chunk in chunks if chunk[0] == name] == [n.to_bytes(2) for n in range(500)]

    asyncio.run(call())


def test_a_sound_copies_what_is_put() -> None:
    """A microphone's callback fills the same buffer again."""
    sound, buffer = Sound(), bytearray(b"one")
    for word in (b"one", b"two"):
        buffer[:] = word
        sound.put(buffer)
    sound.put(memoryview(b"three"))
    sound.put(b"")
    sound.end()
    assert asyncio.run(collected(sound)) == [b"one", b"two", b"three"]


@pytest.mark.parametrize("chunk", [None, "sound", 7])
def test_f41_a_sound_refuses_what_is_no_sound_where_it_is_put(chunk: Any) -> None:
    sound = Sound()
    with pytest.raises(TypeError, match=f"chunk must be bytes, got {type(chunk).__name__}"):
        sound.put(chunk)
    sound.end()
    assert asyncio.run(collected(sound)) == []


@pytest.mark.parametrize("size", [801, 3, (1 << 20) + 5])
def test_a_sound_drops_whole_samples_whatever_the_size_of_a_chunk(size: int) -> None:
    """Half a sample would turn all that follows into noise; and of a chunk that is too large the end is kept."""
    sound, said = Sound(), b""
    for number in range(((1 << 20) // size) + 2):
        said += (piece := number.to_bytes(3) * (size // 3 + 1))[:size]
        sound.put(piece[:size])
    sound.end()
    left = b"".join(asyncio.run(collected(sound)))
    assert said.endswith(left)
    assert len(left) > (1 << 20) - 4
    assert sound.dropped == len(said) - len(left)
    assert sound.dropped % 4 == 0


def test_a_sound_that_nobody_reads_keeps_the_newest_mebibyte() -> None:
    sound = Sound()
    for number in range(1100):
        sound.put(number.to_bytes(2) * 512)
    sound.end()
    chunks = asyncio.run(collected(sound))
    assert len(b"".join(chunks)) == 1 << 20
    assert chunks[-1] == (1099).to_bytes(2) * 512
    assert sound.dropped == 76 * 1024


def test_a_sound_has_one_reader_who_may_be_cancelled() -> None:
    async def call() -> None:
        sound = Sound()
        reader = asyncio.ensure_future(anext(sound))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="one reader at a time"):
            await anext(sound)
        reader.cancel()
        await asyncio.wait([reader])
        sound.put(b"after")
        assert await anext(sound) == b"after"
        reader = asyncio.ensure_future(anext(sound))
        await asyncio.sleep(0)
        sound.put(b"lost on nobody")  # the reader is cancelled in the same step as it is woken
        reader.cancel()
        await asyncio.wait([reader])
        assert await anext(sound) == b"lost on nobody"

    asyncio.run(call())


def test_a_sound_outlives_its_loop() -> None:
    sound = Sound()

    async def call() -> AsyncIterator[bytes]:
        reader = asyncio.ensure_future(anext(sound))
        await asyncio.sleep(0)
        assert not reader.done()
        return sound

    loop = asyncio.new_event_loop()
    loop.run_until_complete(call())
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.close()
    sound.put(b"nobody hears it")
    sound.end()
