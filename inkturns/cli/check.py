"""`inkturns check`: recordings against the machine's laws.

Rules of this file: a broken law is named with its sentence and shown with the inputs that led to it; after it, the rest
of that call is not judged.
"""

from collections import deque

import attrs
import typer
from rich.console import Console

from inkturns.cli.files import Files, Paths
from inkturns.cli.timeline import Summary, Timeline, many
from inkturns.errors import RecordingError
from inkturns.replay import Replayed
from inkturns.serialize import load_actions

__all__ = ["check"]

SHOWN = 40  # inputs before a broken law


def check(files: Paths) -> None:
    """Check recordings against the laws: the recorded actions, or those of a replay where there are none."""
    from inkturns.testing.oracle import LAWS, Oracle  # late: no other command needs it

    out, given = Console(highlight=False), Files(files)
    summary, oracle = Summary(), None
    calls, before = 0, deque[tuple[Replayed, list[str]]](maxlen=SHOWN)
    for name, begins, one in given.inputs():
        if begins:
            oracle, calls = Oracle(), calls + 1
            summary.close()
            before.clear()
        given.say_bad_frame(name, one)
        recorded = one.out is not None and not (one.header and one.header.redacted)
        if recorded and one.differs is not None:
            given.say(1, f"{name}:{one.line}: the actions differ from the recorded ones")
        try:
            judged = attrs.evolve(one, actions=load_actions(one.out)) if recorded else one
        except RecordingError as error:
            given.say(2, f"{name}:{one.line}: {error.reason}")
            oracle = None  # it would miss these actions
            continue
        before.append((judged, summary.add(name, judged)))
        try:
            if oracle is not None:
                oracle.step(judged.event, judged.actions)
        except AssertionError as broken:
            letter = str(broken).removeprefix("law ")[0]
            given.say(1, f"{name}:{one.line}: {broken}; the law: {LAWS[letter]}")
            _show(out, name, list(before))
            oracle = None
    if calls:
        held = "; the laws hold" if given.code == 0 else ""
        out.print(f"{many(summary.inputs, 'input')} in {many(calls, 'call')}{held}", soft_wrap=True)
    raise typer.Exit(given.code)


def _show(out: Console, name: str, inputs: list[tuple[Replayed, list[str]]]) -> None:
    timeline = Timeline(out)
    timeline.begin(name, inputs[0][0])
    for one, notes in inputs:
        timeline.show(one, notes)
