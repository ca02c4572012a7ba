"""Removes calls from recordings, whole: a person asked for it, or the time for which they may be kept is over.

Rules of this file: a recording is replaced at once, by a new file that is written beside it, or not at all; the lines
of the other calls stay as they are, byte for byte; a recording that is being written, or that cannot be read to its
end, is left as it is, and that is an error.
"""

import gzip
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import attrs
import msgspec

from inkturns.lines import locked
from inkturns.report.paths import GZIP, UnreadError, is_read_once, lines_of

__all__ = ["Purged", "purge_file"]

BOM = b"\xef\xbb\xbf"  # which some editors put before the first line


@attrs.frozen
class Purged:
    """What was done to a recording.

    removed, kept   how many calls
    is_gone         whether the file is gone, since nothing was left of it
    unknown         lines with a header that cannot be read: nobody knows whose calls these are, and they stay"""

    removed: int
    kept: int
    is_gone: bool
    unknown: tuple[int, ...]


def purge_file(name: str, unwanted: Callable[[dict[str, Any]], bool], *, dry: bool = False) -> Purged:
    """Removes the calls whose header is `unwanted` from a recording. `dry`: only says what it would do. Raises
    UnreadError where the file cannot be read, is being written, or cannot be replaced."""
    if is_read_once(name) or "://" in name:
        raise UnreadError(name, "calls can be removed from files of this machine only")
    path = Path(os.path.realpath(name))  # a link stays a link
    try:
        if dry:
            return _sorted(name, unwanted, None)
        with locked(path):
            return _replaced(name, path, unwanted)
    except OSError as error:
        raise UnreadError(name, error.strerror or str(error)) from None


def _replaced(name: str, path: Path, unwanted: Callable[[dict[str, Any]], bool]) -> Purged:
    with path.open("rb") as file:
        packed = file.read(2) == GZIP
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as beside:
        try:
            if packed:
                with gzip.GzipFile(fileobj=beside, mode="wb", mtime=0) as out:
                    done = _sorted(name, unwanted, out.write)
            else:
                done = _sorted(name, unwanted, beside.write)
            beside.flush()
            os.fsync(beside.fileno())
            if done.is_gone:
                path.unlink()
            elif done.removed:
                shutil.copymode(path, beside.name)
                Path(beside.name).replace(path)
            return done
        finally:
            Path(beside.name).unlink(missing_ok=True)


def _sorted(name: str, unwanted: Callable[[dict[str, Any]], bool], keep: Callable[[bytes], object] | None) -> Purged:
    removed, kept, is_empty, unknown, is_wanted = 0, 0, True, list[int](), True
    for number, line, header in _with_headers(lines_of(name)):
        if header is not None:
            is_wanted = not unwanted(header)
            removed, kept = removed + (not is_wanted), kept + is_wanted
            if not header:
                unknown.append(number)
        if is_wanted:
            is_empty = is_empty and not line.strip()
            if keep is not None:
                keep(line)
    return Purged(removed, kept, is_empty and bool(removed), tuple(unknown))


def _with_headers(lines: Iterable[bytes]) -> Iterator[tuple[int, bytes, dict[str, Any] | None]]:
    """Each line with its number, and the header where it is one: {} where that cannot be read."""
    for number, line in enumerate(lines, 1):
        header = None
        if b'"inkturns"' in line:
            try:
                values = msgspec.json.decode(line.removeprefix(BOM))
                header = values if isinstance(values, dict) and "inkturns" in values else None
            except (ValueError, RecursionError):
                header = {} if line.removeprefix(BOM).lstrip().startswith(b'{"inkturns"') else None
        yield number, line, header
