"""What `inkturns report` prints: the answer first, then the table, the worst calls, what is not known.

Rules of this file: names and texts of a recording are printable text, never markup (F57). Needs `rich` (extra `cli`).
"""

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from inkturns.printable import printable
from inkturns.report.summary import Findings
from inkturns.report.table import LEGEND, columns, rows_of, said_of, value_of, verdicts
from inkturns.report.worst import words_of

__all__ = ["print_report"]

NAMED = 5  # worst calls of each kind


def print_report(summary: Findings, *, words: bool) -> None:
    """Prints the report. `words`: what was said in the worst turns, too."""
    out = Console(highlight=False)
    out.print(Text(summary.answer(), "bold"), soft_wrap=True)
    if summary.figures["calls"]:
        out.print()
        out.print(_table(summary))
    for line in [*_section("", verdicts(summary)), *_worst(summary, words)]:
        out.print(Text(printable(line)), soft_wrap=True)
    notes = said_of(summary) if summary.figures["calls"] or summary.fleet.unread else []
    for line in _section("Not known, or not of all", [f"  {name}: {why}" for name, why in notes]):
        out.print(Text(printable(line)), soft_wrap=True)


def _section(title: str, lines: list[str]) -> list[str]:
    return ["", *([title] if title else []), *lines] if lines else []


def _table(summary: Findings) -> Table:
    table = Table(box=None, pad_edge=False, show_header=bool(summary.arms), caption=Text(LEGEND, "dim"))
    table.caption_justify = "left"
    table.add_column("", no_wrap=True)
    for name in columns(summary):
        table.add_column(Text(printable(name)), overflow="fold")
    for name, cells in rows_of(summary):
        table.add_row(Text(name, "dim"), *(Text(printable(cell)) for cell in cells))
    return table


def _worst(summary: Findings, words: bool) -> Iterator[str]:
    for name, calls in summary.fleet.worst().items():
        lines = []
        for one in calls[:NAMED]:
            call = f", call {one.call}" if one.call else ""
            said = words_of(one) if words else None
            told = f": “{said}”" if said else ""
            lines.append(f"  {value_of(name, one)}: {one.file}:{one.begins}{call}, turn {one.turn}{told}")
        yield from _section(f"Worst by {name}", lines)
