"""Wav: a WAV file's sound, chunk by chunk, in an encoding that Ink 2 takes.

Rules of this file: the file may be a pipe, so it is read once, forwards; a header's lengths are believed only as far as
the file goes. Nothing is converted, but that two channels are mixed into one.
"""

import os
import stat
import struct
import sys
from typing import BinaryIO, Self

import attrs

from inkturns.ink.sound import WIDTHS

__all__ = ["CHUNK", "Wav", "WavError"]

CHUNK = 0.1  # seconds of sound in a frame: the vendor's advice
FASTEST = 384_000  # samples a second; a header that says more is broken
EXTENSIBLE = 0xFFFE  # the format stands further behind
ENCODINGS = {
    (1, 16): "pcm_s16le",
    (1, 32): "pcm_s32le",
    (3, 16): "pcm_f16le",
    (3, 32): "pcm_f32le",
    (6, 8): "pcm_alaw",
    (7, 8): "pcm_mulaw",
}
SAMPLES = {"pcm_s16le": "h", "pcm_s32le": "i", "pcm_f16le": "e", "pcm_f32le": "f"}  # that can be mixed


class WavError(ValueError):
    """Why a file cannot be sent, as one sentence."""


@attrs.define(eq=False)
class Wav:
    """`open` reads the header, `chunk` the sound. `seconds` is None where the header does not know."""

    encoding: str
    rate: int
    channels: int
    seconds: float | None
    _file: BinaryIO
    _left: float  # bytes, at most
    failed: OSError | None = None  # why it cannot be read any further

    @classmethod
    def open(cls, name: str) -> Self:
        """`-` is standard input. Raises WavError where it is not a WAV file that Ink 2 can take."""
        try:
            file = sys.stdin.buffer if name == "-" else open(name, "rb")  # noqa: PTH123, SIM115  closed by `close`
        except OSError as error:
            raise WavError(f"{name}: {error.strerror}") from None
        try:
            return cls._read(name, file)
        except BaseException:
            file.close()
            raise

    @classmethod
    def _read(cls, name: str, file: BinaryIO) -> Self:
        how = f"; make one with: ffmpeg -i {name} -ac 1 -c:a pcm_s16le out.wav"
        try:
            form, size = _chunks(file)
            tag, channels, rate, _, _, bits = struct.unpack("<HHIIHH", form[:16])
            if tag == EXTENSIBLE:
                (tag,) = struct.unpack("<H", form[24:26])
        except OSError as error:
            raise WavError(f"{name}: {error.strerror}") from None
        except (EOFError, struct.error) as error:
            raise WavError(f"{name}: this is not a WAV file ({str(error) or 'it is cut short'}){how}") from None
        encoding = ENCODINGS.get((tag, bits))
        what = None
        if encoding is None:
            what = f"its samples are of format {tag} with {bits} bits, which Ink 2 does not take"
        elif channels != 1 and not (channels == 2 and encoding in SAMPLES):
            what = f"it has {channels} channels of {encoding}; one is taken, or two that are linear"
        elif not 0 < rate <= FASTEST:
            what = f"its sample rate is {rate}"
        elif not size:
            what, how = "it holds no sound", ""
        if what is not None or encoding is None:
            raise WavError(f"{name}: {what}{how}")
        known: float = size
        if stat.S_ISREG((info := os.fstat(file.fileno())).st_mode):
            known = min(size, info.st_size - file.tell())
        elif size >= 0x7FFFF000:  # what programs write into a pipe, for they cannot know
            known = float("inf")
        seconds = None if known == float("inf") else known / (WIDTHS[encoding] * channels) / rate
        return cls(encoding, rate, channels, seconds, file, known)

    def chunk(self) -> bytes:
        """The next tenth of a second; empty at the end, also where that is a failure."""
        frame = WIDTHS[self.encoding] * self.channels
        try:
            data = self._file.read(int(min(self._left, max(1, int(self.rate * CHUNK)) * frame)))
        except OSError as error:
            self.failed, data = error, b""
        self._left -= len(data)
        data = data[: len(data) - len(data) % frame]
        if self.channels == 1:
            return data
        kind = SAMPLES[self.encoding]
        samples = struct.unpack(f"<{len(data) // WIDTHS[self.encoding]}{kind}", data)
        pairs = zip(samples[::2], samples[1::2], strict=True)
        mixed = [(left + right) // 2 if kind in "hi" else (left + right) / 2 for left, right in pairs]
        return struct.pack(f"<{len(mixed)}{kind}", *mixed)

    def close(self) -> None:
        self._file.close()


def _chunks(file: BinaryIO) -> tuple[bytes, int]:
    """What the `fmt ` chunk holds, and the size of the `data` chunk, at which the file then stands."""
    riff, _, wave = struct.unpack("<4sI4s", _exactly(file, 12))
    if (riff, wave) != (b"RIFF", b"WAVE"):
        raise EOFError("it does not begin with RIFF and WAVE")
    form = b""
    while True:
        name, size = struct.unpack("<4sI", _exactly(file, 8))
        if name == b"data":
            if not form:
                raise EOFError("it does not say its format")
            return form, size
        if size > 1 << 20:
            raise EOFError(f"a part of {size} bytes stands before the sound")
        content = _exactly(file, size + size % 2)
        if name == b"fmt ":
            form = content


def _exactly(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise EOFError
    return data
