"""Recordings to rows, one a closed turn.

Rules of this file: pure. A call whose lines are all as a Recorder writes them, with their actions, is decoded at once,
which is ten times as fast; from the first other call on a recording is read line by line, by `calls_of`. Both give the
same rows. A note that cannot be read costs that note.
"""

from collections.abc import Iterable, Iterator
from functools import reduce
from itertools import chain
from operator import or_
from typing import Any

import msgspec

from inkturns.actions import Action, Hear, Report, ReportKind
from inkturns.errors import DecodeError, RecordingError
from inkturns.events import FROM_APPLICATION, FROM_SERVER, UsePolicy
from inkturns.reader import BEGINS, Header, OnError, raise_unless_truncated, read
from inkturns.report.calls import Input, Note, RecordedCall, calls_of, seconds
from inkturns.report.drafts import CallDraft, RepliedNote, ReportNote, SettledNote
from inkturns.report.rows import TurnRow
from inkturns.serialize import converted
from inkturns.wire import decode

__all__ = ["calls_in_rows", "turns_of"]

NOTES: dict[str, type[SettledNote | RepliedNote | ReportNote]] = {
    "settled": SettledNote,
    "replied": RepliedNote,
    "report": ReportNote,
}


def turns_of(lines: Iterable[str | bytes], *, on_error: OnError = raise_unless_truncated) -> list[TurnRow]:
    """The closed turns of a recording, in order: of an Agent's, of a watcher's, or of bare frames, which the default
    policy decides on. Errors are as in `read`."""
    return [row for rows in calls_in_rows(lines, on_error) for row in rows]


def calls_in_rows(lines: Iterable[str | bytes], on_error: OnError) -> Iterator[list[TurnRow]]:
    """The same, call by call, so that a long file needs little memory."""
    for call in _drafts(lines, on_error):
        yield call.rows()


def _drafts(lines: Iterable[str | bytes], on_error: OnError) -> Iterator[CallDraft]:
    rest = (line.encode("utf-8", "surrogatepass") if isinstance(line, str) else line for line in lines)
    start, first = 1, next(rest, None)
    while first is not None:
        some, following = [first], None
        for line in rest:
            if line.startswith(BEGINS):
                following = line
                break
            some.append(line)
        call = _decoded(start, some)
        if call is None:
            ahead = () if following is None else (following,)
            for slow in calls_of(chain(some, ahead, rest), on_error, start):
                yield _drafted(slow, on_error)
            return
        yield call
        start, first = start + len(some), following


def _drafted(call: RecordedCall, on_error: OnError) -> CallDraft:
    draft = CallDraft(call.header)
    for step in call.steps:
        if isinstance(step, Input):
            draft.take(step.t, step.event, step.actions)
        elif not isinstance(step, Note):
            continue  # of what is missing in a pause nothing is known; turns after it are whole
        elif step.what == "catching_up":
            draft.catches_up(step.turn)
        elif step.what in NOTES:
            try:
                draft.note(step.turn, converted(step.facts.get(step.what), NOTES[step.what]))
            except RecordingError as error:
                on_error(RecordingError(f'a note of turn {step.turn}, "{step.what}": {error.reason}'))
    return draft


# -- a whole call at once


_EVENT: Any = reduce(or_, (kind for kind in FROM_SERVER + FROM_APPLICATION if kind is not UsePolicy))


class _Report(msgspec.Struct, frozen=True, tag="Report"):
    kind: ReportKind
    detail: str
    event: _EVENT | None = None


_ACTION: Any = reduce(or_, (kind for kind in Action.__subclasses__() if kind is not Report), _Report)


class _Line(msgspec.Struct):
    """A line after the header. Where a member is of another type, the call is read line by line."""

    t: float | None = None
    frame: str | None = None
    event: _EVENT | None = None
    app: _EVENT | None = None
    bad: str | None = None
    out: list[_ACTION] | None = None
    agent: str | None = None
    turn: int | None = None
    settled: SettledNote | None = None
    replied: RepliedNote | None = None
    report: ReportNote | None = None
    unrecorded: int | None = None
    inkturns: msgspec.UnsetType = msgspec.UNSET  # a header, where none begins a line


_lines = msgspec.json.Decoder(_Line).decode_lines


def _decoded(start: int, some: list[bytes]) -> CallDraft | None:
    """The call; None where a line is not as a Recorder writes it."""
    if not some[0].startswith(BEGINS):
        return None
    try:
        header = next(read(some[:1], on_error=_refuse, start=start))
        lines = _lines(b"\n".join(some[1:]))
    except (RecordingError, ValueError, RecursionError):
        return None
    assert isinstance(header, Header)
    draft = CallDraft(header)
    return draft if _take(draft, lines) else None


def _refuse(error: RecordingError) -> None:
    raise error


def _take(draft: CallDraft, lines: list[_Line]) -> bool:
    """Whether the draft could take all lines."""
    for line in lines:
        frame, out, event = line.frame, line.out, line.event if line.app is None else line.app
        inputs = (frame is not None) + (line.event is not None) + (line.app is not None) + (line.bad is not None)
        if line.agent is not None:
            if inputs or line.turn is None or not _take_note(draft, line.turn, line):
                return False
            continue
        if inputs != 1 or out is None:
            if inputs or line.unrecorded is None:
                return False
            continue
        if frame is not None and "eager_end" in frame:  # of no other frame the draft wants to know the event
            try:
                event = decode(frame)
            except DecodeError:
                event = None
        elif event is None and len(out) == 1 and type(out[0]) is Hear:
            continue  # most lines, and they change nothing
        actions = [Report(one.kind, None, one.detail) if type(one) is _Report else one for one in out]
        draft.take(None if line.t is None else seconds(line.t), event, actions)
    return True


def _take_note(draft: CallDraft, turn: int, line: _Line) -> bool:
    if line.agent == "catching_up":
        draft.catches_up(turn)
    elif line.agent in NOTES:
        said = getattr(line, line.agent)
        if said is None:
            return False
        draft.note(turn, said)
    return True
