"""What if: recorded calls against the same calls under another policy, side by side, on the same turns.

Rules of this file: pure. Each figure has a grade. *exact*: the machine decided it from what was recorded, in every
turn. *modelled*: a reply may have been in flight, or the model's time is part of it. *not known*: it depends on what
the user would have said. What is longer than anybody has seen is None.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs
from msgspec.structs import replace

from inkturns.errors import RecordingError
from inkturns.policy import min_words
from inkturns.report.bootstrap import NEAREST, interval
from inkturns.report.fleet import COUNTS, NANO, RATIOS, REASONS, SHARES, TIMES, Fleet
from inkturns.report.otherwise import Otherwise, otherwise
from inkturns.report.past import PastCall
from inkturns.report.question import Question
from inkturns.report.rows import TurnRow
from inkturns.report.survival import Latencies
from inkturns.report.typical import Gathered, Typical
from inkturns.serialize import dump_policy, load_policy

__all__ = ["GRADES", "NO_ITEMS", "Changes", "Comparison", "Figures", "Named", "compare", "refusal"]

Changes = Mapping[str, Any]  # fields of a Policy
Figures = dict[str, Any]  # by name, as JSON values
Named = tuple[str, PastCall]  # with its file's name
SHOWN = ("p50", "p90", "p99")
FEW = 5  # values that an interval of a quantile needs beyond it

NO_ITEMS = (
    "no model's first item was recorded, so nobody knows what a policy gains; --latency 0.8 says how late to assume it"
)
NOT_KNOWN = ("interrupts", "backchannels", "false_end_rate")
MODELLED = (
    *("first_item", "saved", "saved_ahead", "end_to_first_item", "end_to_first_item_without", "end_to_first_sound"),
    *("wasted_tokens", "wasted_cost", "wasted_cost_per_turn", "usage_known", "finished_unused", "failed", "peak_calls"),
)
GRADES = {
    name: "not known" if name in NOT_KNOWN else "modelled" if name in MODELLED else "exact"
    for name in (*COUNTS, *REASONS, *RATIOS, "wasted_cost", "peak_calls", *TIMES)
}  # where every turn is exact; else "exact" is "modelled"


def refusal(past: PastCall, changes: Changes) -> str | None:
    """Why this cannot be asked of the call: its words are redacted, and a change depends on words; or it has no times,
    and a change is a wait."""
    waits = [name for name in ("think_after", "stall_timeout") if changes.get(name)]
    if waits and past.last is None:
        return f"the call's inputs have no times, and Policy.{waits[0]} needs them"
    if past.header is None or not past.header.redacted:
        return None
    recorded = past.header.policy if isinstance(past.header.policy, Mapping) else {}
    for name, value in changes.items():
        if not callable(value) or (name != "match" and isinstance(value, min_words) and not value.or_any):
            continue
        if recorded.get(name) != _dumped(name, value):
            return (
                f"the call is redacted, and Policy.{name} depends on its words, which are not known; "
                "think_after, max_thoughts, after_resume and min_words(n) can be asked"
            )
    return None


def _dumped(name: str, value: Any) -> Any:
    return dump_policy(load_policy({}, {name: value}))[name]


@attrs.define(eq=False)
class Comparison:
    """Recorded calls against the same calls with these fields of their policy changed. Only turns that the same input
    opened, and that closed, in both count.

    turns, exact     turns of both; those of them in which nothing of the thoughts is modelled
    others           turns of either that the other has not
    measured         whether any first item was
    thoughts, drawn  thoughts of the other policy; those whose time to the first item was drawn
    lengths          replies of the other policy whose length is a typical one
    follow           turns after a reply that begins at another time: what the user would have said is not known
    paused           calls that are compared up to a pause of their recorder
    refused          calls of which it cannot be asked, by the reason"""

    changes: Changes
    question: Question = attrs.field(factory=Question)  # its cluster, latency and prices count
    recorded: Fleet = attrs.field(init=False)
    other: Fleet = attrs.field(init=False)
    turns: int = 0
    exact: int = 0
    others: int = 0
    measured: bool = False
    thoughts: int = 0
    drawn: int = 0
    lengths: int = 0
    follow: int = 0
    paused: int = 0
    refused: dict[str, int] = attrs.field(init=False, factory=dict)

    def __attrs_post_init__(self) -> None:
        self.recorded, self.other = (Fleet(cluster=self.question.cluster) for _ in range(2))

    def add(self, name: str, past: PastCall, latencies: Latencies, typical: Typical) -> None:
        """Adds a call, simulated under the other policy."""
        reason = refusal(past, self.changes)
        self.measured = latencies.known
        if reason is None:
            try:
                other = otherwise(past, self.changes, latencies, typical)
                if past.header is not None and past.header.redacted:
                    other = attrs.evolve(other, exact=_certain(past, other, latencies, typical))
            except RecordingError as error:
                reason = error.reason
            else:
                self.take(name, past, other)
        if reason is not None:
            self.refused[reason] = self.refused.get(reason, 0) + 1

    def take(self, name: str, past: PastCall, other: Otherwise) -> None:
        """Adds a call and what became of it."""
        recorded = {row.number: row for row in past.rows}
        pairs = [
            (recorded[other.same[row.number]], row) for row in other.rows if other.same.get(row.number) in recorded
        ]
        self.turns += len(pairs)
        self.exact += sum(row.number in other.exact for _, row in pairs)
        self.others += len(past.rows) + len(other.rows) - 2 * len(pairs)
        self.thoughts += other.thoughts
        self.drawn += other.drawn
        self.lengths += other.lengths
        self.paused += past.paused
        changed = False
        for was, row in pairs:
            self.follow += changed
            if row.answered or was.answered:
                changed = _sound(was) != _sound(row)
        for fleet, rows in (self.recorded, [was for was, _ in pairs]), (self.other, [row for _, row in pairs]):
            fleet.add(self.question.of(_in_its_group(row, name) for row in rows)[0], name)

    # -- what came of it

    @property
    def grades(self) -> dict[str, str]:
        """Of each figure: "exact", "modelled" or "not known"."""
        whole = self.exact == self.turns
        return {name: grade if whole or grade != "exact" else "modelled" for name, grade in GRADES.items()}

    @property
    def shares(self) -> dict[str, float | None]:
        """Of the turns, and of the thoughts those whose time to the first item was drawn; None without any."""
        return {
            "exact": self.exact / self.turns if self.turns else None,
            "modelled": 1 - self.exact / self.turns if self.turns else None,
            "drawn": self.drawn / self.thoughts if self.thoughts else None,
        }

    @property
    def gain(self) -> float | None:
        """Seconds that thinking ahead saves in a turn under the other policy: all of `saved` / turns. Those that nobody
        knows count as 0."""
        counts = self.other.sums().counts
        return counts["saved"] / counts["turns"] / NANO if counts["turns"] else None

    def figures(self) -> tuple[Figures, Figures]:
        """The recorded figures and the other policy's; times as {"p50", "p90", "p99"}."""
        recorded, other = (_shown(fleet.figures()) for fleet in (self.recorded, self.other))
        return recorded, {name: None if GRADES.get(name) == "not known" else value for name, value in other.items()}

    def intervals(self) -> tuple[Figures, Figures]:
        """The 95 % intervals: of the recorded figures, as `Fleet.intervals` has them; of the other policy's, where they
        would be, were as many calls like these run under it."""
        return _shown(self.recorded.intervals()), self._predicted()

    def _predicted(self) -> Figures:
        """Both these calls and the new ones are a sample: their errors, which the bootstrap gives, add up. It gives
        none for a quantile with few values beyond it."""
        drawn, figures, times = self.other.replicates(), self.other.figures(), self.other.sums().times
        found: Figures = dict.fromkeys((*RATIOS, *TIMES))
        if drawn is None:
            return found
        for name in found:
            if GRADES[name] == "not known" or figures[name] is None:
                continue
            if name in RATIOS:
                found[name] = _around(figures[name], drawn[name], 1.0 if name in SHARES else math.inf)
                continue
            values = times[name].total()
            found[name] = {
                of: _around(figures[name][of], drawn[f"{name}.{of}"]) if values * (1 - NEAREST[of]) >= FEW else None
                for of in SHOWN
            }
        return found

    def differences(self) -> dict[str, list[float | None] | None]:
        """The 95 % interval of each ratio's and each quantile's difference, other - recorded, paired call by call."""
        one, other = self.recorded.replicates(), self.other.replicates()
        if one is None or other is None:
            return {}
        found = {}
        for name, values in other.items():
            of = name.partition(".")
            if GRADES[of[0]] == "not known" or (of[2] and of[2] not in SHOWN):
                continue
            pairs = zip(values, one[name], strict=True)
            gaps = [b - a for b, a in pairs if b is not None and a is not None and not (math.inf == a == b)]
            within = interval(gaps)
            found[name] = None if within is None else [_known(end) for end in within]
        return found

    def not_known(self) -> list[str]:
        """What the figures do not say, in sentences."""
        found = [
            "interrupts, backchannels and false_end_rate: they depend on what the user would have said to other replies"
        ]
        if self.follow:
            found.append(
                f"what the user would have said after a reply that begins at another time: {self.follow} of "
                f"{self.turns} turns (abandoned ones, too) follow one, and are compared as they were spoken"
            )
        if self.turns and not (self.measured or self.question.latency):
            found.append(NO_ITEMS)
        if raised := self.other.figures()["reports"].get("policy_error", 0):
            found.append(
                f"what a function of the other policy says where it raises: {raised} times, which count as False for "
                "speculate and match, as True for interrupts"
            )
        if (alone := self.recorded.without_cluster()) is not None:
            found.append(alone)
        if self.others:
            found.append(f"{self.others} turns that open, or close, in one of the two only: they are left out")
        if self.paused:
            found.append(f"what came after a pause of the recorder, in {self.paused} calls")
        found += [f"{calls} calls: {reason}" for reason, calls in self.refused.items()]
        return found

    def as_json(self) -> Figures:
        """One object: the figures of both, their grades, and how they are known."""
        (recorded, other), (of_recorded, of_other) = self.figures(), self.intervals()
        policy = {name: _dumped(name, value) for name, value in self.changes.items()}
        return {
            "policy": policy,
            "recorded": {**recorded, "intervals": of_recorded},
            "other": {**other, "intervals": of_other},
            "differences": self.differences(),
            "grades": self.grades,
            "shares": self.shares,
            "drawn": {"thoughts": self.drawn, "of": self.thoughts, "reply_lengths": self.lengths},
            "not_known": self.not_known(),
        }


def compare(
    calls: Callable[[], Iterable[Named]], policies: Sequence[Changes], question: Question | None = None
) -> list[Comparison]:
    """Asks each of these policies of all calls. The calls are read twice: first what they tell of the model, then for
    the comparison. `question`: its latency (where no first item was measured), prices and cluster count."""
    latencies, gathered = Latencies(), Gathered()
    for _, past in calls():
        past.tell(latencies)
        gathered.add(past)
    typical = gathered.typical()
    comparisons = [Comparison(changes, question or Question()) for changes in policies]
    for name, past in calls():
        for comparison in comparisons:
            comparison.add(name, past, latencies, typical)
    return comparisons


def _certain(past: PastCall, other: Otherwise, latencies: Latencies, typical: Typical) -> frozenset[int]:
    """The exact turns of a redacted call: those that its own policy decides as it did. Redacted texts of equal shape
    compare equal, so another turn's words may have been others."""
    again = otherwise(past, {}, latencies, typical)
    recorded: dict[int | None, object] = {row.number: _decided(row) for row in past.rows}
    numbers = ((again.same.get(row.number), _decided(row)) for row in again.rows)
    as_it_was = {number for number, decided in numbers if recorded.get(number) == decided}
    return frozenset(number for number in other.exact if other.same[number] in as_it_was)


def _decided(row: TurnRow) -> object:
    return row.end, [(one.number, one.speculative, one.outcome, one.reason, one.exact) for one in row.thoughts]


def _around(value: float, drawn: Sequence[float | None], most: float = math.inf) -> list[float | None] | None:
    """Where the figure of another sample is, by how far the replicates are from each other. It is 0 to `most`."""
    known = [one for one in drawn if one is not None]
    pairs = zip(known, known[1:] + known[:1], strict=True)
    apart = [min(most, max(0.0, value + a - b)) for a, b in pairs if b < math.inf]
    within = interval(apart)
    return None if within is None else [_known(end) for end in within]


def _in_its_group(row: TurnRow, name: str) -> TurnRow:
    """With an id: a call is in the same group of the bootstrap in both fleets, so differences are paired."""
    return row if row.call is not None else replace(row, call=f"{name}:{row.begins}")


def _sound(row: TurnRow) -> float | None:
    begins = row.end_to_first_item if row.end_to_first_sound is None else row.end_to_first_sound
    return None if begins is None or begins == math.inf else round(begins, 3)


def _shown(figures: Figures) -> Figures:
    return {name: _short(value) if name in TIMES and value is not None else value for name, value in figures.items()}


def _short(value: Figures) -> Figures:
    return {of: _known(value[of]) for of in SHOWN}


def _known(value: Any) -> Any:
    """None for what is longer than anybody has seen."""
    if isinstance(value, list):
        return [_known(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
