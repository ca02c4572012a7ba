"""`inkturns serve`: the emulator, for as long as it is let.

Rules of this file: what is wrong with a script is one sentence on standard error, `file:line: what`; what happens is a
line each, with the time since it began.
"""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Annotated, NoReturn

import typer

__all__ = ["serve"]


def serve(
    script: Annotated[str | None, typer.Argument(metavar="[SCRIPT]", help="JSON lines; else by chance.")] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8765,
    seed: Annotated[int, typer.Option(help="Of the callers by chance; each next one has the next.")] = 0,
    turns: Annotated[int, typer.Option(min=1, help="Of a caller by chance.")] = 10,
    storm: Annotated[bool, typer.Option("--storm", help="Callers by chance, with troubles.")] = False,
    speed: Annotated[float, typer.Option(help="How many times real time the audio may come.")] = 1.0,
    strict: Annotated[bool, typer.Option("--strict", help="Answer audio that comes faster by an error.")] = False,
) -> None:
    """Emulate Ink 2 on this machine: a WebSocket server that says what a script's callers, or callers by chance, say.

    Its clock is the audio received. Point a client at the address it prints, without a key."""
    try:
        from inkturns.testing import conversations as chance
        from inkturns.testing.emulator import InkEmulator
        from inkturns.testing.script import Script, ScriptError
    except ImportError as missing:
        _refuse(f'inkturns: the emulator needs {missing.name}: pip install "inkturns[testing]"')
    scripts: Script | Callable[[int], Script]
    if script is None:
        caller = chance.storm if storm else chance.conversation
        scripts = lambda number: caller(seed + number, turns)  # noqa: E731  a sentence
    else:
        try:
            with sys.stdin.buffer if script == "-" else Path(script).open("rb") as file:
                scripts = Script.from_lines(file)
        except OSError as error:
            _refuse(f"{script}: {error.strerror}")
        except ScriptError as error:
            _refuse(f"{script}:{error.line}: {error.reason}")
    begun = monotonic()

    def log(sentence: str) -> None:
        typer.echo(f"{monotonic() - begun:8.2f}  {sentence}")

    async def run() -> None:
        async with InkEmulator(
            scripts, host=host, port=port, seed=seed, speed=speed, strict=strict, log=log, keep=False
        ) as emulator:
            typer.echo(f"listening on {emulator.url}")
            typer.echo(f"the SDK:      AsyncCartesia(api_key=..., websocket_base_url={emulator.base_url!r})")
            await asyncio.get_running_loop().create_future()

    try:
        asyncio.run(run())
    except KeyboardInterrupt:
        raise typer.Exit(0) from None
    except (OSError, ValueError) as error:
        _refuse(f"inkturns serve: {error}")


def _refuse(sentence: str) -> NoReturn:
    typer.echo(sentence, err=True)
    raise typer.Exit(2)
