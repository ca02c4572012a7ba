"""The figures of a fleet as the cells of a table, for a terminal and for a page.

Rules of this file: pure; a cell is text, empty where there is nothing to say. Nothing here is escaped.
"""

from inkturns.report.fleet import RATIOS, REASONS, SHARES, TIMES, Worst
from inkturns.report.summary import DASH, SHOWN, Difference, Findings

__all__ = ["LEGEND", "columns", "rows_of", "said_of", "value_of", "verdicts"]

ROWS = (  # the figures, in the order in which they are read
    *("calls", "turns", "turns_ahead", "saved", "saved_ahead", "end_to_first_sound", "end_to_first_item"),
    *("end_to_first_item_without", "gap", "head_start", "first_item", "extra_calls_per_turn", "wasted_tokens"),
    *("wasted_cost", "wasted_cost_per_turn", "usage_known", "eager_ends", "resumes", "thoughts", "adopted"),
    *("adopted_inexact", "unused", "cancelled", "failed", "finished_unused", "hit_rate", "waste_ratio", "peak_calls"),
    *("false_end_rate", "interrupts", "backchannels", "forced", "stalled", "lost", "abandoned", "reports"),
)
ARMS = 8  # columns, at most; the JSON has all
LEGEND = (
    "times in seconds: p50 p90 p99; in brackets 95 % intervals (of times, of p50)",
    "false_end_rate: only turns whose words go on from the turn before, and that interrupted its reply; an end that "
    "came too early is not seen where the server sends the rest as a new turn",
)
UNITS = {"latency": "s to the first sound", "waste": "unused thoughts", "reports": "reports"}


def columns(summary: Findings) -> dict[str, Findings]:
    """By its heading: all calls, then the arms; one without a heading where there are no arms."""
    return {"all": summary, **dict([*summary.arms.items()][:ARMS])} if summary.arms else {"": summary}


def rows_of(summary: Findings) -> list[tuple[str, list[str]]]:
    """Each figure that is not empty in all columns, with its cells."""
    across = [*columns(summary).values()]
    rows = [(name, [_cell(name, one) for one in across]) for name in ROWS]
    return [(name, cells) for name, cells in rows if any(cells)]


def _cell(name: str, summary: Findings) -> str:
    value, within = summary.figures[name], summary.intervals.get(name)
    if value is None:
        return ""
    if name in TIMES:
        return f"{' '.join(f'{value[of]:.2f}' for of in SHOWN)}{_spread('.2f', within and within['p50'])}"
    if name in REASONS:
        return ", ".join(f"{n:,} {reason.replace('_', ' ')}" for reason, n in value.items())
    if name in SHARES:
        return f"{value * 100:.0f} %{_spread('.0f', within and [each * 100 for each in within])}"
    if not value:
        return ""
    if name in RATIOS:
        return f"{value:.3g}{_spread('.3g', within)}"
    return f"{value:,.4g}" if name == "wasted_cost" else f"{value:,}"


def _spread(form: str, within: list[float] | None) -> str:
    return "" if within is None else f" ({within[0]:{form}}{DASH}{within[1]:{form}})"


def verdicts(summary: Findings) -> list[str]:
    """A sentence on each arm, and on what else differs by more than chance."""
    lines: list[str] = []
    for arm, each in summary.differences().items():
        (name, primary), *others = each.items()
        lines.append(f"{arm} against {summary.control}, {name}: {_verdict(primary)}")
        beyond = [f"{other} {one.difference:+.3g}" for other, one in others if one.more_than_chance]
        if beyond:
            lines.append(f"  besides, each by itself, of {len(others)}: {', '.join(beyond)}")
    if len(summary.arms) > ARMS:
        lines.append(f"{len(summary.arms) - ARMS} more arms are in --json")
    return lines


def _verdict(one: Difference) -> str:
    if one.difference is None:
        return "not known"
    if one.interval is None:
        return f"{one.difference:+.3g}; an interval needs two calls of each"
    least, most = one.interval
    verdict = "more than chance" if one.more_than_chance else "no more than chance"
    return f"{one.difference:+.3g} (95 % {least:+.3g} to {most:+.3g}), {verdict}"


def value_of(name: str, one: Worst) -> str:
    """What a call is worst by, with the unit."""
    return f"{-one.low:.2f} {UNITS[name]}" if name == "latency" else f"{-one.low:g} {UNITS[name]}"


def said_of(summary: Findings) -> list[tuple[str, str]]:
    """What is modelled, not known, or unread, each with a sentence."""
    notes = [*summary.not_known().items()]
    if summary.modelled():
        notes.insert(0, ("modelled, not measured", ", ".join(summary.modelled())))
    if summary.fleet.unread or summary.fleet.faults:
        unread = f"{summary.fleet.unread:,} recordings or paths, {summary.fleet.faults:,} lines"
        notes.append(("unread", f"{unread}; the command named them on standard error"))
    return notes
