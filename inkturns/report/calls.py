"""The calls of a recording: each input with its actions, and the agent's notes, in the order of their lines.

Rules of this file: pure; the recorded actions are what happened, and a machine decides only where none were recorded;
nothing that cannot be read stops the reading: it is handed to `on_error`, and the rest is read.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from itertools import takewhile
from typing import Any

import attrs
import msgspec

from inkturns.actions import Action, Report, ReportKind
from inkturns.errors import DecodeError, RecordingError
from inkturns.events import Event
from inkturns.machine import TurnMachine
from inkturns.reader import BEGINS, Entry, Gap, Header, OnError, TruncatedError, read
from inkturns.serialize import load_actions, load_policy
from inkturns.wire import decode

__all__ = ["Input", "Missing", "Note", "RecordedCall", "Step", "calls_of", "seconds"]

LARGEST = 1e15  # seconds; with more, a float cannot say milliseconds


@attrs.frozen
class Input:
    """One input and its actions. `t`: seconds on the recorder's clock, None without one; `event` None for a frame that
    could not be read."""

    t: float | None
    event: Event | None
    actions: tuple[Action, ...]


@attrs.frozen
class Note:
    """What an Agent wrote down: `what` ("began", "first", "finished", "failed", "settled", "replied" …) of which turn,
    and the facts, as JSON values."""

    t: float | None
    what: str
    turn: int
    facts: Mapping[str, Any]


@attrs.frozen
class Missing:
    """The recorder was paused: so many inputs are missing here, and nobody knows what they did."""

    inputs: int


Step = Input | Note | Missing


@attrs.frozen
class RecordedCall:
    """One call. `header` is None for bare frames; `steps` are in the order of their lines."""

    header: Header | None
    steps: list[Step]

    @property
    def name(self) -> str | None:
        """The call's id, where its header has one."""
        return None if self.header is None or self.header.call is None else str(self.header.call)


def calls_of(lines: Iterable[str | bytes], on_error: OnError, start: int = 1) -> Iterator[RecordedCall]:
    """Each call of a recording (or of a file of bare frames), when all of it is read. `start` is the first line's
    number, as in `read`.

    A line that cannot be read is a RecordingError with its number for `on_error`, and so is a call whose actions were
    not recorded and whose policy cannot be made; the reading goes on. A header that cannot be read begins a call, too:
    what follows is not the call's before."""
    notes: deque[tuple[int, Note | None]] = deque()
    call = RecordedCall(None, [])
    maker = _Maker(on_error, None)
    for entry in read(_noting(lines, notes, start), on_error=on_error, start=start):
        while notes and notes[0][0] < entry.line:
            number, note = notes.popleft()
            if note is not None:
                call.steps.append(note)
            elif _line(call) != number:  # it could not be read
                if call.header is not None or call.steps:
                    yield call
                call = RecordedCall(Header(number, None), [])
                maker = _Maker(on_error, call.header)
        if isinstance(entry, Header):
            if call.header is not None or call.steps:
                yield call
            call, maker = RecordedCall(entry, []), _Maker(on_error, entry)
        elif isinstance(entry, Gap):
            call.steps.append(maker.paused(entry))
        elif (made := maker.made(entry)) is not None:
            call.steps.append(made)
    rest = takewhile(lambda one: one[1] is not None or one[0] == _line(call), notes)
    call.steps.extend(note for _, note in rest if note is not None)
    if call.header is not None or call.steps:
        yield call


def _line(call: RecordedCall) -> int | None:
    return None if call.header is None else call.header.line


def _noting(lines: Iterable[str | bytes], notes: deque[tuple[int, Note | None]], start: int) -> Iterator[str | bytes]:
    """The lines as they are; the agent's notes among them are kept in `notes`, with the line's number. None: a header
    stands there."""
    for number, line in enumerate(lines, start):
        if line.startswith(BEGINS.decode()) if isinstance(line, str) else line.startswith(BEGINS):
            notes.append((number, None))
        if ('"agent"' in line) if isinstance(line, str) else (b'"agent"' in line):
            note = _note(line)
            if note is not None:
                notes.append((number, note))
        yield line


def _note(line: str | bytes) -> Note | None:
    try:
        facts = msgspec.json.decode(line)
    except (ValueError, RecursionError):
        return None  # `read` says what is wrong with it
    if not isinstance(facts, dict):
        return None
    what, turn = facts.get("agent"), facts.get("turn")
    if not isinstance(what, str) or type(turn) is not int:
        return None
    return Note(seconds(facts.get("t")), what, turn, facts)


def seconds(value: object) -> float | None:
    """A number of a recording, where it can be a time or a duration."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not -LARGEST <= value <= LARGEST:
        return None
    return float(value)


class _Maker:
    """Makes the Inputs of one call."""

    def __init__(self, on_error: OnError, header: Header | None) -> None:
        self.on_error = on_error
        self.failed: RecordingError | None = None  # why there is no machine
        self.machine: TurnMachine | None = None
        try:
            self.machine = TurnMachine() if header is None else TurnMachine(load_policy(header.policy))
        except RecordingError as error:
            self.failed = RecordingError(error.reason, None if header is None else header.line)

    def paused(self, gap: Gap) -> Missing:
        """From here on the recorded actions alone tell what happened."""
        reason = "the recorder was paused here, and what came later was recorded without actions: it is left out"
        self.machine, self.failed = None, TruncatedError(reason, gap.line)
        return Missing(gap.inputs)

    def made(self, entry: Entry) -> Input | None:
        """None for an input whose actions nobody knows."""
        actions: tuple[Action, ...] | None = None
        event = entry.event
        if entry.frame is not None:
            try:
                event = decode(entry.frame)
            except DecodeError as error:
                actions = (Report(ReportKind.BAD_FRAME, None, error.reason),)
        elif entry.bad is not None:
            actions = (Report(ReportKind.BAD_FRAME, None, entry.bad),)
        if event is not None and self.machine is not None:
            actions = self.machine.receive(event, entry.t)
        if entry.out is not None:
            try:
                actions = load_actions(entry.out)
            except RecordingError as error:
                self.on_error(RecordingError(error.reason, entry.line))
        if actions is None:
            if self.failed is not None:
                self.on_error(self.failed)
                self.failed = None  # said once
            return None
        return Input(seconds(entry.t), event, actions)
