"""`inkturns what-if`: recorded calls against the same calls under another policy, or under many.

Rules of this file: standard output has the answer alone; what is wrong with a file is one sentence on standard error,
and the rest is still read; no words are shown.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import attrs
import typer

from inkturns.adapters.flux import FluxSettings
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
from inkturns.cli.policy import described, read_policy
from inkturns.cli.report import html_fault
from inkturns.cli.stderr import progress, refuse, say
from inkturns.cli.whatif_text import print_comparison, print_sweep
from inkturns.errors import RecordingError
from inkturns.policy import Policy
from inkturns.reader import TruncatedError
from inkturns.report.analysis import analyse
from inkturns.report.calls import calls_of
from inkturns.report.fleet_page import FrontierPoint
from inkturns.report.past import PastCall, past_of
from inkturns.report.paths import Found, UnreadError, find, is_read_once, lines_of
from inkturns.report.question import Question
from inkturns.report.summary import Findings
from inkturns.report.sweep import Sweep
from inkturns.report.sweep import sweep as try_all
from inkturns.report.thresholds import Thresholds
from inkturns.report.whatif import Changes, Comparison, compare
from inkturns.serialize import encode

__all__ = ["Given", "what_if"]

MOST = 0.3  # extra model calls a turn
PolicyOption = Annotated[
    list[str],
    typer.Option(
        "--policy", metavar="KEY=VALUE", help=f"A field of the other policy; once for each field. {described()}."
    ),
]
SweepOption = Annotated[
    bool, typer.Option("--sweep", help="Try many policies: those that no other beats. Fields of --policy are kept.")
]
MaxExtraCalls = Annotated[
    float | None,
    typer.Option(
        min=0, metavar="CALLS", help=f"With --sweep: how many model calls a turn may be for nothing; by default {MOST}."
    ),
]
MaxCost = Annotated[
    float | None,
    typer.Option(min=0, metavar="MONEY", help="With --sweep, instead: what these may cost in 1,000 turns."),
]
EotThreshold = Annotated[
    float | None, typer.Option(metavar="SHARE", help="Of Flux: a higher eot_threshold. PATHS hold Flux's messages.")
]
EagerThreshold = Annotated[float | None, typer.Option(metavar="SHARE", help="Of Flux: a higher eager_eot_threshold.")]


def what_if(
    paths: PathsArgument,
    policy: PolicyOption = [],  # noqa: B006
    sweep: SweepOption = False,
    max_extra_calls: MaxExtraCalls = None,
    max_cost: MaxCost = None,
    latency: LatencyOption = None,
    prices: PricesOption = None,
    cluster: Cluster = None,
    eot_threshold: EotThreshold = None,
    eager_eot_threshold: EagerThreshold = None,
    as_json: JsonOption = False,
    html: HtmlOption = None,
) -> None:
    """What another policy would have done with recorded calls: side by side, each figure with its grade.

    exact: decided by what was recorded. modelled: the model's time or a reply is part of it. Exit code 2: a file, or a
    line of one, could not be read, or the question cannot be answered."""
    try:
        changes = read_policy(policy)
        question = Question(
            cluster=cluster,
            latency=() if latency is None else latency_of(latency),
            prices={} if prices is None else prices_of(prices),
        )
        thresholds = FluxSettings(eot_threshold=eot_threshold, eager_eot_threshold=eager_eot_threshold)
        refuse_target("--html", html, paths)
    except ValueError as error:
        refuse(str(error))
    limits = [value for value in (max_extra_calls, max_cost) if value is not None]
    if limits and not sweep:
        refuse("--max-extra-calls and --max-cost choose among the policies of a --sweep: give that too")
    if len(limits) > 1:
        refuse("give --max-extra-calls or --max-cost: one measure of waste decides")
    most = limits[0] if limits else MOST
    if html is not None and (not sweep or "-" in paths):
        refuse("--html draws the frontier of a --sweep, and reads the recordings anew: give that, and no - among PATHS")
    if cluster is not None and sweep and html is None:
        refuse("--cluster is for intervals, and the table of a --sweep has none: its page has, so give --html too")
    if thresholds.given() and sweep:
        refuse("--sweep tries policies; the thresholds are the sender's, so ask for one of the two")
    if thresholds.given() and (cluster is not None or prices is not None):
        refuse("--cluster and --prices need recordings: Flux's messages have no labels, and say nothing of a model")
    if eot_threshold is not None and eager_eot_threshold is not None and eager_eot_threshold > eot_threshold:
        refuse("--eager-eot-threshold must not be above --eot-threshold: an eager end comes before the end")
    if not (thresholds.given() or changes or sweep):
        refuse("what-if needs another policy, as in --policy think_after=0.1, or --sweep, or a threshold of Flux's")
    with progress("calls under other policies" if sweep else "recordings") as count:
        given = Given(find(paths))
        if not given.found.names:  # what is wrong with each path is said by now
            raise typer.Exit(given.code)
        if sweep:
            swept = _swept(given, changes, question, max_cost is not None, count)
        elif thresholds.given():
            answer: Comparison | Thresholds = _thresholds(given, changes, question, thresholds)
        else:
            given.count = count
            answer = _compared(given, changes, question)
    if as_json:
        values = swept.as_json(most) if sweep else answer.as_json()
        sys.stdout.buffer.write(encode({**values, "unread": len(given.unread)}) + b"\n")
        sys.stdout.buffer.flush()
    elif sweep:
        print_sweep(swept, most)
    else:
        print_comparison(answer)
    if html is not None and (fault := _page_fault(swept, paths, question, Path(html))) is not None:
        refuse(fault)
    raise typer.Exit(given.code)


def _page_fault(swept: Sweep, paths: list[str], question: Question, target: Path) -> str | None:
    """Writes the report's page, with the frontier; a sentence where it cannot be written."""
    best = [FrontierPoint(swept.python(one), one.extra_calls, one.gain) for one in swept.frontier()]
    return html_fault(Findings(analyse(paths, question=question), question), target, frontier=best)


def _swept(
    given: "Given", changes: Changes, question: Question, in_money: bool, count: Callable[[int, int], None]
) -> Sweep:
    swept = try_all(given.calls, changes, question=question, in_money=in_money, progress=count)
    if not swept.calls:
        refuse("; ".join(swept.refused) or "there are no calls to try policies on")
    return swept


def _compared(given: "Given", changes: Changes, question: Question) -> Comparison:
    (compared,) = compare(given.calls, [changes], question)
    if compared.refused and not compared.turns:
        refuse("; ".join(compared.refused))
    return compared


def _thresholds(given: "Given", changes: Changes, question: Question, settings: FluxSettings) -> Thresholds:
    answer, read = Thresholds(settings, question), 0
    for name, lines in given.lines():
        answer.add(name, lines, Policy(**changes), given.on_error(name))
        read += 1
    if read and answer.refused.total() == read:
        refuse("; ".join(answer.refused))
    return answer


# -- what is read


@attrs.define(eq=False)
class Given:
    """The recordings, which are read twice. One that cannot be read to its end counts not at all."""

    found: Found
    count: Callable[[int, int], None] = lambda done, of: None
    unread: set[str] = attrs.field(init=False, factory=set)
    code: int = 0
    _piped: dict[str, list[bytes]] = attrs.field(factory=dict)  # what can be read once
    _rounds: int = 0

    def __attrs_post_init__(self) -> None:
        for error in self.found.unread:
            self._miss(error)

    def calls(self) -> Iterator[tuple[str, PastCall]]:
        for name, lines in self.lines():
            for call in calls_of(lines, self.on_error(name)):
                yield name, past_of(call)

    def lines(self) -> Iterator[tuple[str, list[bytes]]]:
        """The lines of each recording."""
        self._rounds += 1
        names = self.found.names
        for n, name in enumerate(names):
            self.count((self._rounds - 1) * len(names) + n, 2 * len(names))
            if name in self.unread:
                continue
            try:
                lines = self._piped[name] if name in self._piped else [*lines_of(name)]
            except UnreadError as error:
                self._miss(error)
                continue
            if is_read_once(name):
                self._piped[name] = lines
            yield name, lines

    def on_error(self, name: str) -> Callable[[RecordingError], None]:
        def tell(error: RecordingError) -> None:
            if self._rounds == 1:
                self.code = self.code if isinstance(error, TruncatedError) else 2
                say(f"{name}:{error.line}: {error.reason}")

        return tell

    def _miss(self, error: UnreadError) -> None:
        self.code = 2
        self.unread.add(error.name)
        say(str(error))
