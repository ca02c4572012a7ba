"""A picture as one HTML page that needs nothing else: no network, no other file.

Rules of this file: whatever comes from a recording is escaped, and the page's own Content-Security-Policy allows its
one script and no fetch at all, so that a transcript that is a script does nothing, twice over; the page is whole
without the script, which adds rows, zoom and tips.
"""

from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256
from html import escape
from itertools import zip_longest

from inkturns.report.picture import (
    Bar,
    BarKind,
    Bracket,
    Mark,
    MarkKind,
    Picture,
    PictureLane,
    TurnLine,
    moment,
    text_of,
)

__all__ = ["SPAN", "page"]

SPAN = 10  # seconds in a row, at first
LATE = 1e9  # seconds: the end of the room for a caption that nothing follows
LOOKS = {BarKind.REPLY: "heard"}
LEGEND = (
    ('<i class="bar turn"></i>', "the user's turn"),
    ('<u style="left:12px;top:4px"></u><u style="left:20px;top:4px"></u>', "its words grow"),
    ('<i class="mark eager_end"></i>', "eager end: maybe done"),
    ('<i class="mark resume"></i>', "resume: the user goes on"),
    ('<i class="bar held" style="--part:1"></i>', "a thought, held"),
    ('<i class="bar adopted" style="--part:.4"></i>', "adopted: the reply"),
    ('<i class="bar cancelled" style="--part:1"></i>', "cancelled"),
    ('<i class="mark first_item"></i>', "its first item"),
    ('<i class="bar heard" style="--part:0"></i>', "a reply, heard"),
    ('<i class="bar cut" style="--part:0"></i>', "interrupted"),
    ('<i class="bracket"></i>', "from the end to the first sound"),
    ('<i class="without"></i>', "later without thinking ahead"),
)
RARE = {
    MarkKind.STALL: "stall: the words do not move",
    MarkKind.REPORT: "report: out of contract, repaired",
    MarkKind.LOST: "connection lost",
    MarkKind.PAUSE: "recorder paused",
}


def page(picture: Picture) -> str:
    """The whole page. All of it stands in the file: styles, script and data."""
    script = text_of("page.js")
    allowed = b64encode(sha256(script.encode()).digest()).decode()
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width,initial-scale=1">',
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
            f"script-src 'sha256-{allowed}'\">",
            f"<title>{escape(picture.title)} · inkturns</title>",
            f"<style>{text_of('colours.css')}{text_of('print.css')}{text_of('page.css')}</style></head><body>",
            *_head(picture),
            *_timeline(picture),
            *_table(picture.turns),
            *_not_known(picture.not_known),
            f'<div id="tip" role="tooltip" hidden></div><script>{script}</script></body></html>',
            "",
        ]
    )


def _head(picture: Picture) -> Iterator[str]:
    about = " · ".join(f"{escape(name)} {escape(value)}" for name, value in picture.about)
    yield f'<header><h1>{escape(picture.title)}</h1><p class="about">{about}</p>'
    yield f'<p class="answer">{escape(picture.answer)}</p>'
    kinds = {mark.kind for lane in picture.lanes for mark in lane.marks}
    items = [*LEGEND, *((f'<i class="mark {kind}"></i>', text) for kind, text in RARE.items() if kind in kinds)]
    yield '<ul class="legend" aria-label="Legend">'
    yield from (f'<li><span aria-hidden="true">{look}</span>{text}</li>' for look, text in items)
    yield "</ul></header>"
    yield '<div class="zoom" role="group" aria-label="Zoom" hidden>'
    yield '<button type="button" aria-label="Zoom out">&minus;</button><output aria-live="polite"></output>'
    yield '<button type="button" aria-label="Zoom in">+</button>'
    yield "<small>point at anything, or Tab and the arrow keys; <kbd>+</kbd> <kbd>&minus;</kbd> zoom</small></div>"


# -- the timeline


def _timeline(picture: Picture) -> Iterator[str]:
    uncut = " ".join(f"{begins:.10g},{ends:.10g}" for begins, ends in picture.uncut)
    shared = {mark.kind: mark.tip[0] for lane in picture.lanes for mark in lane.marks}
    tips = "".join(f' data-{kind}="{escape(tip)}"' for kind, tip in shared.items())
    length = f"{max(picture.seconds, 1):.10g}"
    yield (
        f'<section id="timeline" aria-label="Timeline" data-span="{SPAN}" data-seconds="{length}" '
        f'data-uncut="{uncut}"{tips}><div class="strip" role="group" style="--t:0;--s:{length};--w:{length}">'
        '<div class="plot">'
    )
    for lane in picture.lanes:
        if lane.name == "Reply":
            yield _lane("Wait", _brackets(picture.brackets))
        yield _lane(lane.name, _things(lane, shared))
    yield "</div></div></section>"


def _lane(name: str, things: Iterator[str]) -> str:
    return f'<div class="lane {name.lower()}"><h3>{name}</h3>{"".join(things)}</div>'


def _things(lane: PictureLane, shared: dict[MarkKind, str]) -> Iterator[str]:
    before = 0.0
    for bar, following in zip_longest(lane.bars, lane.bars[1:]):
        yield _bar(bar)
        room = LATE if following is None else following.begins
        if bar.kind in (BarKind.CANCELLED, BarKind.FAILED):  # its caption stands where it was cancelled
            yield _caption("ends", before, bar.ends, bar.caption)
        else:
            begins = bar.until if bar.kind in (BarKind.REPLY, BarKind.CUT) else bar.begins
            yield _caption("said" if _is_told(bar) else "told", begins, room, bar.caption)
        before = bar.ends
    yield from (_mark(mark, shared) for mark in lane.marks)


def _caption(look: str, begins: float, ends: float, text: str) -> str:
    return f"<s class={look}{_at(begins, max(begins, ends))}>{escape(text, quote=False)}</s>" if text else ""


def _is_told(bar: Bar) -> bool:
    """The caption is a line of the tip too. The file has it once: the script puts it into the tip."""
    return bar.tip[1:2] == (f"“{bar.caption}”",)


def _bar(bar: Bar) -> str:
    look = LOOKS.get(bar.kind, bar.kind) + (" open" if bar.open else "")
    tip = bar.tip[:1] + bar.tip[2:] if _is_told(bar) else bar.tip
    mine = f' id="turn-{bar.turn}"' if bar.kind is BarKind.TURN else ""
    number = str(bar.turn) if bar.kind is BarKind.TURN else ""
    style = _at(bar.begins, bar.ends, None if bar.kind is BarKind.TURN else bar.until)
    return f'<div class="bar {look}"{mine}{style}{_label(tip)}>{number}</div>'


def _mark(mark: Mark, shared: dict[MarkKind, str]) -> str:
    if mark.kind is MarkKind.WORDS:  # the most of all: its tip is made by the script
        return f"<u{_at(mark.at)}>{escape(mark.tip[0].removeprefix('Heard: '), quote=False)}</u>"
    label = "" if shared.get(mark.kind) == mark.tip[0] else _label(mark.tip)
    if mark.kind is MarkKind.REVISED:
        return f"<u class=anew{_at(mark.at)}{label}></u>"
    return f'<i class="mark {mark.kind}"{_at(mark.at)}{label}></i>'


def _brackets(brackets: tuple[Bracket, ...]) -> Iterator[str]:
    for one, following in zip_longest(brackets, brackets[1:]):
        latest = one.sound if one.without is None else one.without
        if one.without is not None:
            yield f"<i class=without{_at(one.sound, one.without)}></i>"
        yield f"<i class=bracket{_at(one.end, one.sound)}{_label(one.tip)}></i>"
        yield _caption("told", latest, LATE if following is None else following.end, one.caption)


def _at(begins: float, ends: float | None = None, until: float | None = None) -> str:
    given = {"a": begins, "b": ends, "u": until}
    return " style=" + ";".join(
        f"--{name}:{round(value, 3):.12g}" for name, value in given.items() if value is not None
    )


def _label(tip: tuple[str, ...]) -> str:
    lines = "\n".join(tip)
    return f' aria-label="{escape(lines)}"'


# -- the turns in numbers, and what is not known


def _table(turns: tuple[TurnLine, ...]) -> Iterator[str]:
    if not turns:
        return
    heads = ("Turn", "Ends at", "Words", "Outcome", "Thoughts", "First sound after", "Without thinking ahead", "Saved")
    yield "<h2>Turns</h2><table><thead><tr>"
    yield "".join(f"<th>{head}" for head in heads) + "<tbody>"
    for one in turns:
        link = f"<a href=#turn-{one.turn}>{one.turn}</a>"
        times = [_s(one.wait), _s(one.without), _s(one.saved)]
        cells = [link, moment(one.at), escape(one.words, quote=False), escape(one.end), str(one.thoughts), *times]
        yield "<tr>" + "".join(f"<td>{cell}" for cell in cells)
    yield "</tbody></table>"


def _s(value: float | None) -> str:
    return "&ndash;" if value is None else f"{value:.2f} s"


def _not_known(sentences: tuple[str, ...]) -> Iterator[str]:
    if sentences:
        yield '<h2>Not known</h2><ul class="notes">'
        yield "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences) + "</ul>"
