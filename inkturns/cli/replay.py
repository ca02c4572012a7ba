"""`inkturns replay`: what the machine makes of recordings, input by input, and what it comes to.

Rules of this file: a row or a JSON line is written as soon as its input is read; standard output has nothing else.
"""

import sys
from typing import Annotated, Any

import typer
from rich.console import Console

from inkturns.cli.files import Files, Paths
from inkturns.cli.policy import described, read_policy
from inkturns.cli.timeline import Summary, Timeline
from inkturns.replay import Replayed
from inkturns.serialize import dump_event, encode

__all__ = ["replay"]

PolicyOption = Annotated[
    list[str],
    typer.Option(
        "--policy",
        metavar="KEY=VALUE",
        help=f"Replay under another policy; give it once for each field. {described()}.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object a line: each input, then the summary.")]
AS_THEY_WERE = (
    "the recorded inputs are fed as they were, those of the agent's thoughts and replies too; what this policy would "
    "have gained and cost, inkturns what-if tells"
)


def replay(files: Paths, policy: PolicyOption = [], as_json: JsonOption = False) -> None:  # noqa: B006
    """Show what the machine makes of recordings, input by input, and sum it up.

    The recorded inputs are fed as they were, also under another policy."""
    try:
        changes = read_policy(policy)
    except ValueError as error:
        Files([]).say(2, str(error))
        raise typer.Exit(2) from None
    out = Console(highlight=False)
    given = Files(files, changes, bar=as_json or not out.is_terminal)
    if policy:
        given.say(0, AS_THEY_WERE)
    summary, timeline = Summary(), Timeline(out)
    for name, begins, one in given.inputs():
        if begins:
            summary.close()
            if not as_json:
                timeline.begin(name, one)
        notes = summary.add(name, one)
        if as_json:
            _put({"file": name, **_as_json(one)})
        else:
            timeline.show(one, notes)
        given.say_bad_frame(name, one)
    summary.close()
    if as_json:
        _put({"summary": summary.as_json()})
    elif summary.inputs:
        summary.show(out)
    raise typer.Exit(1 if summary.differing and not policy else given.code)


def _as_json(one: Replayed) -> dict[str, Any]:
    event = None if one.event is None else dump_event(one.event)
    values = {"line": one.line, "t": one.t, "event": event, "phase": one.phase, "actions": one.actions}
    return values if one.differs is None else {**values, "recorded": one.differs}


def _put(values: object) -> None:
    """JSON escapes C0 only; a terminal obeys more (F57)."""
    text = encode(values).decode()
    if not text.isprintable():
        text = "".join(char if char.isprintable() else _escape(char) for char in text)
    sys.stdout.buffer.write(text.encode() + b"\n")
    sys.stdout.buffer.flush()


def _escape(char: str) -> str:
    return "".join(f"\\u{unit}" for unit in char.encode("utf-16-be").hex(" ", 2).split())
