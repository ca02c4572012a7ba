"""What `inkturns what-if` prints: one sentence, the two side by side, how it is known, what is not.

Rules of this file: names of a recording are printable text, never markup (F57). Needs `rich` (extra `cli`).
"""

from collections.abc import Callable, Iterator

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from inkturns.cli.report_text import print_table
from inkturns.printable import printable
from inkturns.report.summary import seconds_of
from inkturns.report.sweep import Sweep, as_typed, imports
from inkturns.report.thresholds import Thresholds
from inkturns.report.whatif import GRADES, Comparison, Figures

__all__ = ["print_comparison"]

COUNTS = ("calls", "turns", "thoughts", "unused", "failed", "wasted_tokens")
SHARES = ("turns_ahead", "hit_rate", "waste_ratio")
TIMES = ("gap", "head_start", "first_item", "saved", "end_to_first_item", "end_to_first_item_without")
SHOWN = ("p50", "p90", "p99")
WIDEST = 1000  # a table, in characters
BECAME = {  # what became of Flux's eager ends and ends
    "same": "would have come as they did",
    "later": "would have come later",
    "joined": "would not have come, since the user spoke on",
    "none": "would not have come",
}


def print_comparison(answer: Comparison | Thresholds) -> None:
    """Prints the comparison."""
    out, values = Console(highlight=False), answer.as_json()
    recorded, other = values["recorded"], values["other"]
    out.print(Text(_sentence(recorded, other), "bold"), soft_wrap=True)
    if recorded["calls"]:
        out.print()
        table = _table(answer, values)
        print_table(out, table, Measurement.get(out, out.options.update_width(WIDEST), table).maximum)
    for line in ["", *_known(answer, other), *(f"Not known: {sentence}." for sentence in values["not_known"])]:
        out.print(Text(printable(line)), soft_wrap=True)


def print_sweep(answer: Sweep, most: float) -> None:
    """Prints the frontier, and the policy that gains most where at most so much is wasted, as Python to paste."""
    out, values = Console(highlight=False), answer.as_json(most)
    table = Table(box=None, pad_edge=False)
    points = [*answer.frontier(), answer.recorded]
    is_priced = any(point.cost for point in points)
    for title in ("gain a turn", "extra calls a turn", *["1,000 turns cost"] * is_priced, "ahead"):
        table.add_column(title, justify="right")
    table.add_column("policy", overflow="fold", min_width=24)
    for point in points:
        cells = [_milli(point.gain), _number(point.extra_calls), *[_number(point.cost)] * is_priced]
        policy = "as recorded" if point is answer.recorded else as_typed(point.changes) or "as by default"
        table.add_row(*cells, _share(point.turns_ahead), Text(printable(policy)))
    limit = f"{most:g} in 1,000 turns" if answer.in_money else f"{most:g} extra model calls a turn"
    best = values["best"]
    out.print(Text(f"{answer.tried} policies on {answer.calls:,} calls; those that no other beats:", "bold"))
    print_table(out, table, Measurement.get(out, out.options.update_width(WIDEST), table).minimum)
    out.print()
    if best is None:
        out.print(Text(f"No policy is known to stay within {limit}."), soft_wrap=True)
    elif best["gain"] <= 0:
        out.print(Text(f"No policy gains anything within {limit}."), soft_wrap=True)
    else:
        out.print(Text(f"It gains most within {limit} ({_milli(best['gain'])} a turn):"), soft_wrap=True)
        for line in imports(best["policy"]).splitlines():
            out.print(Text(printable(line)), soft_wrap=True)
        out.print(Text(printable(best["policy"]), "bold"), soft_wrap=True)
    out.print()
    for sentence in values["not_known"]:
        out.print(Text(printable(f"Not known: {sentence}.")), soft_wrap=True)


def _milli(value: float) -> str:
    return f"{value:.3f} s"


def _sentence(recorded: Figures, other: Figures) -> str:
    if not recorded["turns"]:
        return "No turns to compare."
    calls = [_number(one["extra_calls_per_turn"]) for one in (recorded, other)]
    ahead = [_share(one["turns_ahead"]) for one in (recorded, other)]
    saved = [_seconds(None if one["saved"] is None else one["saved"]["p50"]) for one in (recorded, other)]
    return (
        f"Thinking ahead answered {ahead[0]} of {recorded['turns']:,} turns, and would have answered {ahead[1]}. "
        f"Saved (p50 of all turns): {saved[0]}, and would have been {saved[1]}. "
        f"Extra model calls a turn: {calls[0]}, and would have been {calls[1]}."
    )


def _table(answer: Comparison | Thresholds, values: Figures) -> Table:
    partly = ""
    if isinstance(answer, Comparison) and answer.exact:
        partly = f"{_share(answer.shares['exact'])} exact"
    table = Table(box=None, pad_edge=False)
    for title in ("", "recorded", "other", "95 %", "grade"):
        table.add_column(title, no_wrap=True, justify="left" if title in ("", "grade") else "right")
    for name, *cells, grade in _rows(values):
        is_partly = GRADES[name.partition(" ")[0]] == "exact" and grade == "modelled"
        table.add_row(Text(name, "dim"), *(Text(cell) for cell in cells), Text((is_partly and partly) or grade))
    return table


def _rows(values: Figures) -> Iterator[tuple[str, str, str, str, str]]:
    recorded, other, grades = values["recorded"], values["other"], values["grades"]
    within = other["intervals"]
    for name in COUNTS:
        told = name != "wasted_tokens" or recorded["usage_known"]
        cells = (f"{one[name]:,}" if told else "?" for one in (recorded, other))
        yield name, *cells, "", grades[name]
    for name in SHARES:
        yield name, _share(recorded[name]), _share(other[name]), _interval(within[name], _share), grades[name]
    name = "extra_calls_per_turn"
    yield name, _number(recorded[name]), _number(other[name]), _interval(within[name], _number), grades[name]
    name = "wasted_cost_per_turn"
    if recorded[name] or other[name]:
        yield name, _money(recorded[name]), _money(other[name]), _interval(within[name], _money), grades[name]
    for name in TIMES:
        if recorded[name] is None and other[name] is None:
            continue
        for of in SHOWN:
            one, another, around = ((each or {}).get(of) for each in (recorded[name], other[name], within[name]))
            yield f"{name} {of}", _seconds(one), _seconds(another), _interval(around, _seconds), grades[name]


def _known(answer: Comparison | Thresholds, other: Figures) -> Iterator[str]:
    if latency := answer.question.latency:
        yield (
            "modelled: where no first item was measured, it is assumed to come after "
            f"{seconds_of(latency)} (--latency)."
        )
    if any(None in other[name].values() for name in TIMES if other[name] is not None):
        yield "?: longer than any time that was seen."
    if isinstance(answer, Comparison):
        if answer.turns:
            yield (
                f"exact: in {_share(answer.shares['exact'])} of the turns no reply was in flight in either world, and "
                "what is thought is decided by what was recorded; in the others it is modelled."
            )
        if answer.thoughts and answer.measured:
            yield (
                f"modelled: the time to the first item is the thought's own where it ran; it was drawn for "
                f"{_share(answer.shares['drawn'])} of {answer.thoughts:,} thoughts (Kaplan-Meier)."
            )
        return
    for name, counts in ("eager ends", answer.eager), ("ends", answer.ends):
        said = ", ".join(f"{counts[what]:,} {words}" for what, words in BECAME.items() if counts[what])
        yield f"{name}: {said or 'none were recorded'}."


def _interval(within: list[float | None] | None, text: Callable[[float | None], str]) -> str:
    return "" if within is None else f"{text(within[0])} to {text(within[1])}"


def _number(value: float | None) -> str:
    return "?" if value is None else f"{value:.2f}"


def _money(value: float | None) -> str:
    return "?" if value is None else f"{value:.3g}"


def _share(value: float | None) -> str:
    return "?" if value is None else f"{100 * value:.0f} %"


def _seconds(value: float | None) -> str:
    return "?" if value is None else f"{value:.2f} s"
