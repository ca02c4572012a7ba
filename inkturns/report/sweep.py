"""Which policy gains most for how much waste: many policies on the same calls, and those that no other beats.

Rules of this file: pure. Gain is what thinking ahead saves in a turn, in the mean, since gains add up as waste does;
waste is model calls a turn that nobody hears, or what they cost. Both are modelled, as in `whatif`.

The whole grid is tried on FEW calls, spread over all that there are; on all of them, the policies that no other beat
there by far.
"""

import ast
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import product
from typing import Any

import attrs

import inkturns.policy
from inkturns.errors import RecordingError
from inkturns.policy import AfterResume, Policy, min_words, same_text, same_words
from inkturns.report.fleet import NANO, Sums
from inkturns.report.otherwise import otherwise
from inkturns.report.past import PastCall
from inkturns.report.question import Question
from inkturns.report.survival import Latencies
from inkturns.report.typical import Gathered, Typical
from inkturns.report.whatif import NO_ITEMS, Changes, Named, refusal
from inkturns.serialize import load_policy

__all__ = ["FEW", "GRID", "Point", "Sweep", "as_python", "as_typed", "best", "frontier", "imports", "policies", "sweep"]

FEW = 50  # calls on which the whole grid is tried
BY_FAR = 0.8  # a policy whose gain is less than this part of another's, for as much waste or more, is not tried on all

GRID: dict[str, tuple[Any, ...]] = {
    "think_after": (0.0, 0.05, 0.1, 0.2, 0.4),
    "max_thoughts": (1, 2, 3),
    "speculate": (True, min_words(2), min_words(4)),
    "after_resume": (AfterResume.CANCEL, AfterResume.KEEP),
    "match": (same_words, same_text),
}
DEFAULTS = Policy()
FIELDS = tuple(field.name for field in attrs.fields(Policy))
WORDS = ("match",)  # what cannot be asked of calls whose words are redacted


def policies(fixed: Mapping[str, Any], redacted: bool = False) -> Iterator[dict[str, Any]]:
    """The fields of each policy of the grid, and of the one that never thinks ahead. Fields in `fixed` are the same in
    each; with `redacted` so are those that depend on words, as they were recorded."""
    grid = {name: values for name, values in GRID.items() if name not in fixed and not (redacted and name in WORDS)}
    if "speculate" in grid:
        yield {**fixed, **{name: getattr(DEFAULTS, name) for name in grid}, "speculate": False}
    for values in product(*grid.values()):
        yield {**fixed, **dict(zip(grid, values, strict=True))}


@attrs.frozen
class Point:
    """What a policy comes to on the calls.

    changes      fields of the policy
    gain         seconds that thinking ahead saves in a turn, in the mean
    extra_calls  model calls a turn that nobody hears
    cost         what these cost in a thousand turns; None: nobody knows
    turns_ahead  the share of turns that were answered by a thought that began before the end"""

    changes: dict[str, Any]
    gain: float
    extra_calls: float
    cost: float | None = None
    turns_ahead: float | None = None

    def waste(self, in_money: bool) -> float | None:
        return self.cost if in_money else self.extra_calls


def frontier(points: Iterable[Point], in_money: bool = False) -> list[Point]:
    """The points that no other beats: none gains as much for less, or more for as much. From the least waste on; of
    policies that come to the same, the one with the fewest fields that are not as by default."""
    found: list[Point] = []
    for point in _ordered(points, in_money):
        if not found or point.gain > found[-1].gain:
            found.append(point)
    return found


def best(points: Iterable[Point], most: float, in_money: bool = False) -> Point | None:
    """The point that gains most with so much waste or less; None: each wastes more, or nobody knows how much."""
    within = [point for point in frontier(points, in_money) if _known(point.waste(in_money)) <= most]
    return within[-1] if within else None


def _ordered(points: Iterable[Point], in_money: bool) -> list[Point]:
    known = [point for point in points if point.waste(in_money) is not None]
    return sorted(known, key=lambda one: (one.waste(in_money), -one.gain, len(_said(one.changes))))


def _known(waste: float | None) -> float:
    assert waste is not None  # of a frontier
    return waste


# -- the calls


@attrs.frozen
class Sweep:
    """What came of it.

    points     the policies that were tried on all calls
    recorded   as the calls went
    tried      how many policies were tried on `few` of `calls`
    kept       fields of the recorded policies in which all are the same; `differing`: the others that were not tried
    redacted   whether any call is: then nothing that depends on words was tried
    refused    calls of which it cannot be asked, by the reason
    in_money   whether waste is what unused model calls cost
    untold     the recorded thoughts of which no usage was told, of so many; where no prices fill that in"""

    points: list[Point]
    recorded: Point
    tried: int
    few: int
    calls: int
    kept: dict[str, Any]
    differing: list[str]
    redacted: bool
    refused: dict[str, int]
    in_money: bool = False
    untold: tuple[int, int] = (0, 0)

    def python(self, point: Point) -> str:
        """The policy of a point, with what was recorded of it besides."""
        return as_python({**self.kept, **point.changes})

    def frontier(self) -> list[Point]:
        """The policies that no other beats, from the least waste on."""
        return frontier(self.points, self.in_money)

    def not_known(self) -> list[str]:
        """What was not tried, and what nobody knows, in sentences."""
        found = ["what the user would have said to replies that begin at other times; all figures are modelled"]
        if self.in_money and self.untold[0]:
            found.append(
                f"all that unused model calls cost: {self.untold[0]:,} of {self.untold[1]:,} recorded thoughts told no "
                "usage, so costs are too low; --prices fills them in"
            )
        if self.in_money and (unpriced := sum(point.cost is None for point in self.points)):
            found.append(
                f"what the unused model calls of {unpriced} policies cost: their thoughts told no usage; "
                "--max-extra-calls limits their number instead"
            )
        if self.differing:
            found.append(f"{', '.join(self.differing)}: the recorded policies differ there, so the line leaves it out")
        if self.redacted:
            found.append(f"{', '.join(WORDS)}: it depends on words, and calls are redacted")
        if self.few < self.calls:
            left_out = self.tried - len(self.points)
            found.append(f"what {left_out} policies come to on all calls: on {self.few} others were better by far")
        return found + [f"{n} calls: {reason}" for reason, n in self.refused.items()]

    def as_json(self, most: float | None = None) -> dict[str, Any]:
        """One object: the frontier, from the least waste on, and the best policy with at most so much waste."""
        chosen = None if most is None else best(self.points, most, self.in_money)
        return {
            "calls": self.calls,
            "tried": self.tried,
            "recorded": self._said(self.recorded),
            "frontier": [self._said(point) for point in self.frontier()],
            "best": None if chosen is None else self._said(chosen),
            "grades": dict.fromkeys(("gain", *MEASURES), "modelled"),
            "not_known": self.not_known(),
        }

    def _said(self, point: Point) -> dict[str, Any]:
        policy = None if point is self.recorded else self.python(point)
        values = (point.gain, point.extra_calls, point.cost, point.turns_ahead)
        return {"policy": policy, **dict(zip(("gain", *MEASURES), values, strict=True))}


MEASURES = ("extra_calls_per_turn", "cost_of_1000_turns", "turns_ahead")


def sweep(
    calls: Callable[[], Iterable[Named]],
    fixed: Changes,
    *,
    question: Question = Question(),  # noqa: B008 (a frozen value)
    few: int = FEW,
    in_money: bool = False,
    progress: Callable[[int, int], object] = lambda done, of: None,
) -> Sweep:
    """Tries the grid, with these fields `fixed`. The calls are read three times: what they tell of the model, then
    few of them, then all. Of `question`, its prices and its latency count. `in_money`: waste is what unused model
    calls cost. `progress` is told how many simulations of how many are done."""
    latencies, gathered, usable = Latencies(), Gathered(), 0
    redacted, recorded, refused = False, Sums(), dict[str, int]()
    used: dict[str, list[Any]] = {name: [] for name in FIELDS}
    for _, past in calls():
        past.tell(latencies)
        gathered.add(past)
        policy = _policy(past, fixed)
        if isinstance(policy, str):
            refused[policy] = refused.get(policy, 0) + 1
            continue
        usable += 1
        for name, values in used.items():
            if (value := getattr(policy, name)) not in values:
                values.append(value)
        redacted |= past.header is not None and past.header.redacted
        for row in question.of(past.rows)[0]:
            recorded.add(row)
    if usable and not (latencies.known or question.latency):
        refused[NO_ITEMS], usable = usable, 0
    thoughts = recorded.counts["thoughts"]
    tries = _Tries(latencies, gathered.typical(), question, progress)
    grid, step = [*policies(fixed, redacted)], max(1, -(-usable // few))
    spread = [past for i, past in enumerate(_usable(calls(), fixed) if usable else ()) if i % step == 0]
    points = tries.points(spread, len(spread), grid)
    if step > 1:
        promising = [point.changes for point in _promising(points, in_money)]
        points = tries.points(_usable(calls(), fixed), usable, promising)
    return Sweep(
        points=points,
        recorded=_point({}, recorded),
        tried=len(grid),
        few=len(spread),
        calls=usable,
        kept={name: values[0] for name, values in used.items() if len(values) == 1},
        differing=[name for name, values in used.items() if len(values) > 1],
        redacted=redacted,
        refused=refused,
        in_money=in_money,
        untold=(0 if question.prices else thoughts - recorded.counts["with_usage"], thoughts),
    )


def _usable(calls: Iterable[Named], fixed: Changes) -> Iterator[PastCall]:
    return (past for _, past in calls if isinstance(_policy(past, fixed), Policy))


def _policy(past: PastCall, fixed: Changes) -> Policy | str:
    """The call's policy with a policy of the grid; or why the grid cannot be asked of the call."""
    *_, changes = policies(fixed, redacted=past.header is not None and past.header.redacted)
    if (reason := refusal(past, changes)) is not None:
        return reason
    try:
        return Policy(**changes) if past.header is None else load_policy(past.header.policy, changes)
    except RecordingError as error:
        return error.reason


@attrs.define
class _Tries:
    latencies: Latencies
    typical: Typical
    question: Question
    progress: Callable[[int, int], object]
    done: int = 0
    of: int = 0

    def points(self, calls: Iterable[PastCall], n: int, grid: Sequence[dict[str, Any]]) -> list[Point]:
        sums = [Sums() for _ in grid]
        self.of += n * len(grid)
        for past in calls:
            numbers = {row.number for row in past.rows}
            for changes, total in zip(grid, sums, strict=True):
                other = otherwise(past, changes, self.latencies, self.typical)
                for row in self.question.of(row for row in other.rows if other.same.get(row.number) in numbers)[0]:
                    total.add(row)
                self.done += 1
                self.progress(self.done, self.of)
        return [_point(changes, total) for changes, total in zip(grid, sums, strict=True)]


def _point(changes: dict[str, Any], sums: Sums) -> Point:
    counts, turns = sums.counts, max(1, sums.counts["turns"])
    is_known = counts["wasted_cost"] or not counts["unused"]
    return Point(
        changes,
        gain=counts["saved"] / turns / NANO,
        extra_calls=counts["unused"] / turns,
        cost=1000 * counts["wasted_cost"] / turns / NANO if is_known else None,
        turns_ahead=counts["ahead"] / turns,
    )


def _promising(points: list[Point], in_money: bool) -> list[Point]:
    """Those that no other beats by far."""
    found, most = list[Point](), -1.0
    for point in _ordered(points, in_money):
        if point.gain >= BY_FAR * most:
            found.append(point)
        most = max(most, point.gain)
    return found


# -- a policy as Python


def as_python(changes: Mapping[str, Any]) -> str:
    """A line to paste: `Policy(think_after=0.12, max_thoughts=2)`. A function has the name by which a module holds it;
    one that no module holds stands as its repr, and has to be written by hand."""
    return f"Policy({', '.join(f'{name}={text}' for name, text in _said(changes).items())})"


def _said(changes: Mapping[str, Any]) -> dict[str, str]:
    """The fields that are not as by default, as Python. Policy's order."""
    names = [name for name in FIELDS if name in changes and changes[name] != getattr(DEFAULTS, name)]
    return {name: _text(changes[name]) for name in names}


def as_typed(changes: Mapping[str, Any]) -> str:
    """The same fields, short, with choices as `--policy` takes them: `think_after=0.12, after_resume=keep`."""
    said = _said(changes)
    enums = {name: str(changes[name]) for name in said if isinstance(changes[name], StrEnum)}
    return ", ".join(f"{name}={text}" for name, text in {**said, **enums}.items())


def imports(line: str) -> str:
    """The imports that a line of `as_python` needs, a line each."""
    nodes = [*ast.walk(ast.parse(line))]
    names = {node.id for node in nodes if isinstance(node, ast.Name)} & {*inkturns.policy.__all__}
    paths = [ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute)]
    modules = {path.rpartition(".")[0] for path in paths} & {*sys.modules}
    ours = f"from inkturns.policy import {', '.join(sorted(names))}"
    return "\n".join([*(f"import {name}" for name in sorted(modules)), ours])


def _text(value: Any) -> str:
    if isinstance(value, StrEnum):
        return f"{type(value).__name__}.{value.name}"
    if callable(value) and not isinstance(value, min_words):
        return _path(value) or repr(value)
    return repr(value)


def _path(function: Any) -> str | None:
    """The name by which a module holds a function, its own module first; None where none does."""
    own = getattr(function, "__module__", None)
    for module, held in sorted(sys.modules.items(), key=lambda one: one[0] != own):
        for name, value in [*getattr(held, "__dict__", {}).items()]:
            if value is function:
                return name if module in ("inkturns.policy", "__main__") else f"{module}.{name}"
    return None
