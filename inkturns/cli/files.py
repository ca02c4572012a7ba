"""The recordings that a command was given, input by input.

Rules of this file: a fault in a file is one sentence on standard error, `file:line: what`, and the rest of the file is
still read; the worst fault decides the exit code.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import attrs
import typer
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from inkturns.actions import Report
from inkturns.errors import RecordingError
from inkturns.printable import printable
from inkturns.reader import TruncatedError
from inkturns.replay import Replayed, replay

__all__ = ["Files", "Paths"]

LONG = 1_000_000  # bytes from which on a file gets a progress bar

Paths = Annotated[list[str], typer.Argument(metavar="FILE", help="Recordings or bare frames; - is standard input.")]


@attrs.define
class Files:
    """The named files. `code` is the exit code so far: 2 for a fault in a file, 1 for worse news, such as a broken
    law."""

    names: list[str]
    changes: dict[str, Any] = attrs.Factory(dict)
    bar: bool = True  # a progress bar on long files; not where the inputs themselves scroll by
    code: int = 0
    err: Console = attrs.Factory(lambda: Console(stderr=True, highlight=False))

    def inputs(self) -> Iterator[tuple[str, bool, Replayed]]:
        """Each input, with its file's name and whether a call begins with it."""
        for name in self.names:
            try:
                file = nullcontext(sys.stdin.buffer) if name == "-" else Path(name).open("rb")  # noqa: SIM115
            except OSError as error:
                self.say(2, f"{name}: {error.strerror}")
                continue
            with file as lines:
                call: object = self
                for one in replay(self._lines(lines, name), self.changes, on_error=self._on_error(name)):
                    yield name, one.header is not call, one
                    call = one.header
                if call is self:
                    self.say(0, f"{name}: no inputs")

    def say(self, code: int, sentence: str) -> None:
        self.code = self.code if self.code == 1 else code or self.code
        self.err.print(Text(printable(sentence)), soft_wrap=True)

    def say_bad_frame(self, name: str, one: Replayed) -> None:
        if one.event is None:
            reason = " ".join(action.detail for action in one.actions if isinstance(action, Report))
            self.say(2, f"{name}:{one.line}: this frame cannot be read: {reason}")

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
            task = progress.add_task(printable(Path(name).name)[-24:], total=size)  # a longer one hides the bar
            for line in file:
                progress.advance(task, len(line))
                yield line
