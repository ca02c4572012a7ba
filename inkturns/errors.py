"""What inkturns raises. Nothing here comes out of `feed` because of what came over the wire.

InkturnsError
├── DecodeError      (a ValueError)  a frame that is none
└── RecordingError   (a ValueError)  a line of a recording that is none
RecordingWarning                     a recorder that can write no more, said once
"""

__all__ = ["DecodeError", "InkturnsError", "RecordingError", "RecordingWarning"]

QUOTED = 80  # characters of a bad frame that an error's message shows at most


class InkturnsError(Exception):
    """Whatever inkturns raises on purpose, but for wrong arguments (TypeError, ValueError)."""


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


class RecordingWarning(UserWarning):
    """A recorder has failed (a full disk, say) and writes no more. The call goes on."""
