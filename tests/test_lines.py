"""F56: a file of whole lines. One writer at a time; a line that was not taken is an error; nothing waits."""

import errno
import gc
import io
import multiprocessing
import os
import stat
import subprocess
import sys
import time
from collections import deque
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inkturns.errors import RecordingWarning
from inkturns.lines import FAR, LineFile


class Grudging(io.RawIOBase):
    """A raw file that takes of each write what it is told to, and then what is left of it."""

    def __init__(self, takes: list[Any]) -> None:
        self.takes = iter(takes)
        self.got = b""

    def write(self, data: Any) -> Any:
        takes = next(self.takes, len(data))
        if isinstance(takes, int) and takes > 0:
            self.got += bytes(data[:takes])
            return min(takes, len(data))
        return takes


# -- whole lines


@given(st.lists(st.integers(1, 5)), st.lists(st.binary(max_size=20), max_size=5))
def test_f56_a_file_that_takes_its_lines_in_parts_gets_them_whole(takes: list[int], lines: list[bytes]) -> None:
    file = Grudging(takes)
    out = LineFile(file)  # type: ignore[arg-type]
    for line in lines:
        out.append(line)
    out.close()
    assert file.got == b"".join(line + b"\n" for line in lines)


@pytest.mark.parametrize(
    ("answer", "why"),
    [(None, "takes no more"), (0, "got 0"), (-1, "got -1"), (9, "got 9"), ("2", "got '2'"), (2.0, r"got 2\.0")],
)
def test_f56_a_line_that_was_not_taken_whole_is_an_error(answer: Any, why: str) -> None:
    class Vague(io.BytesIO):
        def write(self, data: Any) -> Any:
            return answer

    for takes in ([answer], [1, answer]):
        file = Vague() if answer == 9 else Grudging(takes)
        with closing(LineFile(file)) as out, pytest.raises(OSError, match=why):  # type: ignore[arg-type]
            out.append(b"line")


def test_f56_a_pipe_that_is_full_is_an_error_and_nothing_waits(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    out = LineFile(pipe)
    out.append(b"first")
    began = time.monotonic()
    with pytest.raises(BlockingIOError, match="takes no more"):
        deque(map(out.append, [b"x" * 1000] * 10_000), maxlen=0)
    assert time.monotonic() - began < 5
    got = os.read(reader, 1 << 20)
    assert got.startswith(b"first\n" + b"x" * 1000 + b"\n")
    out.close()
    os.close(reader)


def test_f56_a_pipe_that_nobody_reads_is_refused_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="nobody reads this pipe") as refused:
        LineFile(pipe)
    assert refused.value.filename == str(pipe)


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        LineFile(tmp_path / "no" / "file")


@pytest.mark.parametrize("there", [b"", b"whole\n", b"whole\nhalf"])
def test_a_line_that_a_killed_writer_left_is_ended_first(tmp_path: Path, there: bytes) -> None:
    path = tmp_path / "lines"
    path.write_bytes(there)
    with closing(LineFile(path)) as out:
        out.append(b"next")
    assert path.read_bytes() == there + (b"\n" if there.endswith(b"half") else b"") + b"next\n"


def test_f56_a_new_file_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    new, old = tmp_path / "new", tmp_path / "old"
    old.touch(mode=0o644)
    before = os.umask(0)
    try:
        for path in new, old:
            LineFile(path).close()
    finally:
        os.umask(before)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (new, old)] == [0o600, 0o644]


# -- one writer


def test_f56_a_second_writer_is_refused_until_the_first_has_closed(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    first = LineFile(str(path))
    first.append(b"first")
    with pytest.raises(BlockingIOError, match="another recorder writes into this file") as refused:
        LineFile(path)
    assert refused.value.filename == str(path)
    first.append(b"still first")
    first.close()
    with closing(LineFile(path)) as second:
        second.append(b"second")
    assert path.read_bytes() == b"first\nstill first\nsecond\n"


def test_f56_a_writer_that_nobody_holds_any_more_keeps_nobody_out(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    LineFile(path).append(b"first")
    gc.collect()
    LineFile(path).close()


OTHER = """
import sys
from inkturns.lines import LineFile
try:
    LineFile(sys.argv[1]).append(b"other")
except BlockingIOError:
    print("refused")
"""


def other_process(path: Path) -> str:
    return subprocess.run([sys.executable, "-c", OTHER, path], capture_output=True, text=True, check=True).stdout


def test_f56_a_writer_of_another_process_is_refused_too(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    with closing(LineFile(path)):
        assert other_process(path) == "refused\n"
    assert other_process(path) == ""
    assert path.read_bytes() == b"other\n"


def _die_writing(path: str) -> None:
    LineFile(path).append(b"dead")
    os.kill(os.getpid(), 9)


def test_f56_a_killed_writer_keeps_nobody_out(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    process = multiprocessing.get_context("spawn").Process(target=_die_writing, args=(str(path),))
    process.start()
    process.join()
    assert process.exitcode == -9
    with closing(LineFile(path)) as out:
        out.append(b"alive")
    assert path.read_bytes() == b"dead\nalive\n"


def test_f56_an_open_file_has_one_writer_too() -> None:
    file = io.BytesIO()
    first = LineFile(file)
    with pytest.raises(BlockingIOError, match="another recorder"):
        LineFile(file)
    first.close()
    with closing(LineFile(file)) as second:
        second.append(b"second")
    assert file.getvalue() == b"second\n"
    assert not file.closed


def test_an_open_file_that_is_owned_is_closed_and_any_other_is_not() -> None:
    for owned in (True, False):
        file = io.BytesIO()
        out = LineFile(file, owned=owned)
        out.close()
        out.close()
        assert file.closed == owned


def test_a_device_is_for_everybody() -> None:
    with closing(LineFile(os.devnull)) as first, closing(LineFile(os.devnull)) as second:
        first.append(b"first")
        second.append(b"second")


# -- where there are other locks, or none


class Windows:
    """`msvcrt.locking`, as far as it is used: a byte from the current position on is one descriptor's."""

    LK_NBLCK = 2

    def __init__(self) -> None:
        self.locked: dict[tuple[int, int], int] = {}

    def locking(self, descriptor: int, mode: int, count: int) -> None:
        assert (mode, count, os.lseek(descriptor, 0, os.SEEK_CUR)) == (self.LK_NBLCK, 1, FAR)
        about = os.fstat(descriptor)
        if self.locked.setdefault((about.st_dev, about.st_ino), descriptor) != descriptor:
            raise PermissionError(errno.EACCES, "Permission denied")


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> Windows:
    windows = Windows()
    monkeypatch.setitem(sys.modules, "fcntl", None)  # its import fails
    monkeypatch.setitem(sys.modules, "msvcrt", windows)
    monkeypatch.delattr(os, "O_NONBLOCK")
    return windows


def test_f56_windows_has_one_writer_too(windows: Windows, tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"before\nhalf")
    with closing(LineFile(path)) as first:
        first.append(b"first")
        with pytest.raises(BlockingIOError, match="another recorder writes into this file"):
            LineFile(path)
    assert path.read_bytes() == b"before\nhalf\nfirst\n"
    assert len(windows.locked) == 1


def test_f56_a_file_system_without_locks_is_warned_of_and_written_to(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setitem(sys.modules, "fcntl", SimpleNamespace(flock=flock, LOCK_EX=2, LOCK_NB=4))
    path = tmp_path / "lines"
    with pytest.warns(RecordingWarning, match="cannot be locked .*No locks available"):
        out = LineFile(path)
    with closing(out):
        out.append(b"line")
    assert path.read_bytes() == b"line\n"
