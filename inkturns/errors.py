"""What inkturns raises. Nothing here comes out of `feed` because of what came over the wire.

InkturnsError
├── DecodeError      (a ValueError)       a frame that cannot be read
├── OutageError      (a ConnectionError)  Ink 2 could not be reached for too long
├── RecordingError   (a ValueError)       a line of a recording that cannot be read
└── RefusedError                          Ink 2 does not take this call
RecordingWarning                     a recorder that left something out, or writes no more
"""

import sys

__all__ = [
    *("DecodeError", "InkturnsError", "OutageError", "RecordingError", "RecordingWarning", "RefusedError"),
    "is_failure",
]

QUOTED = 80  # characters of a bad frame that an error's message shows at most


class InkturnsError(Exception):
    """The base of every error here. Wrong arguments raise TypeError or ValueError instead."""


class DecodeError(InkturnsError, ValueError):
    """A frame that cannot be read. `reason` says why and names the field, and never holds the caller's words;
    the message is the reason and a quote of the frame, at most 80 characters of it."""

    def __init__(self, reason: str, frame: str = "") -> None:
        super().__init__(reason, frame)
        self.reason = reason
        self.quote = frame if len(frame) <= QUOTED else frame[: QUOTED - 1] + "…"

    def __str__(self) -> str:
        return f"{self.reason}: {self.quote}" if self.quote else self.reason


class RecordingError(InkturnsError, ValueError):
    """A recording, or one line of it, that cannot be read; `line` is its number, from 1, where there is one."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason, line)
        self.reason = reason
        self.line = line

    def __str__(self) -> str:
        return self.reason if self.line is None else f"line {self.line}: {self.reason}"


class RefusedError(InkturnsError):
    """Ink 2 refuses a connection, and would refuse the next one too: a key, a plan, a setting. The message has the
    server's sentence. `status` is the HTTP status or the `error`'s, 1008 where the connection was closed with that
    code, None where the address leads nowhere or its certificate is not trusted."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class OutageError(InkturnsError, ConnectionError):
    """There was no connection to Ink 2 for longer than the call waits (`Ink.give_up`); the message says why."""


class RecordingWarning(UserWarning):
    """A recorder has failed (a full disk, say) and writes no more, or has left a note out. The call goes on."""


def is_failure(error: BaseException) -> bool:
    """Whether what a synchronous function of the user raised is a failure: an Exception, or asyncio's CancelledError.
    Such a function awaits nothing, so no cancellation reaches it; a future that it asked has raised it (F55)."""
    asyncio = sys.modules.get("asyncio")  # not imported: the loop, if there is one, is the application's
    return isinstance(error, Exception) or (asyncio is not None and isinstance(error, asyncio.CancelledError))
