"""Standard error: what is wrong, each in one sentence, and how far a long command is.

Rules of this file: nothing that came from outside reaches the terminal as it is; nothing is imported before it is
needed, so that --help is quick.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

from inkturns.printable import printable

__all__ = ["progress", "refuse", "say"]


def say(sentence: str) -> None:
    """Prints a sentence on standard error, as printable text."""
    typer.echo(printable(sentence), err=True)


def refuse(sentence: str) -> NoReturn:
    """Ends the command with a sentence, and exit code 2."""
    say(sentence)
    raise typer.Exit(2)


@contextmanager
def progress(what: str, after: float = 2.0) -> Iterator[Callable[[int, int], None]]:
    """Tells on standard error how far it is, once it has taken two seconds: on a terminal each second, on one line;
    else each half a minute."""
    import threading

    shown, over, at = sys.stderr.isatty(), threading.Event(), [0, 0]

    def count(done: int, of: int) -> None:
        at[:] = done, of

    def tell() -> None:
        wait = after
        while not over.wait(wait):
            wait = 1.0 if shown else 30.0
            line = f"reading: {at[0]:,} of {at[1]:,} {what}" if at[1] else f"reading {what}"
            sys.stderr.write(f"\r{line} " if shown else f"{line}\n")
            sys.stderr.flush()
        if shown and wait != after:
            sys.stderr.write("\r\x1b[K")

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield count
    finally:
        over.set()
        thread.join()
