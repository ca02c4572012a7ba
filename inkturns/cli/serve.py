"""`inkturns serve`: the emulator, until Ctrl-C.

Rules of this file: a fault in a script is one sentence on standard error, `file:line: what`; each event of the server
is one line with the seconds since it began.
"""

import asyncio
import sys
from collections.abc import Callable
from errno import EADDRINUSE
from pathlib import Path
from time import monotonic
from typing import Annotated

import typer

from inkturns.cli.stderr import refuse

__all__ = ["serve"]

FRAME, IDLE, CONNECTIONS = 1 << 20, 180.0, 100


def serve(
    script: Annotated[
        str | None,
        typer.Argument(
            metavar="SCRIPT", help='What every caller says: lines such as {"say": ["Hi."]}; - is standard input.'
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free port.")] = 8765,
    seed: Annotated[int, typer.Option(help="Without a script: of the first caller; the next one has the next.")] = 0,
    turns: Annotated[int, typer.Option(min=1, help="Without a script: how many turns a caller has.")] = 10,
    storm: Annotated[bool, typer.Option("--storm", help="Without a script: callers whose network has faults.")] = False,
    speed: Annotated[float, typer.Option(help="How many seconds of audio a second may bring.")] = 1.0,
    strict: Annotated[bool, typer.Option("--strict", help="Answer audio that comes faster with an error.")] = False,
    origin: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="Let web pages of this origin connect: https://app.example (repeatable)."),
    ] = None,
    max_frame: Annotated[int, typer.Option(min=1, help="Bytes of a frame; a longer one ends its connection.")] = FRAME,
    idle_timeout: Annotated[
        float, typer.Option(min=0, help="Seconds without a frame that end a connection; 0: no limit.")
    ] = IDLE,
    max_connections: Annotated[int, typer.Option(min=1, help="Open at once; others get HTTP 429.")] = CONNECTIONS,
) -> None:
    """Emulate Ink 2 on this machine: a WebSocket server whose callers say what a script says, or random sentences.

    Its clock is the audio received. Point a client at the address that it prints; no key is needed.

    Web pages from other machines may not connect."""
    try:
        from inkturns.testing.emulator import InkEmulator, Script
        from inkturns.testing.emulator.conversations import conversation, troubled_conversation
        from inkturns.testing.emulator.script import ScriptError
    except ImportError as missing:
        refuse(f'inkturns: the emulator needs {missing.name}: pip install "inkturns[testing]"')
    scripts: Script | Callable[[int], Script]
    if script is None:
        draw = troubled_conversation if storm else conversation
        scripts = lambda number: draw(seed + number, turns)  # noqa: E731  (a def would be longer)
    else:
        try:
            with sys.stdin.buffer if script == "-" else Path(script).open("rb") as file:
                scripts = Script.from_lines(file)
        except OSError as error:
            refuse(f"{script}: {error.strerror}")
        except ScriptError as error:
            refuse(f"{script}:{error.line}: {error.reason}")
    began = monotonic()

    def log(sentence: str) -> None:
        typer.echo(f"{monotonic() - began:8.2f}  {sentence}")

    async def run() -> None:
        async with InkEmulator(
            scripts,
            host=host,
            port=port,
            seed=seed,
            speed=speed,
            strict=strict,
            log=log,
            keep=False,
            origins=origin or (),
            max_frame=max_frame,
            idle_timeout=idle_timeout or None,
            max_connections=max_connections,
        ) as emulator:
            typer.echo(f"listening on {emulator.url}")
            typer.echo(f"the SDK:      AsyncCartesia(api_key=..., websocket_base_url={emulator.base_url!r})")
            await asyncio.get_running_loop().create_future()

    try:
        asyncio.run(run())
    except KeyboardInterrupt:
        raise typer.Exit(0) from None
    except OSError as error:
        if error.errno == EADDRINUSE:
            refuse(f"--port {port} is in use; name another one, or 0 for any that is free")
        refuse(f"inkturns serve: {error}")
    except ValueError as error:
        refuse(f"inkturns serve: {error}")
