"""A report as one HTML page that needs no network, no script, and no other file but the timelines that it links to.

Rules of this file: whatever comes from a recording is escaped, and the page's own Content-Security-Policy allows no
script and no fetch, so that a label that is a script does nothing, twice over.
"""

import html
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import NamedTuple
from urllib.parse import quote

from inkturns.printable import printable
from inkturns.report.fleet import Fleet, middle
from inkturns.report.picture import text_of
from inkturns.report.summary import Findings
from inkturns.report.table import LEGEND, columns, rows_of, said_of, value_of, verdicts

__all__ = ["FrontierPoint", "fleet_page"]

COLOURS = ("user", "wait", "reply", "thought", "bad", "quiet")  # of arms, in their order; more are not drawn
WIDE, HIGH, LEFT, BELOW = 560, 260, 64, 40  # of a chart, with room for its axes
TICKS = (1, 2, 2.5, 5)  # times a power of ten


class FrontierPoint(NamedTuple):
    """What a policy would do: extra model calls a turn, and seconds saved a turn, in the mean."""

    policy: str
    extra_calls: float
    saved: float


def fleet_page(
    summary: Findings, links: Mapping[tuple[str, int], str] | None = None, frontier: Sequence[FrontierPoint] = ()
) -> str:
    """The whole page. `links`: the timelines of the worst calls, by recording and line; `frontier`: the best policies
    of a sweep, drawn where there are any."""
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width,initial-scale=1">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            "<title>Does thinking ahead pay? · inkturns</title>",
            f"<style>{text_of('colours.css')}{text_of('print.css')}{text_of('fleet.css')}</style></head><body>",
            "<header><h1>Does thinking ahead pay?</h1>",
            f'<p class="answer">{_escaped(summary.answer())}</p></header>',
            *(f"<p>{_escaped(line.strip())}</p>" for line in verdicts(summary)),
            '<div class="charts">',
            *_distribution(summary),
            *_gain_and_waste(summary),
            *_frontier(frontier),
            "</div>",
            *_table(summary),
            *_worst(summary.fleet, links or {}),
            *_notes(summary),
            "</body></html>",
            "",
        ]
    )


def _table(summary: Findings) -> Iterator[str]:
    heads = [name for name in columns(summary) if name]
    yield '<h2>Figures</h2><div class="wide"><table>'
    if heads:
        yield f"<thead><tr><td></td>{''.join(f'<th scope=col>{_escaped(name)}' for name in heads)}</thead>"
    yield "<tbody>"
    for name, cells in rows_of(summary):
        yield f"<tr><th scope=row>{name}{''.join(f'<td>{_escaped(cell)}' for cell in cells)}"
    yield "</tbody></table></div>"
    yield from (f'<p class="about">{_escaped(line)}</p>' for line in LEGEND)


def _worst(fleet: Fleet, links: Mapping[tuple[str, int], str]) -> Iterator[str]:
    for name, calls in fleet.worst().items():
        if not calls:
            continue
        yield f"<h2>Worst by {name}</h2><ol>"
        for one in calls:
            where = _escaped(f"{one.file}:{one.begins}" + (f", call {one.call}" if one.call else ""))
            link = links.get((one.file, one.begins))
            shown = where if link is None else f'<a href="{_escaped(quote(link))}#turn-{one.turn}">{where}</a>'
            yield f"<li>{value_of(name, one)}: {shown}, turn {one.turn}</li>"
        yield "</ol>"


def _notes(summary: Findings) -> Iterator[str]:
    notes = said_of(summary)
    if notes:
        yield "<h2>Not known, or not of all</h2><ul>"
        yield from (f"<li><b>{_escaped(name)}</b>: {_escaped(why)}</li>" for name, why in notes)
        yield "</ul>"


# -- charts


def _arms(summary: Findings) -> list[tuple[str, Findings, str]]:
    """The arms that are drawn, each with its colour."""
    arms = {**summary.arms} or {"all calls": summary}
    return [(name, arm, colour) for (name, arm), colour in zip(arms.items(), COLOURS, strict=False)]


def _distribution(summary: Findings) -> Iterator[str]:
    """The share of turns in which so much or less was saved, by arm."""
    curves = []
    for name, arm, colour in _arms(summary):
        buckets: Mapping[int, int] = arm.fleet.sums().times.get("saved", {})
        total, seen, points = sum(buckets.values()), 0, [(0.0, 0.0)]
        for each in sorted(buckets):
            points.append((middle(each), seen / total))
            seen += buckets[each]
            points.append((middle(each), seen / total))
        if total:
            curves.append((name, colour, points))
    if not curves:
        return
    most = max(points[-1][0] for _, _, points in curves) or 1.0
    x, y = _Axis(most, "seconds saved"), _Axis(1.0, "share of turns")
    yield from _chart("How much was saved, by share of turns", x, y)
    for name, colour, points in curves:
        at = " ".join(f"{x.along(a):.1f},{y.up(b):.1f}" for a, b in [*points, (x.most, 1.0)])
        yield f'<polyline class="{colour}" points="{at}"><title>{_escaped(name)}</title></polyline>'
    yield "</svg>"
    yield from _legend([(name, colour) for name, colour, _ in curves])


def _gain_and_waste(summary: Findings) -> Iterator[str]:
    """What was gained against what it took: the median of `saved`, and extra model calls a turn, with intervals."""
    arms = [
        (name, arm, colour, arm.figures["extra_calls_per_turn"], arm.figures["saved"]["p50"])
        for name, arm, colour in _arms(summary)
        if arm.figures["saved"] is not None and arm.figures["extra_calls_per_turn"] is not None
    ]
    if not arms:
        return
    reach = [(extra, saved) for *_, extra, saved in arms]
    for _, arm, *_ in arms:
        ends = arm.intervals["extra_calls_per_turn"], (arm.intervals["saved"] or {}).get("p50")
        reach += [(0.0 if ends[0] is None else ends[0][1], 0.0 if ends[1] is None else ends[1][1])]
    x = _Axis(max(extra for extra, _ in reach) or 1.0, "more model calls a turn")
    y = _Axis(max(saved for _, saved in reach) or 1.0, "seconds saved (p50)")
    yield from _chart("Gain against waste", x, y)
    for name, arm, colour, extra, saved in arms:
        across, up = arm.intervals["extra_calls_per_turn"], (arm.intervals["saved"] or {}).get("p50")
        if across is not None:
            yield _line(colour, x.along(across[0]), y.up(saved), x.along(across[1]), y.up(saved))
        if up is not None:
            yield _line(colour, x.along(extra), y.up(up[0]), x.along(extra), y.up(up[1]))
        yield _dot(x, y, extra, saved, colour, 5, f"{name}: {saved:.2f} s saved, {extra:.2f} more calls a turn")
    yield "</svg>"
    yield from _legend([(name, colour) for name, _, colour, *_ in arms])


def _frontier(points: Sequence[FrontierPoint]) -> Iterator[str]:
    """What a sweep's policies would gain, against what they would take: those that no other beats."""
    if not points:
        return
    x = _Axis(max(one.extra_calls for one in points) or 1.0, "more model calls a turn")
    y = _Axis(max(one.saved for one in points) or 1.0, "seconds saved a turn (mean)")
    yield from _chart("Other policies: the frontier of the sweep", x, y)
    best = sorted((one.extra_calls, one.saved, one.policy) for one in points)
    at = " ".join(f"{x.along(extra):.1f},{y.up(saved):.1f}" for extra, saved, _ in best)
    yield f'<polyline class="ink frontier" points="{at}"/>'
    for extra, saved, policy in best:
        yield _dot(x, y, extra, saved, "ink", 4, f"{policy}: {saved:.3f} s saved, {extra:.2f} more calls a turn")
    yield "</svg>"
    yield from _legend([("a policy that no other beats; point at it for its name", "ink")])


class _Axis:
    """From 0 to a round number that is not below `most`."""

    def __init__(self, most: float, title: str) -> None:
        steps = (tick * 10.0**power for power in count(-6) for tick in TICKS)
        self.step = next(step for step in steps if step * 5 >= most)
        self.most, self.title = self.step * max(1, -(-most // self.step)), title

    def along(self, value: float) -> float:
        return LEFT + value / self.most * (WIDE - LEFT - 16)

    def up(self, value: float) -> float:
        return HIGH - BELOW - value / self.most * (HIGH - BELOW - 12)

    def ticks(self) -> Iterator[float]:
        yield from (self.step * n for n in range(round(self.most / self.step) + 1))


def _chart(title: str, x: _Axis, y: _Axis) -> Iterator[str]:
    yield f'<figure><figcaption>{title}</figcaption><svg viewBox="0 0 {WIDE} {HIGH}" role="img" aria-label="{title}">'
    for value in x.ticks():
        yield f'<text x="{x.along(value):.1f}" y="{HIGH - BELOW + 16}" text-anchor="middle">{value:g}</text>'
    for value in y.ticks():
        yield _line("grid", LEFT, y.up(value), WIDE - 16, y.up(value))
        yield f'<text x="{LEFT - 8}" y="{y.up(value) + 4:.1f}" text-anchor="end">{value:g}</text>'
    yield f'<text x="{(LEFT + WIDE) / 2:.0f}" y="{HIGH - 6}" text-anchor="middle">{x.title}</text>'
    yield f'<text transform="translate(12 {(HIGH - BELOW) / 2:.0f}) rotate(-90)" text-anchor="middle">{y.title}</text>'


def _line(look: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{look}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _dot(x: _Axis, y: _Axis, extra: float, saved: float, look: str, size: int, tip: str) -> str:
    at = f'cx="{x.along(extra):.1f}" cy="{y.up(saved):.1f}" r="{size}"'
    return f'<circle class="{look}" {at}><title>{_escaped(tip)}</title></circle>'


def _legend(names: list[tuple[str, str]]) -> Iterator[str]:
    items = "".join(f'<li><i class="{colour}"></i>{_escaped(name)}' for name, colour in names)
    yield f"<ul class=legend>{items}</ul></figure>"


def _escaped(text: str) -> str:
    """Text that is neither markup nor reorders what stands beside it."""
    return html.escape(printable(text))
