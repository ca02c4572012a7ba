"""A picture as a trace that Perfetto (https://ui.perfetto.dev) and chrome://tracing open.

Rules of this file: the Trace Event Format's JSON object, {"traceEvents": […]}: "M" names a track, "X" is a slice with
a duration, "i" an instant; `ts` and `dur` are microseconds. Slices of one track may nest and may not cross, so what
would cross another goes to a track beside it.
"""

from collections.abc import Iterator

from inkturns.report.picture import Bar, Bracket, MarkKind, Picture
from inkturns.serialize import encode

__all__ = ["trace"]

PROCESS = 1


def trace(picture: Picture) -> bytes:
    """The JSON. Each slice and instant has the details of its tip as arguments."""
    events = [_named("process_name", 0, picture.title), *_tracks(picture)]
    about = dict(picture.about) | {"answer": picture.answer, "not known": list(picture.not_known)}
    return encode({"traceEvents": events, "displayTimeUnit": "ms", "otherData": about}) + b"\n"


def _tracks(picture: Picture) -> Iterator[dict[str, object]]:
    track = 0
    for lane in picture.lanes:
        if lane.name == "Reply":
            track += 1
            yield from _head(track, "Wait")
            yield from (_wait(track, bracket) for bracket in picture.brackets)
        track += 1
        yield from _head(track, lane.name)
        for mark in lane.marks:
            name = mark.tip[0] if mark.kind in (MarkKind.WORDS, MarkKind.REVISED) else mark.kind.replace("_", " ")
            yield {"name": name, "ph": "i", "s": "t", "ts": _us(mark.at), **_on(track), "args": _args(mark.tip)}
        ends = [0.0]  # of the last slice on each track of this lane
        for bar in lane.bars:
            beside = next((n for n, end in enumerate(ends) if end <= bar.begins), len(ends))
            ends[beside : beside + 1] = [bar.ends]
            if beside and len(ends) == beside + 1:
                yield from _head(track + beside, lane.name)
            yield from _slices(track + beside, bar)
        track += len(ends) - 1


def _slices(track: int, bar: Bar) -> Iterator[dict[str, object]]:
    """A bar, with its first part inside it where it has two."""
    args = _args(bar.tip)
    yield _slice(track, bar.tip[0], str(bar.kind), bar.begins, bar.ends, args)
    if bar.begins < bar.until < bar.ends:
        before, after = {"adopted": ("held", "adopted")}.get(bar.kind, ("silent", "heard"))
        yield _slice(track, before, str(bar.kind), bar.begins, bar.until, {})
        yield _slice(track, after, str(bar.kind), bar.until, bar.ends, {})


def _wait(track: int, one: Bracket) -> dict[str, object]:
    return _slice(track, one.caption, "wait", one.end, one.sound, _args(one.tip))


def _slice(track: int, name: str, kind: str, begins: float, ends: float, args: dict[str, str]) -> dict[str, object]:
    ts = _us(begins)
    return {"name": name, "cat": kind, "ph": "X", "ts": ts, "dur": _us(ends) - ts, **_on(track), "args": args}


def _head(track: int, name: str) -> list[dict[str, object]]:
    order = {"name": "thread_sort_index", "ph": "M", **_on(track), "args": {"sort_index": track}}
    return [_named("thread_name", track, name), order]


def _named(what: str, track: int, name: str) -> dict[str, object]:
    return {"name": what, "ph": "M", **_on(track), "args": {"name": name}}


def _on(track: int) -> dict[str, int]:
    return {"pid": PROCESS, "tid": track}


def _args(tip: tuple[str, ...]) -> dict[str, str]:
    return {str(n): line for n, line in enumerate(tip, 1)}


def _us(seconds: float) -> int:
    return round(seconds * 1_000_000)
