"""What `inkturns report` prints: the answer first, then the table, the worst calls, what is not known.

Rules of this file: names and texts of a recording are printable text, never markup (F57). Needs `rich` (extra `cli`).
"""

from collections.abc import Iterator

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from inkturns.printable import printable
from inkturns.report.summary import Findings
from inkturns.report.table import LEGEND, columns, rows_of, said_of, value_of, verdicts
from inkturns.report.worst import words_of

__all__ = ["print_report", "print_table"]

NAMED = 5  # worst calls of each kind
GAP = 2  # between columns
LONGEST = 24  # a word that does not fold, in characters; a recording may name a report of any length


def print_report(summary: Findings, *, words: bool) -> None:
    """Prints the report. `words`: what was said in the worst turns, too."""
    out = Console(highlight=False)
    out.print(Text(summary.answer(), "bold"), soft_wrap=True)
    if summary.figures["calls"]:
        out.print()
        for table, width in _tables(summary, out.width):
            print_table(out, table, width)
            out.print()
        for line in LEGEND:
            out.print(Text(line, "dim"), soft_wrap=True)
    for line in [*_section("", verdicts(summary)), *_worst(summary, words)]:
        out.print(Text(printable(line)), soft_wrap=True)
    notes = said_of(summary) if summary.figures["calls"] or summary.fleet.unread else []
    for line in _section("Not known, or not of all", [f"  {name}: {why}" for name, why in notes]):
        out.print(Text(printable(line)), soft_wrap=True)


def _section(title: str, lines: list[str]) -> list[str]:
    return ["", *([title] if title else []), *lines] if lines else []


def print_table(out: Console, table: Table, width: int) -> None:
    """Prints a table that needs so many characters: on a narrower terminal its lines go on in the next one. rich would
    leave out what does not fit."""
    out.width = max(out.width, width)
    out.print(table, crop=False)


def _tables(summary: Findings, width: int) -> Iterator[tuple[Table, int]]:
    """The columns in as many tables as it takes for no number to be broken in two, each with the width that it needs at
    least."""
    rows, heads = rows_of(summary), [*columns(summary)]
    words = [max(cell_len(word) for _, cells in rows for word in cells[n].split()) for n in range(len(heads))]
    wide = [min(each, LONGEST) for each in words]
    shown: list[int] = []
    used = first = max(len(name) for name, _ in rows)
    for n in range(len(heads)):
        if shown and used + GAP + wide[n] > width:
            yield _table(rows, heads, wide, shown), used
            shown, used = [], first
        shown.append(n)
        used += GAP + wide[n]
    yield _table(rows, heads, wide, shown), used


def _table(rows: list[tuple[str, list[str]]], heads: list[str], wide: list[int], shown: list[int]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=any(heads))
    table.add_column("", no_wrap=True)
    for n in shown:
        table.add_column(Text(printable(heads[n])), overflow="fold", min_width=wide[n])
    for name, cells in rows:
        table.add_row(Text(name, "dim"), *(Text(printable(cells[n])) for n in shown))
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
