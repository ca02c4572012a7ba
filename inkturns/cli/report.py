"""`inkturns report`: does thinking ahead pay, in these calls?

Rules of this file: standard output has the report alone; what is wrong with a file is one sentence on standard error,
and the rest is still read; no words unless they are asked for; nothing is imported before it is needed, so that --help
is quick.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inkturns.cli.options import (
    Cluster,
    HtmlOption,
    JsonOption,
    LatencyOption,
    PathsArgument,
    PricesOption,
    latency_of,
    prices_of,
    refuse_target,
)
from inkturns.cli.stderr import progress, refuse, say

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Executor

    from inkturns.report import Fleet, Question
    from inkturns.report.fleet_page import FrontierPoint
    from inkturns.report.summary import Findings, Worth

__all__ = ["html_fault", "report"]

MOST_WORTH = 1e9  # sums of larger ones are no numbers
PRIMARY = "saved.p50"

By = Annotated[
    str | None, typer.Option(metavar="LABEL", help="Tell arms apart: by a label, or by policy, settings or source.")
]
Since = Annotated[
    str | None, typer.Option(metavar="WHEN", help="Only calls that began since: 2026-01-31, or 30d, 12h, 90m ago.")
]
Where = Annotated[
    list[str],
    typer.Option(metavar="LABEL=VALUE", help="Only calls with this label; once for each label."),
]
WorthOption = Annotated[
    str | None,
    typer.Option(
        metavar="MONEY",
        help="Say whether it pays: what a saved second is worth; or calls=0.5: at most so many extra calls a turn.",
    ),
]
Primary = Annotated[
    str | None,
    typer.Option(
        metavar="MEASURE",
        help=f"With --by: the measure that decides between arms, besides others; by default {PRIMARY}.",
    ),
]
RowsOption = Annotated[str | None, typer.Option("--rows", metavar="FILE", help="Write a JSON line for each turn.")]
Words = Annotated[bool, typer.Option("--words", help="Show what was said in the worst turns.")]
HashOption = Annotated[bool, typer.Option("--hash-call", help="Show calls' ids as hashes.")]
DaskOption = Annotated[
    str | None, typer.Option("--dask", metavar="ADDRESS", help="Read on this cluster (tcp://…), which reaches PATHS.")
]
Jobs = Annotated[int | None, typer.Option(min=1, metavar="N", help="Processes; by default one a core.")]


def report(
    paths: PathsArgument,
    by: By = None,
    since: Since = None,
    where: Where = [],  # noqa: B006
    latency: LatencyOption = None,
    prices: PricesOption = None,
    worth: WorthOption = None,
    cluster: Cluster = None,
    primary: Primary = None,
    as_json: JsonOption = False,
    rows: RowsOption = None,
    html: HtmlOption = None,
    words: Words = False,
    hash_calls: HashOption = False,
    dask: DaskOption = None,
    jobs: Jobs = None,
) -> None:
    """Does thinking ahead pay? The answer, a table by arm, the worst calls, and what could not be computed.

    Exit code 2: a file, or a line of one, could not be read."""
    from inkturns.cli.report_text import print_report
    from inkturns.report import Fleet
    from inkturns.report.summary import Findings
    from inkturns.serialize import encode

    try:
        question = question_of(by, cluster, since, where, latency, prices, hash_calls)
        value = worth_of(worth)
        if primary is not None and by is None:
            raise ValueError(f"--primary {primary} decides between arms: give --by too, which tells them apart")
        measure = primary or PRIMARY
        Findings(Fleet(), primary=measure)  # refuses a measure that there is not, before anything is read
        refuse_target("--rows", rows, paths)
        refuse_target("--html", html, paths)
        if rows is not None and rows == html:
            raise ValueError(f"--rows and --html are both {rows}: one would replace the other")
    except ValueError as error:
        refuse(str(error))
    fleet = _read(paths, question, rows, dask, jobs)
    summary = Findings(fleet, question, value, measure)
    unwritten = None if html is None else html_fault(summary, Path(html), words=words)
    if as_json:
        sys.stdout.buffer.write(encode(summary.as_json()) + b"\n")
        sys.stdout.buffer.flush()
    else:
        print_report(summary, words=words)
    if unwritten is not None:
        refuse(unwritten)
    raise typer.Exit(2 if fleet.unread or fleet.faults else 0)


# -- what is asked


def question_of(
    by: str | None,
    cluster: str | None,
    since: str | None,
    where: list[str],
    latency: str | None,
    prices: str | None,
    hash_calls: bool,
) -> "Question":
    """Raises ValueError with a sentence that names the option."""
    from inkturns.report import Question
    from inkturns.report.question import since as moment

    labels: dict[str, str] = {}
    for given in where:
        name, equals, value = given.partition("=")
        if not equals:
            raise ValueError(f"--where {given}: it must be LABEL=VALUE")
        if labels.setdefault(name, value) != value:
            raise ValueError(f"--where {name}={labels[name]} and {name}={value}: no call has both; ask one at a time")
    try:
        begins = None if since is None else moment(since, datetime.now(UTC))
    except ValueError as error:
        raise ValueError(f"--since {error}") from None
    return Question(
        by=by,
        cluster=cluster,
        since=begins,
        where=labels,
        latency=() if latency is None else latency_of(latency),
        prices={} if prices is None else prices_of(prices),
        hash_calls=hash_calls,
    )


def worth_of(given: str | None) -> "Worth | None":
    """Raises ValueError with a sentence."""
    from inkturns.report.summary import Worth

    if given is None:
        return None
    calls = given.removeprefix("calls=")
    try:
        value = float(calls.removeprefix("$"))
    except ValueError:
        raise ValueError(f"--worth {given}: it must be money for a saved second (0.02), or calls=0.5") from None
    if not 0 <= value <= MOST_WORTH:
        raise ValueError(f"--worth {given}: it must be 0 or more" + (", and a billion at most" if value > 0 else ""))
    return Worth(calls=value) if calls != given else Worth(per_second=value)


# -- reading


def _read(paths: list[str], question: "Question", rows: str | None, dask: str | None, jobs: int | None) -> "Fleet":
    from inkturns.report import Hearing, analyse

    with ExitStack() as after:
        written = None if rows is None else after.enter_context(_written(rows))
        executor = None if dask is None else after.enter_context(_cluster(dask))
        done = after.enter_context(progress("recordings"))
        hearing = Hearing(
            unread=lambda error: say(str(error)),
            fault=lambda name, error: say(f"{name}:{error.line}: {error.reason}"),
            rows=written,
            progress=done,
        )
        return analyse(paths, executor, jobs, question=question, hearing=hearing)


@contextmanager
def _written(rows: str) -> "Iterator[Callable[[bytes], None]]":
    """Writes into the file, which is opened for the first rows: a new one in a directory that is read is none of the
    recordings."""
    with ExitStack() as after:
        file = None

        def write(some: bytes) -> None:
            nonlocal file
            try:
                file = file or after.enter_context(Path(rows).open("wb", buffering=0))
                rest = memoryview(some)
                while rest:
                    rest = rest[file.write(rest) :]
            except OSError as error:
                refuse(f"--rows {rows}: {error.strerror}")

        yield write
        write(b"")


@contextmanager
def _cluster(address: str) -> "Iterator[Executor]":
    try:
        distributed = import_module("distributed")
    except ImportError:
        refuse('--dask needs distributed: pip install "inkturns[fleet]"')
    try:
        client = distributed.Client(address, timeout=30)
    except (OSError, ValueError, TimeoutError) as error:
        refuse(f"--dask {address}: {error}")
    with client:
        yield client.get_executor()


# -- the page


def html_fault(
    summary: "Findings", target: Path, *, words: bool = False, frontier: "Sequence[FrontierPoint]" = ()
) -> str | None:
    """Writes the page; a sentence where it cannot be written."""
    from inkturns.report.fleet_page import fleet_page
    from inkturns.report.worst import timelines_of

    worst = [one for calls in summary.fleet.worst().values() for one in calls]
    folder = target.with_name(target.stem + "-calls")
    try:
        names = timelines_of(worst, folder, words=words, hash_calls=summary.question.hash_calls)
        links = {where: f"{folder.name}/{name}" for where, name in names.items()}
        target.write_text(fleet_page(summary, links, frontier), "utf-8")
    except OSError as error:
        return f"--html {target}: {error.strerror}"
    return None
