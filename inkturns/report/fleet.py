"""A fleet: the sums of any number of calls, and the figures that are made of them.

Rules of this file: pure. `Fleet + Fleet` is associative and commutative, and every count in it is a whole number: the
same rows give the same figures, however they were split. Its size does not grow with the number of calls.

Calls fall into GROUPS groups. Intervals come from a bootstrap over these groups, which is one over calls where there
are few, and as good where there are many. Calls that share the `cluster` label's value (one customer's, say) are in one
group.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any, Self

import attrs
import msgspec

from inkturns.report.bootstrap import GROUPS, NEAREST, interval, of_ratio, of_times
from inkturns.report.rows import TurnRow

__all__ = [
    "BY",
    "COUNTS",
    "NO_LABEL",
    "RATIOS",
    "REASONS",
    "SHARES",
    "TIMES",
    "WORST",
    "Fleet",
    "Replicates",
    "Worst",
    "arm_of",
    "intervals_of",
]

TIMES = (
    *("gap", "head_start", "first_item", "saved", "saved_ahead"),
    *("end_to_first_item", "end_to_first_item_without", "end_to_first_sound"),
)
COUNTS = (
    *("calls", "turns", "eager_ends", "resumes", "thoughts", "adopted", "failed", "finished_unused", "unused"),
    *("adopted_inexact", "wasted_tokens", "interrupts", "backchannels", "forced", "stalled", "lost"),
)
REASONS = ("abandoned", "cancelled", "reports")  # counts by end, by reason, by kind
RATIOS: dict[str, tuple[str, str]] = {  # what, of what
    "turns_ahead": ("ahead", "turns"),
    "hit_rate": ("ahead", "speculative"),
    "waste_ratio": ("unused", "thoughts"),
    "extra_calls_per_turn": ("unused", "turns"),
    "wasted_cost_per_turn": ("wasted_cost", "turns"),
    "usage_known": ("with_usage", "thoughts"),
    "false_end_rate": ("false_ends", "turns"),
}
SHARES = ("turns_ahead", "hit_rate", "waste_ratio", "usage_known", "false_end_rate")  # of these ratios, 1 is the most
NANO = 1_000_000_000  # costs and seconds are summed in whole billionths: sums of floats depend on their order
WIDTH = math.log(1.01)  # a bucket is 1 % wide: a quantile is right within half of that
ZERO = -2000  # the bucket of 0, and of whatever is shorter than three nanoseconds
BEYOND = 20_000  # the bucket of inf: longer than anybody has seen
BY = ("policy", "settings", "source")  # what tells arms apart, besides any label
NO_LABEL = "(none)"  # the arm of calls without the label
WORST = 10  # calls of each kind that are kept
Replicates = dict[str, list[float | None]]  # by measure: its value in each replicate of the bootstrap


@attrs.define
class Sums:
    """Counts by name, and times by name and bucket."""

    counts: Counter[str] = attrs.field(factory=Counter)
    times: dict[str, Counter[int]] = attrs.field(factory=dict)
    peak_calls: int = 0

    def add(self, row: TurnRow) -> None:
        counts, answered = self.counts, row.answered
        if answered:
            counts["turns"] += 1
        else:
            counts[f"abandoned.{row.end}"] += 1
        counts["eager_ends"] += row.eager_ends
        counts["resumes"] += row.resumes
        ahead = False
        for thought in row.thoughts:
            adopted = thought.outcome == "adopted"
            if thought.speculative:
                counts["speculative"] += 1
                ahead = ahead or adopted
            if thought.reason is not None:
                counts[f"cancelled.{thought.reason}"] += 1
            if thought.ran is False:
                continue
            counts["thoughts"] += 1
            counts["with_usage"] += thought.usage
            counts["failed"] += thought.outcome == "failed"
            if adopted:
                counts["adopted"] += 1
                counts["adopted_inexact"] += not thought.exact
            else:
                counts["unused"] += 1
                counts["finished_unused"] += thought.finished is True
                counts["wasted_tokens"] += thought.tokens
                counts["wasted_cost"] += round(thought.cost * NANO)
        counts["ahead"] += ahead
        counts["false_ends"] += row.false_end
        counts["interrupts"] += row.interrupted
        if (end := ENDS.get(row.end)) is not None:
            counts[end] += 1
        for kind, times in row.reports.items():
            counts[f"reports.{kind}"] += times
        for name in TIMES[:4] + TIMES[5:]:
            if (value := getattr(row, name)) is not None:
                self._time(name, value)
        if row.saved is not None:
            counts["saved"] += round(row.saved * NANO) if row.saved < math.inf else 0
            counts["unmeasured"] += all(one.first_item is None for one in row.thoughts)
            if ahead:
                self._time("saved_ahead", row.saved)
        self.peak_calls = max(self.peak_calls, row.peak_calls or 0)

    def _time(self, name: str, value: float) -> None:
        if (buckets := self.times.get(name)) is None:
            buckets = self.times[name] = Counter()
        buckets[bucket(value)] += 1

    def __iadd__(self, other: "Sums") -> Self:
        self.counts.update(other.counts)
        for name, buckets in other.times.items():
            self.times.setdefault(name, Counter()).update(buckets)
        self.peak_calls = max(self.peak_calls, other.peak_calls)
        return self


ENDS = {"backchannel": "backchannels", "forced": "forced", "stalled": "stalled", "lost": "lost"}


class Worst(msgspec.Struct, frozen=True, order=True):
    """One of the worst calls. `low` is the measure, negative, so that the worst comes first; `turn` is the turn of the
    call that is worst; `begins` the line of the file at which the call begins."""

    low: float
    file: str
    begins: int
    turn: int
    call: str = ""


@attrs.define
class Fleet:
    """Add the rows of recordings; fleets that were made apart can be added up. `figures` are the measures by name,
    `intervals` the 95 % intervals of those that are ratios and quantiles.

    by        tells arms apart: a label's name, or "policy", "settings" or "source"
    cluster   a label; calls with the same value of it are no independent evidence
    unread    recordings that could not be read; `faults`: lines that could not
    left_out  calls whose beginning is not known, where only those since a time were asked for"""

    by: str | None = None
    cluster: str | None = None
    unread: int = attrs.field(init=False, default=0)
    faults: int = attrs.field(init=False, default=0)
    left_out: int = attrs.field(init=False, default=0)
    _groups: dict[tuple[str, int], Sums] = attrs.field(init=False, factory=dict)
    _worst: dict[str, list[Worst]] = attrs.field(init=False, factory=dict)

    def add(self, rows: Iterable[TurnRow], file: str = "") -> None:
        """Adds the rows of one recording, which may hold several calls. A call without a closed turn has no rows, and
        is not counted. `file` is the recording's name, for `worst`."""
        calls: dict[int, list[TurnRow]] = {}
        for row in rows:
            calls.setdefault(row.begins, []).append(row)
        for call in calls.values():
            key = "" if self.by is None else arm_of(call[0], self.by), self._group(call)
            if (sums := self._groups.get(key)) is None:
                sums = self._groups[key] = Sums()
            sums.counts["calls"] += 1
            sums.counts["clustered"] += self.cluster in call[0].labels
            for row in call:
                sums.add(row)
            self._rank(call, file)

    def __add__(self, other: "Fleet") -> "Fleet":
        """Raises ValueError where they tell arms or clusters apart by different things."""
        if (self.by, self.cluster) != (other.by, other.cluster):
            raise ValueError(
                f"fleets add up where `by` and `cluster` are the same, got {self.by!r}, {self.cluster!r} and "
                f"{other.by!r}, {other.cluster!r}"
            )
        both = Fleet(self.by, self.cluster)
        both += self
        both += other
        return both

    def __iadd__(self, other: "Fleet") -> Self:
        for key, sums in other._groups.items():
            self._groups.setdefault(key, Sums()).__iadd__(sums)
        for name, calls in other._worst.items():
            self._worst[name] = sorted(self._worst.get(name, []) + calls)[:WORST]
        self.unread += other.unread
        self.faults += other.faults
        self.left_out += other.left_out
        return self

    def sums(self) -> Sums:
        """All groups together."""
        total = Sums()
        for sums in self._groups.values():
            total += sums
        return total

    def groups(self) -> dict[int, Sums]:
        """The sums of each group, whatever its arm; a bootstrap draws these."""
        found: dict[int, Sums] = {}
        for (_, group), sums in self._groups.items():
            found.setdefault(group, Sums()).__iadd__(sums)
        return found

    def arms(self) -> dict[str, "Fleet"]:
        """The fleet of each arm, by its name; one that is named "" where nothing tells arms apart."""
        found: dict[str, Fleet] = {}
        for (arm, group), sums in sorted(self._groups.items(), key=lambda one: one[0]):
            found.setdefault(arm, Fleet(self.by, self.cluster))._groups[arm, group] = sums
        return found

    def worst(self) -> dict[str, list[Worst]]:
        """The calls with the greatest "latency" (seconds from an end to the first sound or, where that is not known,
        the first item), "waste" (unused thoughts) and "reports", the worst first."""
        return {name: list(self._worst.get(name, [])) for name in ("latency", "waste", "reports")}

    def without_cluster(self) -> str | None:
        """How many calls lack the label `cluster`, as a sentence; None where none does."""
        counts = self.sums().counts
        alone = 0 if self.cluster is None else counts["calls"] - counts["clustered"]
        if not alone:
            return None
        return f"{alone:,} of {counts['calls']:,} calls have no label {self.cluster}: each counts by itself"

    def figures(self) -> dict[str, Any]:
        """The measures: counts; counts by reason as objects; ratios, and times as {"p50", "p90", "p95", "p99"}, None
        where nothing is known of them."""
        sums = self.sums()
        return {
            **{name: sums.counts[name] for name in COUNTS},
            **{name: _by_reason(sums.counts, name) for name in REASONS},
            **{name: ratio(sums.counts, name) for name in RATIOS},
            "wasted_cost": sums.counts["wasted_cost"] / NANO,
            "peak_calls": sums.peak_calls,
            **{name: quantiles(sums.times.get(name, {})) for name in TIMES},
        }

    def intervals(self) -> dict[str, Any]:
        """The 95 % intervals of ratios and of quantiles of times, as [least, most]; None where there are fewer than two
        groups of calls, or nothing is known."""
        return intervals_of(self.replicates())

    def net_per_turn(self, worth: float) -> tuple[float, list[float] | None] | None:
        """What thinking ahead brings in a turn, in money, where a second that is saved is worth so much, after the cost
        of unused thoughts; and its 95 % interval, None where there are fewer than two groups of calls. None without
        turns."""
        groups = self.groups()
        net = {
            group: round(worth * sums.counts["saved"]) - sums.counts["wasted_cost"] for group, sums in groups.items()
        }
        turns = {group: sums.counts["turns"] for group, sums in groups.items()}
        if not sum(turns.values()):
            return None
        drawn = [None if value is None else value / NANO for value in of_ratio(net, turns)]
        return sum(net.values()) / sum(turns.values()) / NANO, interval(drawn) if len(groups) > 1 else None

    def replicates(self) -> Replicates | None:
        """What each measure is in each replicate of the bootstrap: "turns_ahead", "saved.p50" …; None where there are
        fewer than two groups of calls. Fleets with the same groups are drawn alike: their replicates can be paired."""
        groups = self.groups()
        if len(groups) < 2:  # draws of one group are all alike: no width, which would say that all is certain
            return None
        found: Replicates = {}
        for name, (part, whole) in RATIOS.items():
            counts = [{group: sums.counts[of] for group, sums in groups.items()} for of in (part, whole)]
            found[name] = [_in_units(name, value) for value in of_ratio(*counts)]
        for name in TIMES:
            buckets = {group: sums.times[name] for group, sums in groups.items() if name in sums.times}
            for of, drawn_buckets in of_times(buckets).items():
                found[f"{name}.{of}"] = [None if each is None else middle(each) for each in drawn_buckets]
        return found

    def _group(self, call: list[TurnRow]) -> int:
        clustered = None if self.cluster is None else call[0].labels.get(self.cluster)
        if clustered is not None:
            key = clustered.encode("utf-8", "surrogatepass")
        elif call[0].call is not None:
            key = call[0].call.encode("utf-8", "surrogatepass")
        else:
            key = msgspec.json.encode(call)
        return int.from_bytes(sha256(key).digest()[:8]) % GROUPS

    def _rank(self, call: list[TurnRow], file: str) -> None:
        first = call[0]
        unused = [sum(one.outcome != "adopted" and one.ran is not False for one in row.thoughts) for row in call]
        reports = [sum(row.reports.values()) for row in call]
        waits = [row.end_to_first_item if row.end_to_first_sound is None else row.end_to_first_sound for row in call]
        known = [wait or 0.0 for wait in waits]
        measures: tuple[tuple[str, float, Sequence[float]], ...] = (
            ("latency", max(known), known),
            ("waste", sum(unused), unused),
            ("reports", sum(reports), reports),
        )
        for name, measure, values in measures:
            if not measure:
                continue
            kept = self._worst.setdefault(name, [])
            if len(kept) == WORST and kept[-1].low < -measure:
                continue
            turn = call[values.index(max(values))].number
            kept.append(Worst(-float(measure), file, first.begins, turn, first.call or ""))
            kept.sort()
            del kept[WORST:]


def intervals_of(drawn: Replicates | None) -> dict[str, Any]:
    """The 95 % intervals of replicates, as `Fleet.intervals` gives them."""
    found: dict[str, Any] = {name: None if drawn is None else interval(drawn[name]) for name in RATIOS}
    for name in TIMES:
        each = {} if drawn is None else {of: interval(drawn[f"{name}.{of}"]) for of in NEAREST}
        found[name] = each if any(each.values()) else None
    return found


def arm_of(row: TurnRow, by: str) -> str:
    """The arm of a call, by one of its rows."""
    if by == "source":
        return row.source or "unknown"
    if by in BY:
        given: Mapping[str, Any] = row.policy if by == "policy" else row.settings
        return ", ".join(f"{name}={_short(value)}" for name, value in sorted(given.items())) or "default"
    return row.labels.get(by, NO_LABEL)


def _short(value: object) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text.removeprefix("inkturns.policy.")


def bucket(seconds: float) -> int:
    """The bucket of a time: the middle of bucket n is 1.01 ** n seconds."""
    if seconds == math.inf:
        return BEYOND
    return max(ZERO, round(math.log(seconds) / WIDTH)) if seconds > 0 else ZERO


def middle(of: int) -> float:
    """The time in the middle of a bucket."""
    return 0.0 if of == ZERO else math.inf if of == BEYOND else math.exp(of * WIDTH)


def quantiles(buckets: Mapping[int, int]) -> dict[str, float] | None:
    """The quantiles by nearest rank; None where there are no values."""
    total = sum(buckets.values())
    if not total:
        return None
    found: dict[str, float] = {}
    waiting = [(name, max(1, math.ceil(share * total))) for name, share in NEAREST.items()]
    seen = 0
    for each in sorted(buckets):
        seen += buckets[each]
        while waiting and seen >= waiting[0][1]:
            found[waiting.pop(0)[0]] = middle(each)
    return found


def ratio(counts: Mapping[str, int], name: str) -> float | None:
    """One of RATIOS; None where it would divide by 0."""
    part, whole = RATIOS[name]
    return _in_units(name, counts[part] / counts[whole] if counts[whole] else None)


def _in_units(name: str, value: float | None) -> float | None:
    return value / NANO if value is not None and RATIOS[name][0] == "wasted_cost" else value


def _by_reason(counts: Mapping[str, int], name: str) -> dict[str, int]:
    found = {key.removeprefix(f"{name}."): n for key, n in counts.items() if key.startswith(f"{name}.") and n}
    return dict(sorted(found.items()))
