"""`inkturns timeline`: the picture of one recorded call, as a page, a still or a trace.

Rules of this file: what is wrong with a file is one sentence on standard error, `file:line: what`, and the rest of the
file is still drawn; no words unless they are asked for.
"""

import webbrowser
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from inkturns.cli.stderr import refuse, say
from inkturns.errors import RecordingError
from inkturns.printable import printable
from inkturns.reader import TruncatedError, raise_unless_truncated
from inkturns.report.calls import RecordedCall, calls_of
from inkturns.report.page import page
from inkturns.report.paths import UnreadError, calls_in
from inkturns.report.picture import Picture
from inkturns.report.sketch import picture_of
from inkturns.report.still import still
from inkturns.report.trace import trace

__all__ = ["show_last", "still_of", "timeline"]

Writer = Callable[[Picture], str | bytes]
WRITERS: dict[str, Writer] = {".html": page, ".svg": still, ".json": trace}
NAMED = 10  # calls, or faults, of a file that has more


def timeline(
    recording: Annotated[str, typer.Argument(metavar="CALL", help="A recording, gzip or not; -: standard input.")],
    out: Annotated[
        str | None,
        typer.Option(
            "--out", "-o", metavar="FILE", help="call.html: a page; call.svg: a still; call.json: a trace for Perfetto."
        ),
    ] = None,
    call: Annotated[
        str | None,
        typer.Option(
            metavar="ID", help="Which call, where the file has several: its id, or 1, 2, … for the first, the second."
        ),
    ] = None,
    words: Annotated[bool, typer.Option("--words", help="Show what was said; otherwise it is redacted.")] = False,
    show: Annotated[bool, typer.Option("--open", help="Open the page or the still in the browser.")] = False,
) -> None:
    """Draw one recorded call: the user, the thoughts, the replies, and how long the user waited for each reply.

    Without -o the page is written to the current directory, named after CALL."""
    name = "call" if recording == "-" else Path(recording.removesuffix(".gz")).stem
    target = Path(f"{name}.html" if out is None else out)
    writer = WRITERS.get(target.suffix.lower())
    if writer is None:
        refuse(f"-o {target}: the name must end in .html, .svg or .json")
    if show and writer is trace:
        refuse(f"--open: a browser shows no {target.suffix}; open {target} in https://ui.perfetto.dev")
    if "\0" in f"{recording}{out}":
        refuse(f"{recording if out is None else out}: no file's name has a null character")
    with suppress(OSError):  # one of them is not there
        if target.samefile(recording):
            refuse(f"-o {target}: this is the recording itself; name another file")
    calls, faults = _read(recording)
    _draw(recording, _chosen(recording, calls, call), target, writer, words=words)
    if show:
        _show(target)
    raise typer.Exit(2 if faults else 0)


def show_last(recording: str) -> None:
    """Draws the last call of a recording, with its words, beside the recording, and opens the page."""
    if not Path(recording).is_file():
        refuse(f"--open: {recording} cannot be read back; record to a file")
    calls, _ = _read(recording)
    target = Path(recording).with_suffix(".html")
    _draw(recording, _chosen(recording, calls[-1:], None), target, page, words=True)
    _show(target)


def still_of(lines: Iterable[bytes]) -> str:
    """The first call of a recording as a still, with its words."""
    return still(picture_of(next(calls_of(lines, raise_unless_truncated)), words=True))


def _show(path: Path) -> None:
    """Opens a file in the browser. Without a browser it says where the file is."""
    if not webbrowser.open(path.resolve().as_uri()):
        say(f"no browser could be opened; the picture is {path}")


def _read(recording: str) -> tuple[list[RecordedCall], int]:
    """The calls, and how many lines could not be read; the first few are named."""
    faults: list[RecordingError] = []

    def fault(error: RecordingError) -> None:
        if isinstance(error, TruncatedError) or len(faults) < NAMED:
            say(f"{recording}:{error.line}: {error.reason}")
        if not isinstance(error, TruncatedError):
            faults.append(error)

    try:
        calls = list(calls_in(recording, fault))
    except UnreadError as error:
        refuse(str(error))
    if len(faults) > NAMED:
        say(f"{recording}: {len(faults) - NAMED} more lines could not be read")
    return calls, len(faults)


def _chosen(recording: str, calls: list[RecordedCall], wanted: str | None) -> RecordedCall:
    names = [str(n) if one.name is None else one.name for n, one in enumerate(calls, 1)]
    if not calls:
        refuse(f"{recording}: no call was recorded in it")
    listed = ", ".join(names[:NAMED]) + (" …" if len(names) > NAMED else "")
    if wanted is None and len(calls) > 1:
        refuse(f"{recording} has {len(calls)} calls ({listed}); choose one with --call ID, or --call 2 for the second")
    places = [*names, *map(str, range(1, len(calls) + 1))]  # an id before a place
    if wanted is not None and wanted not in places:
        refuse(f"--call {wanted}: {recording} has no such call; it has {listed}")
    return calls[0 if wanted is None else places.index(wanted) % len(calls)]


def _draw(recording: str, call: RecordedCall, target: Path, writer: Writer, *, words: bool) -> None:
    try:
        drawn = writer(picture_of(call, words=words))
    except RecordingError as error:
        refuse(f"{recording}: {error.reason}")
    data = drawn.encode() if isinstance(drawn, str) else drawn
    try:
        target.write_bytes(data)
    except OSError as error:
        refuse(f"-o {target}: {error.strerror}")
    typer.echo(printable(f"{target}: {max(1, round(len(data) / 1000))} kB"))
