"""`inkturns purge`: removes calls from recordings, whole, and says what it did.

Rules of this file: it says what was removed from which file, and what could not be looked at; nothing is removed that
was not asked for.
"""

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from inkturns.cli.stderr import refuse, say
from inkturns.printable import printable

__all__ = ["purge"]


def purge(
    paths: Annotated[
        list[str], typer.Argument(metavar="PATHS", help="Recordings: files, directories, patterns.", show_default=False)
    ],
    call: Annotated[
        list[str], typer.Option(metavar="ID", help="The call with this id, or with this hash of it; may be repeated.")
    ] = [],  # noqa: B006
    older: Annotated[
        str | None, typer.Option(metavar="WHEN", help="Calls that began before 2026-01-31, or more than 30d ago.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
) -> None:
    """Remove calls from recordings, whole: the lines of other calls stay as they are. A file with no calls left goes.

    Exit code 1: one of these ids is no call's; 2: a file could not be looked at, and may still hold it."""
    from inkturns.redact import hashed
    from inkturns.report.paths import UnreadError, find
    from inkturns.report.purge import purge_file
    from inkturns.report.question import moment_of, since

    if bool(call) == (older is not None):
        refuse("give --call ID or --older WHEN, one of them")
    try:
        before = None if older is None else since(older, datetime.now(UTC))
    except ValueError as error:
        refuse(f"--older {error}")
    found, wanted = find(paths), set(call)
    undated, seen = 0, set[str]()

    def unwanted(header: dict[str, Any]) -> bool:
        nonlocal undated
        if before is None:
            if header.get("call") is None:
                return False
            name = str(header["call"])  # a number, in recordings that were not written by a Recorder
            ids = wanted & {name, hashed(name)}
            seen.update(ids)
            return bool(ids)
        started = header.get("started")
        began = moment_of(started if isinstance(started, str) else str(started))
        undated += began is None
        return began is not None and began < before

    removed = kept = files = faults = 0
    would = "would be removed" if dry_run else "removed"
    for lost in found.unread:
        faults += 1
        say(str(lost))
    for name in found.names:
        try:
            done = purge_file(name, unwanted, dry=dry_run)
        except UnreadError as error:
            faults += 1
            say(f"{error}; nothing was removed from it")
            continue
        for line in done.unknown:
            faults += 1
            say(f"{name}:{line}: this header cannot be read, so nobody knows which call it is; it stays")
        removed, kept, files = removed + done.removed, kept + done.kept, files + bool(done.removed)
        if done.removed:
            gone = "; the file goes" if done.is_gone else ""
            typer.echo(printable(f"{name}: {done.removed:,} of {done.removed + done.kept:,} calls {would}{gone}"))
    typer.echo(f"{removed:,} calls {would}, from {files:,} files; {kept:,} calls stay")
    if undated:
        say(f"of {undated:,} calls nobody knows when they began; they stay")
    missing = sorted(wanted - seen)
    for one in missing if not faults else ():  # else nobody knows
        say(f"--call {one}: there is no such call in these recordings")
    raise typer.Exit(2 if faults else 1 if missing else 0)
