"""A file that takes whole lines, from one writer at a time.

Rules of this file (F56): a line that was not taken whole is an error, never silence; nothing waits for anything but the
disk; no clock, loop, thread or logger.
"""

import errno
import os
import stat
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from inkturns.errors import RecordingWarning

__all__ = ["LineFile", "locked"]

FAR = 1 << 40  # Windows keeps others from reading a locked byte: one past the end of any recording
TAKEN = (
    errno.EAGAIN,
    errno.EWOULDBLOCK,
    errno.EACCES,
    errno.EDEADLK,
)  # flock gives the first two, Windows the last two

_in_use: set[int] = set()  # the ids of the open files that were given to a LineFile, and are not closed yet


class LineFile:
    """Appends lines to a path, which it opens and locks, or to an open binary file.

    Raises OSError where a path cannot be opened, where another writer has it, and for a pipe that nobody reads. A new
    file is readable by its owner alone. Two LineFiles may not have the same open file at a time.
    """

    def __init__(self, file: str | os.PathLike[str] | IO[bytes], *, owned: bool = False) -> None:
        """`owned`: `close` closes an open file, too."""
        if isinstance(file, str | os.PathLike):
            self._file, owned = _opened(Path(file)), True
        elif id(file) in _in_use:
            raise BlockingIOError(errno.EWOULDBLOCK, "another recorder writes into this file")
        else:
            self._file = file
        self._owned = owned
        _in_use.add(id(self._file))
        # Also when it is garbage: its lock would keep the next writer out.
        self.close = weakref.finalize(self, _close, self._file, owned)

    def append(self, line: bytes) -> None:
        """Writes a line, and the newline that ends it. Raises OSError where the file does not take all of it."""
        rest = line + b"\n"
        while rest:
            taken: object = self._file.write(rest)
            if taken is None:  # as io.RawIOBase says that it would have to wait
                raise BlockingIOError(
                    errno.EWOULDBLOCK,
                    "write() returned None: the file takes no more now, or does not say how many bytes it took",
                )
            if not isinstance(taken, int) or not 0 < taken <= len(rest):
                raise OSError(errno.EIO, f"write() must return how many of {len(rest)} bytes it took, got {taken!r}")
            rest = rest[taken:]
        self._file.flush()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keeps writers out of a file, which is left as it is. Raises OSError where it cannot be opened, and
    BlockingIOError where another writer has it."""
    with path.open("r+b") as file:
        _lock(file.fileno(), path)
        yield


def _close(file: IO[bytes], owned: bool) -> None:
    _in_use.discard(id(file))
    if owned:
        file.close()


def _opened(path: Path) -> IO[bytes]:
    regular = path.is_file() or not path.exists()  # its last byte can be read
    try:
        file: IO[bytes] = open(path, "a+b" if regular else "ab", 0, opener=_open_without_waiting)  # noqa: SIM115
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise OSError(errno.ENXIO, "nobody reads this pipe; start its reader first", str(path)) from None
        raise
    try:
        if not stat.S_ISCHR(os.fstat(file.fileno()).st_mode):  # /dev/null is for everybody
            _lock(file.fileno(), path)
        # A writer that was killed may have left half a line.
        if regular and file.seek(0, os.SEEK_END) and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
            file.write(b"\n")
    except BaseException:
        file.close()
        raise
    return file


def _open_without_waiting(path: str, flags: int) -> int:
    """Opening a pipe, or writing into a full one, never waits for its reader (Windows has no such pipes)."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o600)


def _lock(descriptor: int, path: Path) -> None:
    """Keeps other writers out until the file is closed, or its process ends however it does."""
    try:
        try:
            fcntl: Any = import_module("fcntl")
        except ImportError:  # Windows
            msvcrt: Any = import_module("msvcrt")
            os.lseek(descriptor, FAR, os.SEEK_SET)  # it locks from the current position on
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in TAKEN:
            raise BlockingIOError(error.errno, "another recorder writes into this file", str(path)) from None
        warnings.warn(
            RecordingWarning(f"{path} cannot be locked ({error}): see to it that nothing else writes into it"),
            stacklevel=5,
        )
