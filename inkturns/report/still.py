"""A picture as a still: one SVG that needs nothing else.

Rules of this file: whatever comes from a recording is escaped; the same picture gives the same bytes; the lanes, the
looks and the rows are those of the page.
"""

from collections.abc import Iterator
from html import escape
from itertools import zip_longest
from unicodedata import east_asian_width

from msgspec import Struct

from inkturns.report.picture import Bar, BarKind, Bracket, Mark, MarkKind, Picture, PictureLane, rows, text_of

__all__ = ["still"]

WIDTH, LEFT, RIGHT = 1160, 92, 20
SPAN = 10.0  # seconds in a row
FAR, FARTHER = 60, 150  # seconds in a row, from which on there is no room for what is fine, and for captions
FINE = (MarkKind.WORDS, MarkKind.REVISED, MarkKind.FIRST_ITEM)
MOST = 60  # rows; a longer call has more seconds in each
AXIS, GAP = 16, 16
HEIGHTS = {"User": 42, "Thoughts": 37, "Wait": 21, "Reply": 38, "Reports": 20}
NARROW = frozenset("fijlrtI.,:;'|!()[] ")
HATCH = (
    '<pattern id="{id}" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(-45)">'
    '<rect class="hatch" width="6" height="6"/><path class="{soft}" d="M0 2H6" stroke-width="4"/></pattern>'
)


class _Row(Struct, frozen=True):
    """A row of the picture: from when to when, how many seconds a whole row has, and where its top is."""

    begins: float
    ends: float
    span: float
    top: float
    last: bool

    def x(self, at: float) -> float:
        return round(
            LEFT + (min(max(at, self.begins), self.ends) - self.begins) * (WIDTH - LEFT - RIGHT) / self.span, 1
        )

    def has(self, at: float) -> bool:
        return self.begins <= at < self.ends or (self.last and at == self.ends)


def still(picture: Picture) -> str:
    """The whole SVG, 1160 pixels wide, with as many rows as the call needs. It has the looks for light and dark."""
    span = max(SPAN, picture.seconds / MOST)
    lanes = [lane.name for lane in picture.lanes]
    tops, height = {}, float(AXIS)
    for name, size in HEIGHTS.items():
        if name == "Wait" or name in lanes:
            tops[name] = height
            height += size
    starts = rows(picture, span)
    head = 96.0
    body: list[str] = []
    for n, (begins, following) in enumerate(zip_longest(starts, starts[1:])):
        ends = min(begins + span, picture.seconds) if following is None else following
        row = _Row(begins, max(ends, begins), span, head + n * (height + GAP), following is None)
        body += _row(picture, row, tops, height)
    foot = head + len(starts) * (height + GAP) + 8
    whole = foot + 44
    title, answer = escape(picture.title), escape(picture.answer)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {whole:g}" width="{WIDTH}" '
            f'height="{whole:g}" role="img" aria-labelledby="t d">',
            f'<title id="t">{title}</title><desc id="d">{answer}</desc>',
            f"<style>{text_of('colours.css')}{text_of('still.css')}</style>",
            "<defs>"
            + HATCH.format(id="held", soft="thought-soft")
            + HATCH.format(id="gone", soft="bad-soft")
            + "</defs>",
            f'<rect class="paper" width="{WIDTH}" height="{whole:g}"/>',
            _text(20, 34, "title", picture.title, WIDTH - 40, 20),
            *(_text(20, 58 + 20 * n, "answer", line, WIDTH - 40, 14) for n, line in enumerate(_lines(picture.answer))),
            *body,
            *_legend(foot),
            "</svg>",
            "",
        ]
    )


def _row(picture: Picture, row: _Row, tops: dict[str, float], height: float) -> Iterator[str]:
    yield from _axis(row, height)
    for one in picture.brackets:
        if one.end < row.ends and one.sound > row.begins:
            x, width = row.x(one.end), row.x(one.sound) - row.x(one.end)
            y, deep = row.top + AXIS, height - AXIS
            yield f'<rect class="band" x="{x}" y="{y:g}" width="{width:.1f}" height="{deep:g}"/>'
    for name, top in tops.items():
        y = row.top + top
        yield _text(LEFT - 10, y + (29 if name == "User" else 14), f"name {name}", name, 80)
        if name == "Wait":
            yield from _brackets(picture.brackets, row, y)
    for lane in picture.lanes:
        yield from _lane(lane, row, row.top + tops[lane.name])


def _axis(row: _Row, height: float) -> Iterator[str]:
    step = next((step for step in (1, 2, 5, 10, 30, 60, 300, 600) if row.span / step <= 12), row.span / 10)
    n = -int(-row.begins // step)
    lines = [f"M{row.x(at)} {row.top:g}v{height:g}" for at in (row.begins, row.ends)]
    while (at := n * step) <= row.ends:
        if row.x(at) < row.x(row.ends) - 4:
            lines.append(f"M{row.x(at)} {row.top:g}v{height:g}")
        if row.x(at) < row.x(row.ends) - 24 or at == 0:
            minutes, rest = divmod(int(at), 60)
            yield _text(row.x(at) + 4, row.top + 11, "quiet small", f"{minutes}:{rest:02d}", 60)
        n += 1
    yield f'<path class="grid" d="{"".join(lines)}"/>'


# -- lanes


def _lane(lane: PictureLane, row: _Row, y: float) -> Iterator[str]:
    draw = {"User": _turn, "Thoughts": _thought}.get(lane.name, _reply)
    before = 0.0
    for bar, following in zip_longest(lane.bars, lane.bars[1:]):
        if bar.begins < row.ends and (bar.ends > row.begins or bar.begins >= row.begins):
            yield f"<g><title>{escape(chr(10).join(bar.tip))}</title>"
            yield from draw(bar, row, y)
            yield "</g>"
        if row.span < (FAR if lane.name == "Thoughts" else FARTHER):
            yield from _caption(lane.name, bar, before, following, row, y)
        before = bar.ends
    for mark in lane.marks:
        if row.has(mark.at) and (row.span < FAR or mark.kind not in FINE):
            yield _mark(mark, row.x(mark.at), y)


def _caption(lane: str, bar: Bar, before: float, following: Bar | None, row: _Row, y: float) -> Iterator[str]:
    y += {"User": 12, "Thoughts": 29}.get(lane, 32)
    edge = WIDTH - 8.0
    if bar.kind in (BarKind.CANCELLED, BarKind.FAILED):  # it stands where it was cancelled
        if row.begins < bar.ends <= row.ends:
            yield _text(row.x(bar.ends) - 2, y, "bad", bar.caption, row.x(bar.ends) - row.x(before), 11)
        return
    begins = bar.until if lane == "Reply" else bar.begins
    if row.has(begins):
        room = row.x(following.begins) if following is not None and following.begins < row.ends else edge
        look = "quiet" if lane == "Thoughts" or bar.caption.startswith("(") else "said"
        yield _text(row.x(begins), y, look, bar.caption, room - row.x(begins) - 8)


def _turn(bar: Bar, row: _Row, y: float) -> Iterator[str]:
    yield _rect("turn", row.x(bar.begins), row.x(bar.ends), y + 17, 18)
    yield _text(row.x(bar.begins) + 5, y + 30, "number", str(bar.turn), 30)


def _thought(bar: Bar, row: _Row, y: float) -> Iterator[str]:
    x, until, ends = row.x(bar.begins), row.x(bar.until), row.x(bar.ends)
    if bar.kind is not BarKind.ADOPTED:
        yield _rect("held" if bar.kind is BarKind.HELD else "gone", x, ends, y + 2, 15)
        return
    if until > x:
        yield _rect("held", x, until, y + 2, 15)
    if bar.until <= row.ends:
        yield _rect("adopted", until, max(ends, until + 4), y + 2, 15)


def _reply(bar: Bar, row: _Row, y: float) -> Iterator[str]:
    x, until, ends = row.x(bar.begins), row.x(bar.until), row.x(bar.ends)
    if until > x:
        yield f'<path class="silent" d="M{x} {y + 11:g}H{until}"/>'
    if ends > until:
        yield _rect("heard", until, ends, y + 2, 18)
    if bar.kind is BarKind.CUT and bar.ends <= row.ends:
        yield f'<path class="knife" d="M{ends - 2:.1f} {y + 2:g}v18"/>'


def _brackets(brackets: tuple[Bracket, ...], row: _Row, y: float) -> Iterator[str]:
    for one in brackets:
        if not row.has(one.sound):
            continue
        x, sound = row.x(one.end), row.x(one.sound)
        latest = sound if one.without is None else row.x(one.without)
        yield f"<g><title>{escape(chr(10).join(one.tip))}</title>"
        if latest > sound:
            yield f'<path class="without" d="M{sound} {y + 9:g}H{latest}"/>'
            yield f'<path class="bracket" d="M{latest} {y + 4:g}v10"/>'
        yield f'<path class="bracket" d="M{x} {y + 4:g}v10M{x} {y + 9:g}H{sound}M{sound} {y + 4:g}v10"/></g>'
        if row.span < FARTHER:
            yield _text(latest + 7, y + 13, "waits", one.caption, 300)


# -- shapes


def _rect(look: str, x: float, ends: float, y: float, height: float) -> str:
    return f'<rect class="{look}" x="{x}" y="{y:g}" width="{max(ends - x, 2):.1f}" height="{height}" rx="3"/>'


def _mark(mark: Mark, x: float, y: float) -> str:
    shape = {
        MarkKind.WORDS: f"M{x} {y + 26:g}v8",
        MarkKind.REVISED: f"M{x - 1:.1f} {y + 26:g}v8m2 0v-8",
        MarkKind.EAGER_END: f"M{x} {y + 20.5:g}l5.5 5.5l-5.5 5.5l-5.5-5.5z",
        MarkKind.RESUME: f"M{x - 4:.1f} {y + 20.5:g}l10 5.5l-10 5.5z",
        MarkKind.STALL: f"M{x - 4:.1f} {y + 22:g}h8v8h-8z",
        MarkKind.FIRST_ITEM: f"M{x - 3.5:.1f} {y + 9.5:g}a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0z",
        MarkKind.REPORT: f"M{x} {y + 4:g}l5.5 10h-11z",
        MarkKind.PAUSE: f"M{x - 4:.1f} {y + 4:g}h3v10h-3zm5 0h3v10h-3z",
        MarkKind.LOST: f"M{x} {y + 14:g}l5.5-10h-11z",
    }[mark.kind]
    look = "word" if mark.kind is MarkKind.REVISED or mark.kind is MarkKind.WORDS else mark.kind
    return f'<path class="{look}" d="{shape}"><title>{escape(chr(10).join(mark.tip))}</title></path>'


def _text(x: float, y: float, look: str, text: str, room: float, size: float = 11.5) -> str:
    fitted = _fitted(text, room / size)
    return f'<text class="{look}" x="{x:.10g}" y="{y:.10g}">{escape(fitted)}</text>' if fitted else ""


def _fitted(text: str, room: float) -> str:
    """What fits of a text into so many times its size: by guess, since the reader's fonts are not known."""
    used = 0.0
    for n, char in enumerate(text):
        used += 1.05 if east_asian_width(char) in "WF" else 0.36 if char in NARROW else 0.85 if char in "mwMW" else 0.62
        if used > room and n + 1 < len(text):
            return text[:n].rstrip() + "…" if n > 1 else ""
    return text


def _lines(answer: str) -> tuple[str, str]:
    """Its first sentence, and the others."""
    first, _, others = answer.partition(". ")
    return first + "." * bool(others), others


def _legend(y: float) -> Iterator[str]:
    x = 20.0
    for shape, width, text in _ITEMS:
        room = width + 8 + 6.6 * len(text) + 18
        if x + room > WIDTH:
            x, y = 20.0, y + 20
        yield f'<g transform="translate({x:g} {y:g})">{shape}</g>' + _text(x + width + 8, y + 12, "quiet", text, 400)
        x += room


_BAR = '<rect class="{}" x="0" y="1" width="{}" height="14" rx="3"/>'
_ITEMS = (
    (_BAR.format("turn", 30) + '<path class="word" d="M12 7v8M20 7v8"/>', 30, "the user's turn, its words grow"),
    ('<path class="eager_end" d="M6 2.5l5.5 5.5l-5.5 5.5l-5.5-5.5z"/>', 12, "eager end: maybe done"),
    ('<path class="resume" d="M1 2.5l10 5.5l-10 5.5z"/>', 12, "resume: going on"),
    (_BAR.format("held", 30), 30, "a thought, held"),
    (_BAR.format("held", 15) + '<rect class="adopted" x="15" y="1" width="15" height="14" rx="3"/>', 30, "adopted"),
    (_BAR.format("gone", 30), 30, "cancelled"),
    ('<circle class="first_item" cx="6" cy="8" r="3.5"/>', 12, "its first item"),
    (_BAR.format("heard", 30), 30, "a reply, heard"),
    (_BAR.format("heard", 30) + '<path class="knife" d="M28 1v14"/>', 30, "interrupted"),
    ('<path class="bracket" d="M1 3v10M1 8H29M29 3v10"/>', 30, "from the end to the first sound"),
    (
        '<path class="without" d="M0 8H29"/><path class="bracket" d="M29 3v10"/>',
        30,
        "first sound without thinking ahead",
    ),
)
