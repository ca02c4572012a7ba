"""What a fleet comes to: the answer in one sentence, what could not be computed and why, and all of it as JSON.

Rules of this file: pure; the answer begins with the share of turns and what they saved, never with the hit rate, which
falls as `max_thoughts` rises; that it does not pay is said only against what somebody said it is worth.
"""

from typing import Any

import attrs

from inkturns.report.bootstrap import interval
from inkturns.report.fleet import NO_LABEL, RATIOS, TIMES, Fleet, Replicates, Worst, intervals_of
from inkturns.report.question import Question

__all__ = ["DASH", "PRIMARY", "SHOWN", "Difference", "Findings", "Worth", "seconds_of"]

PRIMARY = "saved.p50"
DASH = "\u2013"
SHOWN = ("p50", "p90", "p99")
CONTROLS = ("control", "default")  # the arm that the others are compared with, where one is called so
NOT_RECORDED = {
    "first_item": "no model's first item was recorded; an Agent records it",
    "saved": "it needs the first item of the adopted thought, which an Agent records",
    "end_to_first_item": "it needs when `respond` took the first item, which an Agent records",
    "end_to_first_item_without": "it needs both of an Agent's notes, on the thought and on the reply",
    "end_to_first_sound": "no ReplyStarted was recorded",
    "gap": "it needs the times of an eager end and of an end",
    "head_start": "it needs the times of a thought and of an end",
}
NOT_OF_SOME = {  # what is true where others have it
    "first_item": "an Agent records it, and a reply that was cut before has none",
    "end_to_first_sound": "it needs a ReplyStarted, and a reply that was cut before has none",
}


@attrs.frozen
class Worth:
    """What thinking ahead may cost: money that a saved second is worth, or extra model calls that a turn may have."""

    per_second: float | None = None
    calls: float | None = None


@attrs.frozen
class Difference:
    """How an arm differs from the one that it is compared with: arm - other. `more_than_chance`: the 95 % interval does
    not hold 0; None where there is no interval."""

    difference: float | None
    interval: list[float] | None

    @property
    def more_than_chance(self) -> bool | None:
        if self.interval is None:
            return None
        return not self.interval[0] <= 0.0 <= self.interval[1]


@attrs.define
class Findings:
    """A fleet with what was asked of it."""

    fleet: Fleet
    question: Question = attrs.field(factory=Question)
    worth: Worth | None = None
    primary: str = PRIMARY
    is_whole: bool = True  # and not an arm
    figures: dict[str, Any] = attrs.field(init=False)
    intervals: dict[str, Any] = attrs.field(init=False)
    drawn: Replicates | None = attrs.field(init=False)
    arms: "dict[str, Findings]" = attrs.field(init=False, factory=dict)

    def __attrs_post_init__(self) -> None:
        if self.primary not in MEASURES:
            raise ValueError(f"the primary measure must be one of {', '.join(MEASURES)}, got {self.primary!r}")
        self.figures = self.fleet.figures()
        self.drawn = self.fleet.replicates()
        self.intervals = intervals_of(self.drawn)
        if self.fleet.by is not None and self.is_whole:
            self.arms = {name: Findings(arm, self.question, is_whole=False) for name, arm in self.fleet.arms().items()}

    # -- the answer

    def answer(self) -> str:
        """One sentence, or two."""
        figures = self.figures
        turns, ahead = figures["turns"], figures["turns_ahead"]
        if not turns:
            some = "the calls that --since and --where leave" if self.question.is_of_some else "these recordings"
            return f"There is no answered turn in {some}."
        if not ahead:
            return f"{self._verdict()}No thought that began ahead was adopted in {_many(turns, 'turn')}{self._cost()}."
        share = f"in {ahead:.0%} of {_many(turns, 'turn')}".replace("%", " %")
        saved, assumed = figures["saved_ahead"], self._assumed()
        if saved is None:
            head = figures["head_start"]
            early = "" if head is None else f"; the median reply had {_s(head['p50'])} of head start"
            return (
                f"{self._verdict()}Thoughts began ahead {share}{early}{self._cost()}. How much earlier replies began "
                f"is not known: {NOT_RECORDED['first_item']}."
            )
        would = "would make" if assumed else "made"
        after = seconds_of(self.question.latency) if assumed else ""
        where = f" in the {assumed:,} turns where none was measured" if assumed < self._with_saved() else ""
        model = f", if a model's first item came after {after}{where} (modelled)" if assumed else ""
        return (
            f"{self._verdict()}Thinking ahead {would} replies begin {_s(saved['p50'])} earlier "
            f"(p50; p90 {_s(saved['p90'])}) {share}{self._cost()}{model}."
        )

    def _assumed(self) -> int:
        """In how many turns the time to the first item is not measured, but assumed."""
        return self.fleet.sums().counts["unmeasured"] if self.question.latency else 0

    def _with_saved(self) -> int:
        return sum(self.fleet.sums().times.get("saved", {}).values())

    def _cost(self) -> str:
        figures = self.figures
        extra = f", for {figures['extra_calls_per_turn']:.2f} more model calls a turn"
        per_turn, within = figures["wasted_cost_per_turn"], self.intervals["wasted_cost_per_turn"]
        if not per_turn:
            return extra
        spread = "" if within is None else f", 95 % {_money(within[0] * 1000)}{DASH}{_money(within[1] * 1000)}"
        return f"{extra} (${_money(per_turn * 1000)} in 1,000 turns{spread})"

    def _verdict(self) -> str:
        pays = self.pays()
        if self.worth is None:
            return ""
        return {True: "It pays: ", False: "It does not pay: ", None: "Whether it pays cannot be told: "}[pays]

    def pays(self) -> bool | None:
        """Whether it is worth it; None where that was not asked, or where these calls cannot tell."""
        if self.worth is None:
            return None
        if not self.figures["turns_ahead"]:  # nothing was gained
            return False if self.fleet.sums().counts["speculative"] else None
        if self.worth.calls is not None:
            extra, within = self.figures["extra_calls_per_turn"], self.intervals["extra_calls_per_turn"]
            margins = [] if extra is None else [self.worth.calls - each for each in within or [extra]]
        else:
            assert self.worth.per_second is not None
            costs = bool(self.figures["wasted_cost"]) or not self.figures["unused"]
            net = self.fleet.net_per_turn(self.worth.per_second) if costs and self.figures["saved"] else None
            margins = [] if net is None else net[1] or [net[0]]
        if not margins or min(margins) < 0 <= max(margins):
            return None
        return bool(min(margins) >= 0)

    def _why_untold(self, worth: Worth) -> str:
        """Why these calls cannot tell whether it pays."""
        counts = self.fleet.sums().counts
        if not counts["speculative"]:
            return "no thought began before its turn's end"
        if worth.calls is None and not self.figures["saved"]:
            return "how much earlier replies began is not known"
        if worth.calls is None and counts["unused"] and not counts["wasted_cost"]:
            return "no unused thought told what it cost; --worth calls=0.5 does not need it"
        return "the 95 % interval allows both; more calls make it narrower"

    # -- what is not known

    def not_known(self) -> dict[str, str]:
        """What could not be computed, or not of all turns, and why; by the figure's name."""
        figures, sums, found = self.figures, self.fleet.sums(), dict[str, str]()
        turns = figures["turns"]
        for name, why in NOT_RECORDED.items():
            of = sums.counts["ahead"] if name == "gap" else turns
            lacking = of - sum(sums.times.get(name, {}).values())
            if lacking < of:
                why = NOT_OF_SOME.get(name, why)
            if of and lacking > 0:
                found[name] = f"not recorded in {lacking:,} of {_many(of, 'turn')}: {why}"
        known = figures["usage_known"]
        if known is not None and known < 1:
            imputed = "; --prices filled in the rest of wasted_cost (modelled)" if self.question.prices else ""
            if not imputed and self.worth is not None and self.worth.calls is None and self.pays() is not None:
                imputed = ", and whether it pays is said as if the rest had cost nothing"
            found["wasted_cost"] = (
                f"usage was told of {known:.0%} of the thoughts: a cancelled stream often sends none, so wasted_tokens "
                f"and wasted_cost are too low{imputed}".replace("%", " %")
                if known
                else "no thought told its usage; an Agent records `thought.usage(…)`"
            )
        if self.drawn is None:
            found["intervals"] = "an interval needs two calls" + (
                " that do not belong together (the same id, or the same --cluster)" if figures["calls"] > 1 else ""
            )
        if self.worth is not None and self.pays() is None:
            found["worth"] = f"whether it pays: {self._why_untold(self.worth)}"
        if [*self.arms] == [NO_LABEL]:
            found["arms"] = f"no call has the label {self.fleet.by}"
        if (alone := self.fleet.without_cluster()) is not None:
            found["cluster"] = alone
        if self.fleet.left_out:
            found["calls"] = f"of {_many(self.fleet.left_out, 'call')} nobody knows when they began: they are left out"
        return found

    def modelled(self) -> list[str]:
        """The figures that are modelled, and not measured."""
        names = ["first_item", "saved", "saved_ahead"] if self._assumed() else []
        return names + (["wasted_cost", "wasted_cost_per_turn"] if self.question.prices else [])

    # -- arms

    @property
    def control(self) -> str | None:
        """The arm that the others are compared with: "control", "default", or the first by name."""
        return next((name for name in CONTROLS if name in self.arms), next(iter(self.arms), None))

    def differences(self) -> dict[str, dict[str, Difference]]:
        """How each other arm differs from `control`, by measure: the primary one first."""
        if self.control is None:
            return {}
        control = self.arms[self.control]
        names = sorted(MEASURES, key=lambda name: name != self.primary)
        found = {}
        for arm, summary in self.arms.items():
            if arm != self.control:
                found[arm] = {name: _difference(name, summary, control) for name in names}
        return found

    # -- JSON

    def as_json(self) -> dict[str, Any]:
        """One object: the figures by their names, times as {"p50", "p90", "p99"} or null, intervals, arms."""
        differences = {
            arm: {name: _difference_as_json(one) for name, one in each.items()}
            for arm, each in self.differences().items()
        }
        return {
            "answer": self.answer(),
            **self._values(),
            "arms": {name: arm._values() for name, arm in self.arms.items()},
            "differences": {"control": self.control, "primary": self.primary, "arms": differences},
            "worst": {name: [_worst_as_json(one) for one in calls] for name, calls in self.fleet.worst().items()},
            "modelled": self.modelled(),
            "unread": self.fleet.unread,
            "unread_lines": self.fleet.faults,
            "not_known": self.not_known(),
        }

    def _values(self) -> dict[str, Any]:
        values = {name: _short(name, value) for name, value in self.figures.items()}
        return {**values, "intervals": {name: _short(name, value) for name, value in self.intervals.items()}}


MEASURES = (*RATIOS, *(f"{name}.{of}" for name in TIMES for of in SHOWN))  # that arms are compared by


def _difference(name: str, one: Findings, other: Findings) -> Difference:
    values = [_measure(summary.figures, name) for summary in (one, other)]
    if values[0] is None or values[1] is None:
        return Difference(None, None)
    within = None
    if one.drawn is not None and other.drawn is not None:
        pairs = zip(one.drawn[name], other.drawn[name], strict=True)
        within = interval([a - b for a, b in pairs if a is not None and b is not None])
    return Difference(values[0] - values[1], within)


def _measure(figures: dict[str, Any], name: str) -> float | None:
    measure, _, of = name.partition(".")
    value = figures[measure]
    found: float | None = value if not of or value is None else value[of]
    return found


def _difference_as_json(one: Difference) -> dict[str, Any]:
    return {"difference": one.difference, "interval": one.interval, "more_than_chance": one.more_than_chance}


def _worst_as_json(one: Worst) -> dict[str, Any]:
    return {"value": -one.low, "file": one.file, "line": one.begins, "call": one.call or None, "turn": one.turn}


def _short(name: str, value: Any) -> Any:
    return {of: value[of] for of in SHOWN} if name in TIMES and value is not None else value


def seconds_of(values: tuple[float, ...]) -> str:
    """The values, from the least to the most: "0.8 s", "0.3 to 1.2 s"."""
    return f"{min(values):g} s" if min(values) == max(values) else f"{min(values):g} to {max(values):g} s"


def _many(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def _s(value: float) -> str:
    return f"{value:.2f} s"


def _money(value: float) -> str:
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.2g}"
