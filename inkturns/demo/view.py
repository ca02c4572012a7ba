"""The screen of `inkturns demo`: a row for each thing that happens and, on a terminal, a panel with the present.

Rules of this file:
- It shows what it is told, and decides nothing.
- A row says one thing and never changes.
- The words of a call are printable text, never markup and never a control sequence (F57).
- Needs `rich` (extra `cli`).
"""

from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress

import attrs
from msgspec import Struct
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.panel import Panel
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from inkturns.printable import printable

__all__ = ["Row", "View"]

STYLES = {"user": "bold cyan", "agent": "bold green", "guess": "magenta", "tool": "yellow", "odd": "red", "": "dim"}
METER = " ▁▂▃▄▅▆▇"
NOW = 7  # lines of what is going on, with its frame


class Row(Struct, frozen=True):
    """One thing that happened: at which second of the call, who did it, what the screen says, in which style."""

    at: float
    who: str
    said: str
    style: str = ""


class Tail:
    """The last lines of something, as many as fit."""

    def __init__(self, what: RenderableType, lines: int) -> None:
        self.what, self.lines = what, lines

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in console.render_lines(self.what, options.update(height=None))[-self.lines :]:
            yield from line
            yield Segment.line()


@attrs.define(eq=False)
class View:
    """The screen of one call. `live`: rows and the present, redrawn by `draw`. Otherwise a log: one line for each row,
    and for each note."""

    out: Console
    title: str
    live: bool = False
    clock: Callable[[], float] = lambda: 0.0  # seconds of the call
    rows: list[Row] = attrs.Factory(list)
    levels: deque[float] = attrs.Factory(lambda: deque(maxlen=24))  # of the sound, 0 to 1
    phase: str = "idle"
    heard: str = ""
    thought: str = ""
    says: str = ""
    _screen: Live | None = None

    def __enter__(self) -> "View":
        if self.live:
            self._screen = Live(self.drawn(), console=self.out, auto_refresh=False, vertical_overflow="crop")
            self._screen.start(refresh=True)
        else:
            self._print(Text(self.title, "dim"))
        return self

    def __exit__(self, *_: object) -> None:
        if self._screen is not None:
            self._screen.vertical_overflow = "visible"  # the whole call stays on the terminal
            self._screen.update(self.drawn(whole=True), refresh=True)
            self._screen.stop()

    def tell(self, who: str, said: str, style: str = "") -> None:
        """Adds a row."""
        row = Row(self.clock(), who, printable(said), style)
        self.rows.append(row)
        if not self.live:
            line = Text(f"{row.at:8.3f}  ", "dim").append(f"{row.who:<6}  ", f"not dim {STYLES[row.who]}")
            self._print(line.append(row.said, f"not dim {row.style}"))

    def _print(self, line: Text) -> None:
        with suppress(SystemExit):  # rich raises it once nobody reads; here it would end a task of the agent
            self.out.print(line, soft_wrap=True)

    def note(self, said: str) -> None:
        """Adds a row to a log only."""
        if not self.live:
            self.tell("", said, "dim")

    def draw(self) -> None:
        if self._screen is not None:
            self._screen.update(self.drawn(), refresh=True)

    def drawn(self, *, whole: bool = False) -> RenderableType:
        rows = Table.grid(padding=(0, 2))
        rows.add_column(justify="right", no_wrap=True)
        rows.add_column(no_wrap=True)
        rows.add_column(ratio=1)
        for row in self.rows:
            rows.add_row(Text(f"{row.at:.2f}", "dim"), Text(row.who, STYLES[row.who]), Text(row.said, row.style))
        call = Panel(rows if whole else Tail(rows, max(3, self.out.height - NOW - 3)), title=self.title, style="")
        return call if whole else Group(call, Panel(self._now(), title="now", border_style="dim"))

    def _now(self) -> RenderableType:
        meter = "".join(METER[min(len(METER) - 1, int(level * len(METER)))] for level in self.levels)
        now = Table.grid(padding=(0, 2))
        now.add_column(style="dim", no_wrap=True)
        now.add_column(ratio=1, no_wrap=True)
        for name, said, style in self._going_on(meter):
            now.add_row(name, Text(_tail(printable(said), self.out.width - 16), style))
        return now

    def _going_on(self, meter: str) -> Iterable[tuple[str, str, str]]:
        yield "sound", f"{meter:>24}  {self.phase}", "cyan" if self.phase == "speaking" else "yellow"
        yield "heard", self.heard, "bold"
        yield "thought", self.thought, "magenta"
        yield "says", self.says, "green"


def _tail(text: str, width: int) -> str:
    return text if len(text) <= width else "… " + text[len(text) - max(width, 3) + 2 :]
