"""What a machine makes of a recording.

Rules of this file: pure; no clock, loop, thread or logger.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import attrs

from inkturns.actions import Action, Report, ReportKind, Turn
from inkturns.errors import DecodeError, RecordingError
from inkturns.events import Event
from inkturns.machine import TurnMachine
from inkturns.policy import Policy
from inkturns.reader import Entry, Gap, Header, OnError, TruncatedError, raise_unless_truncated, read
from inkturns.serialize import dump, load_policy
from inkturns.table import Phase
from inkturns.wire import decode

__all__ = ["Replayed", "replay"]


@attrs.frozen
class Replayed:
    """One input and what the machine made of it.

    `line` counts from 1; `event` is None for a frame that could not be read; `turn` and `phase` are those after it;
    `out` what was recorded, as JSON values (None: nothing), and `differs` the same where the actions are others now;
    `header` the call's (None: bare frames)."""

    line: int
    t: float | None
    event: Event | None
    actions: tuple[Action, ...]
    turn: Turn | None
    phase: Phase
    out: Any
    differs: Any
    header: Header | None


def replay(
    lines: Iterable[str | bytes],
    policy: Policy | Mapping[str, Any] | None = None,
    *,
    on_error: OnError = raise_unless_truncated,
) -> Iterator[Replayed]:
    """Each input of a recording, or of bare frames, with what a new machine makes of it now.

    It decides by the recorded policy; or by `policy`, where that is one; or, where `policy` is a mapping, by the
    recorded one with those fields changed. Errors are as in `read`; a call whose policy cannot be made is passed
    over. A call is replayed up to its first pause, and that is a TruncatedError: what follows depends on inputs that
    were not written."""
    changes = attrs.asdict(policy, recurse=False) if isinstance(policy, Policy) else policy or {}
    header: Header | None = None
    machine: TurnMachine | None = TurnMachine(Policy(**changes))
    for entry in read(lines, on_error=on_error, policy=changes):
        if isinstance(entry, Header):
            header, machine = entry, None
            try:
                machine = TurnMachine(policy if isinstance(policy, Policy) else load_policy(entry.policy, changes))
            except RecordingError as error:
                on_error(RecordingError(error.reason, entry.line))
        elif machine is None:
            continue
        elif isinstance(entry, Gap):
            machine = None
            reason = f"the recorder was paused here, for {entry.inputs} inputs; the rest of the call is not replayed"
            on_error(TruncatedError(reason, entry.line))
        else:
            event, actions = _received(machine, entry)
            same = entry.out is None or [dump(action) for action in actions] == entry.out
            at = (entry.line, entry.t, event, actions, machine.turn, machine.phase)
            yield Replayed(*at, entry.out, None if same else entry.out, header)


def _received(machine: TurnMachine, entry: Entry) -> tuple[Event | None, tuple[Action, ...]]:
    try:
        event = entry.event if entry.frame is None else decode(entry.frame)
    except DecodeError as error:
        return None, (Report(ReportKind.BAD_FRAME, None, error.reason),)
    if event is None:
        return None, (Report(ReportKind.BAD_FRAME, None, entry.bad or ""),)
    return event, machine.receive(event, entry.t)
