"""The table as Mermaid.

Rules of this file: every edge is made from rows, none is written here; a label holds no colon, semicolon or "#", which
Mermaid reads as its own, and does not begin like a list, which GitHub does not render. transitions' own Mermaid shows
no effects.
"""

from collections.abc import Iterable, Iterator

from inkturns.events import KINDS, TurnEagerEnd, TurnEnd, TurnResume, TurnStart
from inkturns.table import ROWS, Phase

__all__ = ["machine", "turns"]

Edge = tuple[str, str, str]  # from, to, label
ANY = "Any"

BOUNDARIES = (TurnStart, TurnEagerEnd, TurnResume, TurnEnd)  # updates move words, not turns


def turns() -> str:
    """The documented edges, as Cartesia draws them: every change of phase by a turn event, but for repairs (a row that
    reports) and for rows that only hand the event on (`again`)."""
    edges = {
        (_name(source), _name(to[0]), trigger): None
        for on, sources, to, _, do in ROWS
        for trigger in on
        for source in sources
        if KINDS[trigger] in BOUNDARIES and to[0] not in ("=", source) and "report" not in do and "again" not in do
    }
    return _drawn(edges)


def machine() -> str:
    """The whole table: an edge for each two phases, a line on it for each row, in the rows' order: of those that an
    event finds in its phase, the first whose guards pass wins. Rows that hold in every phase and leave it loop at
    `Any`."""
    lines: dict[tuple[str, str], list[str]] = {}
    for source, dest, label in _rows():
        lines.setdefault((source, dest), []).append(label)
    order = [ANY, *map(_name, Phase)]
    ends = sorted(lines, key=lambda edge: [order.index(end) for end in edge])
    return _drawn([(*edge, "<br/>".join(lines[edge])) for edge in ends], f'state "in any phase" as {ANY}')


def _rows() -> Iterator[Edge]:
    for number, (on, sources, to, where, do) in enumerate(ROWS, 1):
        guards = f" [{where.replace('!', 'not ')}]" if where else ""
        label = f"({number}) {_triggers(on)}{guards} / {do or 'nothing'}"
        if to == ("=",) and set(sources) == set(Phase):
            yield ANY, ANY, label
            continue
        for source in sources:
            yield _name(source), _name(source if to == ("=",) else to[0]), label


def _triggers(on: tuple[str, ...]) -> str:
    first, *rest = on
    prefix = first.partition(".")[0] + "."
    return "|".join([first, *(trigger.removeprefix(prefix) for trigger in rest)])


def _name(phase: str) -> str:
    return "".join(word.title() for word in phase.split("_"))


def _drawn(edges: Iterable[Edge], *declared: str) -> str:
    lines = [*declared, f"[*] --> {_name(Phase.IDLE)}"]
    lines += [f"{source} --> {dest}: {label}" for source, dest, label in edges]
    return "\n    ".join(["stateDiagram-v2", *lines]) + "\n"
