"""The `inkturns` command: demo, replay, check, report, what-if, purge, timeline, export, serve, listen, diagram.

Rules of this file: a command is imported when it is run, or when the help of all is shown; a command that needs more
extras than `cli` says which one is missing; a fault is one sentence on standard error.
"""

import os
import sys
from contextlib import suppress
from enum import StrEnum, auto
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, NoReturn

try:
    import typer
    from rich.console import Console
    from typer.core import TyperGroup

    from inkturns.cli.stderr import refuse
except ImportError as missing:
    needed = str(missing.name).partition(".")[0]
    sys.stderr.write(f'inkturns: the command needs {needed}: pip install "inkturns[cli]"\n')
    raise SystemExit(2) from None

__all__ = ["app", "main"]

COMMANDS = {  # where it is: a function of that name
    "replay": "inkturns.cli.replay",
    "check": "inkturns.cli.check",
    "report": "inkturns.cli.report",
    "what-if": "inkturns.cli.whatif",
    "purge": "inkturns.cli.purge",
    "timeline": "inkturns.cli.picture",
    "export": "inkturns.cli.export",
    "serve": "inkturns.cli.serve",
}


class Commands(TyperGroup):
    """Imports a command when it is asked for: `inkturns report --help` needs none of the others. Ctrl-C ends the
    command with exit code 130, without a traceback."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted([*COMMANDS, *super().list_commands(ctx)], key="demo".__ne__)  # where to begin comes first

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return super().get_command(ctx, cmd_name)
        alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        alone.command(cmd_name)(getattr(import_module(COMMANDS[cmd_name]), cmd_name.replace("-", "_")))
        return typer.main.get_command(alone)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


app = typer.Typer(cls=Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"inkturns {version('inkturns')}")
        raise typer.Exit


@app.callback()
def inkturns(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Watch a call that thinks ahead (begin with demo), and replay, check, draw and judge recorded ones. Exit codes: 1,
    a law is broken or actions differ from the recorded ones; 2, a file, a line or a frame cannot be read."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # a console may lack a letter


def main() -> None:
    """The `inkturns` command."""
    app(prog_name="inkturns")


# -- listen and demo

HEADER = b'{"inkturns"'  # with which a recording begins
RecordOption = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Record the session for `inkturns replay`; an existing file is appended to."),
]


@app.command()
def listen(
    file: Annotated[
        str, typer.Argument(metavar="FILE.wav", help="16 or 32 bits, mu-law or A-law; - is standard input.")
    ],
    url: Annotated[str | None, typer.Option(metavar="URL", help="Another server than the live service: ws://…")] = None,
    settings: Annotated[
        str | None,
        typer.Option(metavar="SETTINGS", help="balanced, responsive, patient; or end_threshold=0.4,end_timeout_ms=…"),
    ] = None,
    keyterm: Annotated[
        list[str], typer.Option(metavar="TERM", help="A word that the model is to expect (repeatable).")
    ] = [],  # noqa: B006
    record: RecordOption = None,
) -> None:
    """Send a WAV file to Ink 2 in real time, and show what the machine makes of it.

    The key for the live service is read from CARTESIA_API_KEY."""
    try:
        from inkturns.cli.listen import listen
    except ImportError as missing:
        _lacking(missing)
    _check_record(record, None if file == "-" else file)
    out, err = Console(highlight=False), Console(stderr=True, highlight=False)
    raise typer.Exit(listen(file, url, record, settings=settings, keyterms=keyterm, out=out, err=err))


@app.command()
def demo(
    plain: Annotated[
        bool, typer.Option("--plain", help="Print lines, as a log does. Without a terminal this is the default.")
    ] = False,
    seed: Annotated[int | None, typer.Option(help="Another call: other pauses, other guesses.")] = None,
    speed: Annotated[float, typer.Option(min=0.1, max=100, help="How many times faster than real time.")] = 1.0,
    script: Annotated[
        str | None,
        typer.Option(metavar="FILE", help='What the user says: lines such as {"say": ["Hi."]}; - is standard input.'),
    ] = None,
    record: RecordOption = None,
    show: Annotated[
        bool, typer.Option("--open", help="At the end, draw the call and open the page in the browser.")
    ] = False,
) -> None:
    """Watch a simulated call in which an agent thinks ahead. It needs no key, no network and no microphone.

    The socket and the Cartesia SDK are real; Ink 2 is emulated on this machine."""
    try:
        from inkturns.demo.show import demo, read_script
    except ImportError as missing:
        _lacking(missing)
    try:
        said = None if script is None else read_script(script)
    except OSError as error:
        refuse(f"{script}: {error.strerror}")
    except ValueError as error:
        refuse(f"{script}: {error}")
    _check_record(record, script)
    out = Console(highlight=False)
    plain = plain or not sys.stdout.isatty() or out.is_dumb_terminal  # rich takes FORCE_COLOR for a terminal
    if show and record is None:
        from tempfile import mkdtemp

        record = str(Path(mkdtemp(prefix="inkturns-")) / "demo.jsonl")
    code = demo(out, plain=plain, seed=seed, speed=speed, script=said, record=record)
    if show and record is not None and code == 0:
        from inkturns.cli.picture import show_last

        show_last(record)
    raise typer.Exit(code)


def _check_record(record: str | None, source: str | None) -> None:
    """Refuses a recording that cannot be written, or that would be added to what is read or to a file of another kind.
    No pipe is opened: its reader would take that for the end."""
    if record is None:
        return
    path = Path(record)
    with suppress(OSError):  # one of them does not exist
        if source is not None and path.samefile(source):
            refuse(f"--record {record}: this is the file that is read; name another one")
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        refuse(f"--record {record}: this is not a file that can be written to")
    with suppress(OSError):  # it cannot be read, only written
        if path.is_file() and _beginning(path) not in (b"", HEADER):
            refuse(f"--record {record}: this file holds something else than recordings; name another one")


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(HEADER))


def _lacking(missing: ImportError) -> NoReturn:
    needed = str(missing.name).partition(".")[0]
    refuse(f'inkturns: this command needs {needed}: pip install "inkturns[cartesia,testing]"')


# -- diagram


class Drawing(StrEnum):
    TURNS = auto()
    MACHINE = auto()
    DEMO = auto()
    TIMELINE = auto()


@app.command()
def diagram(
    what: Annotated[
        Drawing,
        typer.Argument(
            help="turns: the documented edges; machine: the whole table; demo: its last screen; timeline: its call."
        ),
    ] = Drawing.TURNS,
) -> None:
    """Print the machine as Mermaid, or a picture of the demo as SVG."""
    if what in (Drawing.DEMO, Drawing.TIMELINE):
        try:
            from inkturns.demo.show import picture, recording
        except ImportError as missing:
            _lacking(missing)
        from inkturns.cli.picture import still_of

        sys.stdout.write(picture() if what is Drawing.DEMO else still_of(recording()))
    else:
        from inkturns import diagrams

        sys.stdout.write(diagrams.turns() if what is Drawing.TURNS else diagrams.machine())
