"""What the paths of a command stand for: recordings, and their lines.

Rules of this file: a path that cannot be found and a file that cannot be read are an UnreadError with a name and a
reason, whatever went wrong; the other paths are read. A file that cannot be read to its end is unread as a whole: no
call of it is counted, and none is counted twice. What a file holds decides, not its name: gzip has its first two bytes.

A path is a file, a directory (its recordings, however deep), a pattern (`calls/2026-*.jsonl`, `**` for any depth), `-`
for standard input, or a URL of any of these (`s3://bucket/calls/`), which fsspec reads (extra `fleet`).
"""

# A Path would change the names that a user gave.
# ruff: noqa: PTH110, PTH112, PTH113, PTH118, PTH123, PTH207

import gzip
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from glob import glob, has_magic
from importlib import import_module
from typing import IO, Any

import attrs

from inkturns.reader import OnError
from inkturns.report.calls import RecordedCall, calls_of

__all__ = ["ENDINGS", "Found", "UnreadError", "calls_in", "find", "is_read_once", "lines_of"]

ENDINGS = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz")  # of the recordings in a directory
GZIP = b"\x1f\x8b"


class UnreadError(Exception):
    """A path or a file that cannot be read. `name` is the path, `reason` a sentence about it."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)  # both: an exception is pickled with its arguments, and comes back from a worker
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


@attrs.frozen
class Found:
    """`names`: the recordings, each once, in order. `unread`: the paths that stand for none."""

    names: list[str]
    unread: list[UnreadError]


def find(paths: Iterable[str]) -> Found:
    """Finds the recordings of these paths. Nothing is opened."""
    names: dict[str, str] = {}  # a file that two paths name is read once
    unread: list[UnreadError] = []
    for path in paths:
        try:
            some = _of_url(path) if "://" in path else _of_path(path, unread)
            names |= {os.path.realpath(name) if _is_local(name) else name: name for name in some}
        except UnreadError as error:
            unread.append(error)
        except Exception as error:  # a store may raise anything
            unread.append(UnreadError(path, _said(error)))
    return Found([*names.values()], unread)


def lines_of(name: str) -> Iterator[bytes]:
    """The lines of a recording, unpacked where it is gzip. Raises UnreadError where it cannot be opened, or read any
    further."""
    try:
        with _opened(name) as file:
            start = file.peek(2)[:2] if hasattr(file, "peek") else file.read(2)
            if not hasattr(file, "peek"):
                file.seek(0)
            if start == GZIP:
                with gzip.open(file) as unpacked:
                    yield from unpacked
            else:
                yield from file
    except UnreadError:
        raise
    except Exception as error:  # zlib's, a store's: none of them is an OSError
        raise UnreadError(name, _said(error)) from None


def calls_in(name: str, on_error: OnError) -> Iterator[RecordedCall]:
    """The calls of a recording. Raises UnreadError as `lines_of` does; a line that cannot be read is for `on_error`."""
    return calls_of(lines_of(name), on_error)


def is_read_once(name: str) -> bool:
    """Whether it is gone once it is read: standard input, a pipe. Opening a pipe again may wait without end."""
    return name == "-" or (_is_local(name) and os.path.exists(name) and not os.path.isfile(name))


def _is_local(name: str) -> bool:
    return name != "-" and "://" not in name


def _opened(name: str) -> Any:
    if name == "-":
        return nullcontext(sys.stdin.buffer)
    if "://" in name:
        file: IO[bytes] = _fsspec(name).open(name, "rb")
        return file
    return open(name, "rb")  # `lines_of` closes it


def _of_path(path: str, unread: list[UnreadError]) -> Iterable[str]:
    if path == "-" or os.path.isfile(path):  # a name with a bracket is a file before it is a pattern
        return [path]
    if os.path.isdir(path):
        return _in_directory(path, unread)
    if os.path.exists(path):  # a pipe
        return [path]
    found = sorted(glob(path, recursive=True)) if has_magic(path) else []
    if not found:
        raise UnreadError(path, "no file matches this" if has_magic(path) else "no such file or directory")
    names: list[str] = []
    for one in found:
        try:
            names += _in_directory(one, unread) if os.path.isdir(one) else _files([one], unread)
        except UnreadError as error:
            unread.append(error)
    return names


def _files(names: Iterable[str], unread: list[UnreadError]) -> list[str]:
    """The names without the pipes and devices among them: nobody named these, and reading one may never end."""
    files: list[str] = []
    for name in names:
        if os.path.exists(name) and not os.path.isfile(name):
            unread.append(UnreadError(name, "this is no file; a pipe is read where its own name is given"))
        else:
            files.append(name)
    return files


def _in_directory(path: str, unread: list[UnreadError]) -> list[str]:
    """The recordings in it. A directory in it that cannot be read goes to `unread`."""
    before, found = len(unread), list[str]()

    def fail(error: OSError) -> None:
        unread.append(UnreadError(str(error.filename), _said(error)))

    for folder, folders, files in os.walk(path, onerror=fail):
        folders.sort()
        found += _files((os.path.join(folder, name) for name in sorted(files) if name.endswith(ENDINGS)), unread)
    if not found and len(unread) == before:
        raise UnreadError(path, f"no recordings in it; their names end in {' or '.join(ENDINGS)}")
    return found


def _fsspec(name: str) -> Any:
    try:
        fsspec: Any = import_module("fsspec")
    except ImportError:
        raise UnreadError(name, 'a URL needs fsspec: pip install "inkturns[fleet]"') from None
    return fsspec


def _of_url(url: str) -> list[str]:
    store, path = _fsspec(url).core.url_to_fs(url)
    if store.isfile(path):
        return [url]
    if has_magic(path):
        found = sorted(one for one in store.glob(path) if store.isfile(one))
        reason = "no file matches this"
    else:
        found = sorted(one for one in store.find(path) if one.endswith(ENDINGS))
        reason = f"no recordings there; their names end in {' or '.join(ENDINGS)}"
    if not found:
        raise UnreadError(url, reason)
    return [str(store.unstrip_protocol(one)) for one in found]


def _said(error: Exception) -> str:
    """What went wrong, without the name, which stands before it."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {error}" if not isinstance(error, EOFError) else "cut short"
