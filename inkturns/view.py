"""What `inkturns demo` shows of a call: rows as things happen, and, on a terminal, what is going on just now.

Rules of this file: it is told what happened, and decides nothing; a row says one thing and is never changed; the words
of a call are never markup, nor a terminal's control sequence; needs `rich` (extra `cli`).
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

from inkturns.timeline import clean

__all__ = ["Row", "View"]

STYLES = {"user": "bold cyan", "agent": "bold green", "guess": "magenta", "tool": "yellow", "odd": "red", "": "dim"}
METER = " ▁▂▃▄▅▆▇"
NOW = 7  # lines of what is going on, with its frame


class Row(Struct, frozen=True):
    """Something happened: when, in seconds of the call, whose it is, what to say of it, in which style."""

    at: float
    who: str
    said: str
    style: str = ""


class Tail:
    """The last lines of something, as many as there is room for."""

    def __init__(self, what: RenderableType, lines: int) -> None:
        self.what, self.lines = what, lines

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in console.render_lines(self.what, options.update(height=None))[-self.lines :]:
            yield from line
            yield Segment.line()


@attrs.define(eq=False)
class View:
    """One call, as it is seen. `live`: rows and the present, drawn anew by `draw`; else a line a row, and the small
    things too, as a log has them."""

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
        """Something happened that is worth a row."""
        row = Row(self.clock(), who, clean(said), style)
        self.rows.append(row)
        if not self.live:
            line = Text(f"{row.at:8.3f}  ", "dim").append(f"{row.who:<6}  ", f"not dim {STYLES[row.who]}")
            self._print(line.append(row.said, f"not dim {row.style}"))

    def _print(self, line: Text) -> None:
        with suppress(SystemExit):  # rich's, where the reader has gone; here it would end some task of the agent's
            self.out.print(line, soft_wrap=True)

    def note(self, said: str) -> None:
        """Something small happened: for a log."""
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
            now.add_row(name, Text(_tail(clean(said), self.out.width - 16), style))
        return now

    def _going_on(self, meter: str) -> Iterable[tuple[str, str, str]]:
        yield "sound", f"{meter:>24}  {self.phase}", "cyan" if self.phase == "speaking" else "yellow"
        yield "heard", self.heard, "bold"
        yield "thought", self.thought, "magenta"
        yield "says", self.says, "green"


def _tail(text: str, width: int) -> str:
    return text if len(text) <= width else "… " + text[len(text) - max(width, 3) + 2 :]
