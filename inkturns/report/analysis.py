"""Any number of recordings to one Fleet, on this machine's cores or on a cluster.

Rules of this file: a task reads some recordings whole, and gives their fleet; each task's result is added once, in the
order of the paths. A recording that cannot be read, or whose worker was lost (twice, here), is counted as unread. What
is held at a time does not grow with the number of recordings.
"""

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import suppress
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import attrs
import msgspec

from inkturns.errors import RecordingError
from inkturns.reader import TruncatedError
from inkturns.report.fleet import Fleet
from inkturns.report.paths import UnreadError, find, lines_of
from inkturns.report.question import Question
from inkturns.report.rows import TurnRow
from inkturns.report.turns import calls_in_rows

__all__ = ["Hearing", "analyse", "row_lines"]

SMALL = 8_000_000  # bytes of recordings that are read sooner than processes start
TASKS = 16  # tasks for each process, so that none waits long for the last one
MOST = 64  # recordings in a task
NAMED = 10  # faults of a recording that are named
HELD = 1000  # calls of a recording whose rows are held
AHEAD = 4  # tasks for each process that are given out at a time


@attrs.define(kw_only=True)
class Hearing:
    """Who is told what while recordings are read.

    unread     a recording, or a path, that cannot be read
    fault      a recording, and a line of it that cannot be read: the first ten of each
    rows       the rows of a recording, or of a part of it, as JSON lines; None: they are not made
    progress   how many recordings are read, of how many"""

    unread: Callable[[UnreadError], object] = lambda error: None
    fault: Callable[[str, RecordingError], object] = lambda name, error: None
    rows: Callable[[bytes], object] | None = None
    progress: Callable[[int, int], object] = lambda done, of: None


@attrs.define
class _Part:
    """What came of a task."""

    fleet: Fleet
    unread: list[UnreadError] = attrs.field(factory=list)
    faults: list[tuple[str, RecordingError]] = attrs.field(factory=list)
    rows: list[bytes] = attrs.field(factory=list)
    lost: bool = False


def analyse(
    paths: Iterable[str | os.PathLike[str]],
    executor: Executor | None = None,
    jobs: int | None = None,
    *,
    question: Question | None = None,
    hearing: Hearing | None = None,
) -> Fleet:
    """The figures of all recordings that `paths` stand for: files, directories, patterns, URLs, "-".

    executor   where they are read: any of concurrent.futures', or dask's `Client(address).get_executor()`, whose
               workers have to reach the paths. Without one: `jobs` processes (as many as there are cores, and none for
               a few megabytes). A script that calls this needs its `if __name__ == "__main__":`, as with every process
    question   which calls count, and how; all of them
    hearing    whom to tell what; `Fleet.unread` and `Fleet.faults` count in any case

    Raises ValueError for `jobs` below 1."""
    if jobs is not None and jobs < 1:
        raise ValueError(f"jobs must be 1 or more, got {jobs}")
    asked, told = question or Question(), hearing or Hearing()
    found = find(os.fspath(path) for path in paths)
    total = Fleet(asked.by, asked.cluster)
    _take(total, _Part(Fleet(asked.by, asked.cluster), unread=found.unread), told)
    done = 0
    for names, part in _parts(found.names, asked, told.rows is not None, executor, jobs):
        _take(total, part, told)
        done += names
        told.progress(done, len(found.names))
    return total


def row_lines(rows: Iterable[TurnRow], file: str) -> bytes:
    """Rows as JSON lines with all their fields and the recording's name, for whatever asks more of them (DuckDB)."""
    lines = []
    for row in rows:
        values = msgspec.structs.asdict(row)
        values["thoughts"] = [msgspec.structs.asdict(thought) for thought in row.thoughts]
        lines.append(msgspec.json.encode({"file": file, **values}) + b"\n")
    return b"".join(lines)


def _take(total: Fleet, part: _Part, told: Hearing) -> None:
    total += part.fleet
    total.unread += len(part.unread)
    for error in part.unread:
        told.unread(error)
    for name, fault in part.faults:
        told.fault(name, fault)
    if told.rows is not None:
        for rows in part.rows:
            told.rows(rows)


# -- one task


def _read(names: list[str], asked: Question, with_rows: bool) -> _Part:
    part = _Part(Fleet(asked.by, asked.cluster))
    for name in names:
        one = _One(name, asked, with_rows)
        try:
            one.read()
        except UnreadError as error:  # nothing of it counts
            part.unread.append(error)
        else:
            one.add_to(part)
    return part


@attrs.define
class _One:
    """A recording that is read. Its rows are held until it is known that all of it can be read; those of a long one are
    summed up meanwhile."""

    name: str
    asked: Question
    with_rows: bool
    held: list[list[TurnRow]] = attrs.field(factory=list)
    fleet: Fleet | None = None
    undated: int = 0
    faults: int = 0
    named: list[tuple[str, RecordingError]] = attrs.field(factory=list)
    lines: list[bytes] = attrs.field(factory=list)

    def read(self) -> None:
        for rows in calls_in_rows(lines_of(self.name), self._fault):
            counted, undated = self.asked.of(rows)
            self.undated += undated
            self.held.append(counted)
            if self.with_rows and counted:
                self.lines.append(row_lines(counted, self.name))
            if len(self.held) == HELD:
                self.fleet = self.fleet or Fleet(self.asked.by, self.asked.cluster)
                self._add_held(self.fleet)

    def add_to(self, part: _Part) -> None:
        self._add_held(part.fleet)
        if self.fleet is not None:
            part.fleet += self.fleet
        part.fleet.left_out += self.undated
        part.fleet.faults += self.faults
        part.faults += self.named
        part.rows += self.lines

    def _add_held(self, fleet: Fleet) -> None:
        for rows in self.held:
            fleet.add(rows, self.name)
        self.held.clear()

    def _fault(self, error: RecordingError) -> None:
        self.faults += not isinstance(error, TruncatedError)
        if len(self.named) < NAMED:
            self.named.append((self.name, error))


# -- all tasks


def _parts(
    names: list[str], asked: Question, with_rows: bool, executor: Executor | None, jobs: int | None
) -> Iterator[tuple[int, _Part]]:
    """The parts, each with how many recordings it is about."""
    cores = jobs or os.cpu_count() or 1
    alone = executor is None and (cores == 1 or (jobs is None and _are_small(names)))
    for name in names:
        if alone or name == "-":  # standard input is this process's own
            yield 1, _read([name], asked, with_rows)
    rest = [] if alone else [name for name in names if name != "-"]
    size = min(MOST, max(1, len(rest) // (cores * TASKS)))
    waiting = deque(rest[at : at + size] for at in range(0, len(rest), size))
    give = partial(_given_out, asked=asked, with_rows=with_rows)
    if executor is not None:
        for task, part in give(executor, waiting, cores * AHEAD, on=True):
            yield len(task), part
        return
    suspects: deque[list[str]] = deque()  # what was given out when a process was lost; any of it may be the reason
    while waiting:
        with _pool(min(cores, len(waiting))) as pool:
            for task, part in give(pool, waiting, cores * AHEAD, on=False):
                if part.lost:
                    suspects.extend([name] for name in task)
                else:
                    yield len(task), part
    while suspects:
        with _pool(1) as pool:
            for task, part in give(pool, suspects, 1, on=False):
                yield len(task), part


def _given_out(
    executor: Executor, waiting: deque[list[str]], ahead: int, *, on: bool, asked: Question, with_rows: bool
) -> Iterator[tuple[list[str], _Part]]:
    """Each task with its part, in order; at most `ahead` are given out at a time. Once one is lost, the others go on
    only if `on`: our own pool takes no more then."""
    running: deque[tuple[list[str], Future[_Part]]] = deque()
    while running or waiting:
        while waiting and len(running) < ahead:
            task = waiting.popleft()
            running.append((task, _submitted(executor, task, asked, with_rows)))
        task, future = running.popleft()
        try:
            part = future.result()
        except Exception as error:  # BrokenProcessPool, dask's KilledWorker, anything that a cluster raises
            reason = f"the process that read it was lost: {type(error).__name__}: {error}".removesuffix(": ")
            unread = [UnreadError(name, reason) for name in task]
            part = _Part(Fleet(asked.by, asked.cluster), unread, lost=True)
            ahead = ahead if on else 0
        yield task, part
        if not ahead and not running:
            return


def _submitted(executor: Executor, task: list[str], asked: Question, with_rows: bool) -> Future[_Part]:
    try:
        return executor.submit(_read, task, asked, with_rows)
    except Exception as error:  # it was lost meanwhile
        failed: Future[_Part] = Future()
        failed.set_exception(error)
        return failed


def _pool(jobs: int) -> ProcessPoolExecutor:
    """The terminal sends Ctrl-C to all processes; this one ends the others."""
    no_ctrl_c = (signal.SIGINT, signal.SIG_IGN)
    return ProcessPoolExecutor(jobs, get_context("spawn"), initializer=signal.signal, initargs=no_ctrl_c)


def _are_small(names: list[str]) -> bool:
    size = 0
    for name in names:
        with suppress(OSError):  # `_read` says so
            size += SMALL if "://" in name else 0 if name == "-" else Path(name).stat().st_size
        if size >= SMALL:
            return False
    return True
