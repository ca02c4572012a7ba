"""Sound on its way to the server: the queue that threads fill, what waits for a connection, and silence.

Rules of this file: no socket. Whatever waits is bounded, and the oldest is dropped first: a caller is better served by
a gap than by an answer that comes ever later. A Backlog gives whole samples, because half a sample turns everything
after it into noise.
"""

import asyncio
import threading
from collections import deque
from contextlib import suppress
from typing import Self

__all__ = ["WIDTHS", "Backlog", "Sound", "silence"]

WIDTHS = {"pcm_s16le": 2, "pcm_s32le": 4, "pcm_f16le": 2, "pcm_f32le": 4, "pcm_mulaw": 1, "pcm_alaw": 1}  # bytes
QUIET = {"pcm_mulaw": b"\xff", "pcm_alaw": b"\xd5"}  # G.711's zero; the others' is all zeros
WAITING = 1 << 20  # bytes that a Sound holds while nobody reads: 32 s of 16-bit sound at 16 kHz


def silence(encoding: str, samples: int) -> bytes:
    """Returns `samples` samples of silence in this encoding."""
    return QUIET.get(encoding, bytes(WIDTHS[encoding])) * samples


class Backlog:
    """Sound that waits to be sent: at most `limit` bytes, the newest. `width` is the size of a sample in bytes: whole
    samples are dropped, so that what follows is no noise."""

    def __init__(self, limit: int, width: int) -> None:
        self._limit, self._width = limit - limit % width, width
        self._chunks: deque[bytes] = deque()
        self._rest = b""  # the beginning of a sample, until the next chunk completes it
        self.size = 0

    def whole(self, chunk: bytes) -> bytes:
        """Returns the chunk as whole samples. It begins with the bytes that the last chunk left over; bytes at its own
        end that make no whole sample wait for the next chunk."""
        if self._rest or len(chunk) % self._width:
            chunk = self._rest + chunk
            cut = len(chunk) - len(chunk) % self._width
            chunk, self._rest = chunk[:cut], chunk[cut:]
        return chunk

    def rest(self) -> bytes:
        """Returns the bytes that are left over, the beginning of a sample, and forgets them."""
        rest, self._rest = self._rest, b""
        return rest

    def put(self, chunk: bytes) -> int:
        """Adds whole samples; returns how many bytes of the oldest were dropped for them."""
        if chunk:
            self._chunks.append(chunk)
        self.size += len(chunk)
        excess = max(0, self.size - self._limit)
        over = excess = excess + -excess % self._width
        while over:
            oldest = self._chunks.popleft()
            if over < len(oldest):
                self._chunks.appendleft(oldest[over:])
            over -= min(over, len(oldest))
        self.size -= excess
        return excess

    def pop(self) -> bytes:
        """Removes the oldest chunk and returns it."""
        chunk = self._chunks.popleft()
        self.size -= len(chunk)
        return chunk

    def clear(self) -> int:
        """Drops everything; returns how many bytes that were."""
        size, self.size = self.size, 0
        self._chunks.clear()
        return size


class Sound:
    """A queue of sound, for callbacks and threads: `put` each chunk of the microphone or the telephone, and `end` it
    when the caller has hung up. Give it to `ink.connect`, which reads it.

    While nobody reads it holds at most 1 MiB: the oldest bytes are dropped, and `dropped` counts them."""

    def __init__(self) -> None:
        self.dropped = 0
        self._waiting = Backlog(WAITING, 4)  # whole samples of every encoding
        self._ended = False
        self._lock = threading.Lock()
        self._waiter: asyncio.Future[None] | None = None

    def put(self, chunk: bytes | bytearray | memoryview) -> None:
        """Adds a copy of the chunk, since a microphone may use its buffer again; after `end` it does nothing. From any
        thread."""
        if not isinstance(chunk, bytes | bytearray | memoryview):
            raise TypeError(f"Sound.put: chunk must be bytes, got {type(chunk).__name__}")
        with self._lock:
            if self._ended:
                return
            self.dropped += self._waiting.put(bytes(chunk))
        self._wake()

    def end(self) -> None:
        """The caller has hung up. Chunks that were put before are still read. From any thread, any number of times."""
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        with self._lock:
            waiter, self._waiter = self._waiter, None
        if waiter is not None:
            with suppress(RuntimeError):  # its loop is closed: nobody waits any more
                waiter.get_loop().call_soon_threadsafe(_done, waiter)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while True:
            with self._lock:
                if self._waiting.size:
                    return self._waiting.pop()
                if self._ended:
                    raise StopAsyncIteration
                if self._waiter is not None and not self._waiter.done():
                    raise RuntimeError("a Sound has one reader at a time")
                self._waiter = waiter = asyncio.get_running_loop().create_future()
            await waiter


def _done(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():  # its reader was cancelled
        waiter.set_result(None)
