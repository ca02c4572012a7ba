"""The `inkturns` command: replay, check, diagram, serve, listen, demo.

Rules of this file: what is wrong with a file is one sentence on standard error, `file:line: what`, and the rest of the
file is still shown; nothing is imported from a path that a recording names, only from one that is typed.
"""

import importlib
import os
import re
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext, suppress
from enum import StrEnum, auto
from pathlib import Path
from typing import Annotated, Any, BinaryIO, NoReturn

import attrs

from inkturns import diagrams, recording
from inkturns.actions import Report
from inkturns.errors import RecordingError
from inkturns.plain import dump_event, encode, load_actions
from inkturns.policy import OnLost, OnResume, OnStall, Policy, exact, normalized, words
from inkturns.recording import Replayed, TruncatedError

try:
    import typer
    from rich.console import Console
    from rich.progress import Progress
    from rich.text import Text
    from typer.core import TyperGroup

    from inkturns.serve import serve
    from inkturns.timeline import Summary, Timeline, clean, many
except ImportError as missing:
    needed = str(missing.name).partition(".")[0]
    sys.stderr.write(f'inkturns: the command needs {needed}: pip install "inkturns[cli]"\n')
    raise SystemExit(2) from None

__all__ = ["app", "main"]

LONG = 1_000_000  # bytes, from which on a file gets a progress bar
SHOWN = 40  # inputs of a prefix that breaks a law: its last ones


class Quiet(TyperGroup):
    """Ctrl-C ends without a word."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


app = typer.Typer(cls=Quiet, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def inkturns() -> None:
    """Replay, check and draw turns. Exit codes: 1, a law is broken or the recorded actions are others now; 2, a file, a
    line or a frame that cannot be read."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # a console that lacks a letter


def main() -> None:
    """The `inkturns` command."""
    app(prog_name="inkturns")


# -- the files, and what is wrong with them


@attrs.define
class Files:
    """The named files, input by input; what is wrong with them is said, and kept as the exit code."""

    names: list[str]
    changes: dict[str, Any] = attrs.Factory(dict)
    bar: bool = True  # a progress bar on long files; not where the inputs themselves scroll by
    code: int = 0
    err: Console = attrs.Factory(lambda: Console(stderr=True, highlight=False))

    def inputs(self) -> Iterator[tuple[str, bool, Replayed]]:
        """Each file's name, whether a call begins, and the input."""
        for name in self.names:
            try:
                file = nullcontext(sys.stdin.buffer) if name == "-" else Path(name).open("rb")  # noqa: SIM115
            except OSError as error:
                self.say(2, f"{name}: {error.strerror}")
                continue
            with file as lines:
                call: object = self
                for one in recording.replay(self._lines(lines, name), self.changes, on_error=self._on_error(name)):
                    yield name, one.header is not call, one
                    call = one.header
                if call is self:
                    self.say(0, f"{name}: no inputs")

    def say(self, code: int, sentence: str) -> None:
        self.code = self.code if self.code == 1 else code or self.code  # a broken law is worse news than a bad line
        self.err.print(Text(clean(sentence)), soft_wrap=True)

    def bad_frame(self, name: str, one: Replayed) -> None:
        if one.event is None:
            reason = " ".join(action.detail for action in one.actions if isinstance(action, Report))
            self.say(2, f"{name}:{one.line}: a frame that cannot be read: {reason}")

    def _on_error(self, name: str) -> Callable[[RecordingError], None]:
        def say(error: RecordingError) -> None:
            self.say(0 if isinstance(error, TruncatedError) else 2, f"{name}:{error.line}: {error.reason}")

        return say

    def _lines(self, file: BinaryIO, name: str) -> Iterator[bytes]:
        size = 0 if name == "-" else os.fstat(file.fileno()).st_size
        if not (self.bar and self.err.is_terminal and size >= LONG):
            yield from file
            return
        with Progress(console=self.err, transient=True) as progress:
            task = progress.add_task(clean(Path(name).name)[-24:], total=size)  # a longer one hides the bar
            for line in file:
                progress.advance(task, len(line))
                yield line


# -- replay and check

Paths = Annotated[list[str], typer.Argument(metavar="FILE...", help="Recordings, or bare frames; -: standard input.")]
PolicyOption = Annotated[
    list[str], typer.Option("--policy", metavar="KEY=VALUE", help="Change the policy (repeatable).")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object a line: each input, then the summary.")]


@app.command()
def replay(files: Paths, policy: PolicyOption = [], as_json: JsonOption = False) -> None:  # noqa: B006
    """Show what the machine makes of recordings, input by input, and sum it up.

    A policy's keys are Policy's fields: speculate=false, on_resume=keep, max_thoughts=none, interrupts=2 (words),
    match=package.function."""
    out = Console(highlight=False)
    given = Files(files, _changes(policy), bar=as_json or not out.is_terminal)
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
        given.bad_frame(name, one)
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
    sys.stdout.buffer.write(encode(values) + b"\n")
    sys.stdout.buffer.flush()


@app.command()
def check(files: Paths) -> None:
    """Hold recordings against the laws: the recorded actions, or where there are none, those of a replay."""
    from inkturns.testing.oracle import Oracle  # not before it is asked for: the rest does without

    out, given = Console(highlight=False), Files(files)
    summary, oracle = Summary(), None
    calls, prefix = 0, deque[tuple[Replayed, list[str]]](maxlen=SHOWN)
    for name, begins, one in given.inputs():
        if begins:
            oracle, calls = Oracle(), calls + 1
            summary.close()
            prefix.clear()
        given.bad_frame(name, one)
        recorded = one.out is not None and not (one.header and one.header.masked)
        if recorded and one.differs is not None:
            given.say(1, f"{name}:{one.line}: the actions are not the recorded ones")
        try:
            judged = attrs.evolve(one, actions=load_actions(one.out)) if recorded else one
        except RecordingError as error:
            given.say(2, f"{name}:{one.line}: {error.reason}")
            oracle = None  # what follows hangs on it
            continue
        prefix.append((judged, summary.add(name, judged)))
        try:
            if oracle is not None:
                oracle.step(judged.event, judged.actions)
        except AssertionError as broken:
            given.say(1, f"{name}:{one.line}: {broken}")
            _show_prefix(out, name, list(prefix))
            oracle = None  # it is of no more use in this call
    if calls:
        held = "; the laws hold" if given.code == 0 else ""
        out.print(f"{many(summary.inputs, 'input')} in {many(calls, 'call')}{held}", soft_wrap=True)
    raise typer.Exit(given.code)


def _show_prefix(out: Console, name: str, prefix: list[tuple[Replayed, list[str]]]) -> None:
    timeline = Timeline(out)
    timeline.begin(name, prefix[0][0])
    for one, notes in prefix:
        timeline.show(one, notes)


# -- serve

app.command()(serve)


# -- listen and demo: they need the extra `cartesia`, the others do without

RecordOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE", help="Write the session down, for `inkturns replay`; a file that is there is appended to."
    ),
]


@app.command()
def listen(
    file: Annotated[str, typer.Argument(metavar="FILE.wav", help="16-bit, one or two channels, any sample rate.")],
    url: Annotated[str | None, typer.Option(metavar="URL", help="Another server than the live service: ws://…")] = None,
    record: RecordOption = None,
) -> None:
    """Send a WAV file to Ink 2 in real time, and show what the machine makes of it.

    The live service takes its key from CARTESIA_API_KEY."""
    try:
        from inkturns.listen import listen
    except ImportError as missing:
        _lacking(missing)
    _recordable(record, file)
    raise typer.Exit(listen(file, url, record, out=Console(highlight=False), err=Console(stderr=True, highlight=False)))


@app.command()
def demo(
    plain: Annotated[
        bool, typer.Option("--plain", help="Lines, as for a log; without a terminal it is so anyway.")
    ] = False,
    seed: Annotated[int | None, typer.Option(help="Another call: other pauses, other guesses.")] = None,
    speed: Annotated[float, typer.Option(min=0.1, max=100, help="Times as fast.")] = 1.0,
    script: Annotated[
        str | None, typer.Option(metavar="FILE", help="What the user says instead, JSON lines; -: standard input.")
    ] = None,
    record: RecordOption = None,
) -> None:
    """Watch a simulated call, in which an agent thinks ahead: no key, no network, no microphone.

    The socket and the Cartesia SDK are the real ones; Ink 2 is emulated on this machine."""
    try:
        from inkturns.demo import demo, read_script
    except ImportError as missing:
        _lacking(missing)
    try:
        said = None if script is None else read_script(script)
    except OSError as error:
        _refuse(f"{script}: {error.strerror}")
    except ValueError as error:
        _refuse(f"{script}: {error}")
    _recordable(record, script)
    out = Console(highlight=False)
    plain = plain or not sys.stdout.isatty() or out.is_dumb_terminal  # rich takes FORCE_COLOR for a terminal
    raise typer.Exit(demo(out, plain=plain, seed=seed, speed=speed, script=said, record=record))


def _recordable(record: str | None, source: str | None) -> None:
    """Refuses a recording that could not be written, or would be written into what is read. Nothing is opened: a pipe's
    reader would take that for the end."""
    if record is None:
        return
    path = Path(record)
    with suppress(OSError):  # one of them is not there
        if source is not None and path.samefile(source):
            _refuse(f"--record {record}: what is read is not written to")
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        _refuse(f"--record {record}: no file that can be written to")


def _lacking(missing: ImportError) -> NoReturn:
    needed = str(missing.name).partition(".")[0]
    _refuse(f'inkturns: this needs {needed}: pip install "inkturns[cartesia,testing]"')


# -- diagram


class Drawing(StrEnum):
    TURNS = auto()
    MACHINE = auto()
    DEMO = auto()


@app.command()
def diagram(
    what: Annotated[Drawing, typer.Argument(help="The documented edges, the whole table, the demo.")] = Drawing.TURNS,
) -> None:
    """Print the machine as Mermaid, or what the demo looks like as SVG."""
    if what is Drawing.DEMO:
        try:
            from inkturns.demo import picture
        except ImportError as missing:
            _lacking(missing)
        sys.stdout.write(picture())
    else:
        sys.stdout.write(diagrams.turns() if what is Drawing.TURNS else diagrams.machine())


# -- --policy


def _changes(pairs: Iterable[str]) -> dict[str, Any]:
    """`key=value` pairs as fields of a Policy."""
    changes: dict[str, Any] = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        key, value = key.strip().replace("-", "_"), value.strip()
        try:
            if key not in FIELDS:
                raise ValueError(f"a policy has no {key!r}; it has {', '.join(FIELDS)}")
            changes[key] = FIELDS[key](value)
            Policy(**{key: changes[key]})
        except (TypeError, ValueError) as error:
            _refuse(f"--policy {pair}: {error}")
    return changes


def _refuse(sentence: str) -> NoReturn:
    Console(stderr=True, highlight=False).print(Text(clean(sentence)), soft_wrap=True)
    raise typer.Exit(2)


def _flag(value: str) -> bool:
    flags = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    if value.lower() not in flags:
        raise ValueError("true or false")
    return flags[value.lower()]


def _number(kind: Callable[[str], Any], *, optional: bool = True) -> Callable[[str], Any]:
    def parse(value: str) -> Any:
        if optional and value.lower() == "none":
            return None
        try:
            return kind(value)
        except ValueError:
            raise ValueError(f"a {'whole ' if kind is int else ''}number{', or none' if optional else ''}") from None

    return parse


def _one_of(kind: type[StrEnum]) -> Callable[[str], Any]:
    def parse(value: str) -> Any:
        if value.lower() not in list(kind):
            raise ValueError(" or ".join(kind))
        return kind(value.lower())

    return parse


def _match(value: str) -> Any:
    return {"normalized": normalized, "exact": exact}.get(value) or _imported(value)


def _interrupts(value: str) -> Any:
    if value.lower() == "none":
        return None
    number = re.fullmatch(r"(?:words\()?(\d+)\)?", value)
    return words(int(number[1])) if number else _imported(value)


def _imported(path: str) -> Any:
    module, _, name = path.rpartition(".")
    if not module:
        raise ValueError(f"{path!r} is no function; say package.function")
    sys.path.insert(0, str(Path.cwd()))  # as `python -m` would
    try:
        return getattr(importlib.import_module(module), name)
    except Exception as error:  # whatever the module's own code raises
        raise ValueError(f"cannot import it: {error}") from None
    finally:
        sys.path.pop(0)


FIELDS: dict[str, Callable[[str], Any]] = {
    "speculate": _flag,
    "on_resume": _one_of(OnResume),
    "match": _match,
    "max_thoughts": _number(int),
    "min_words": _number(int, optional=False),
    "interrupts": _interrupts,
    "stall_timeout": _number(float),
    "on_stall": _one_of(OnStall),
    "on_lost": _one_of(OnLost),
}
