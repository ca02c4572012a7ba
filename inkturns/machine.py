"""TurnMachine: event in, actions out.

Rules of this file: no clock, no loop, no I/O; time is an argument. The only import of transitions. What runs is read
off the `transitions.Machine` that the rows define (its own trigger path is some twenty times slower): a cell, which is
one input in one phase, is one function made from its rows.
"""

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, Self

import attrs
import msgspec
import transitions
from msgspec.structs import replace

from inkturns import table
from inkturns.actions import Action, Turn
from inkturns.events import KINDS, Disconnected, Event
from inkturns.policy import Policy
from inkturns.table import Phase, State

__all__ = ["TurnMachine"]

Cell = Callable[[State, Any, list[Action]], None]


# -- the definition: the rows, as transitions understood them


def definition() -> transitions.Machine:
    """The table as a `transitions.Machine` without a model. Raises ValueError for a name that does not exist, which
    transitions itself would accept in silence."""
    machine = transitions.Machine(
        model=None, states=[str(phase) for phase in Phase], initial=str(Phase.IDLE), auto_transitions=False
    )
    for on, sources, to, where, do in table.ROWS:
        guards, effects = _names(where), _names(do)
        unknown = {name.removeprefix("!") for name in guards} - set(table.GUARDS) | set(on) - set(KINDS)
        unknown |= set(sources) - set(Phase) | set(to) - {*Phase, *table.SAME}
        if unknown:
            raise ValueError(f"no guard, event or phase {', '.join(unknown)}, in the row {(on, where, do)}")
        for name in effects:
            effect(name)
        for trigger in on:
            machine.add_transition(
                trigger,
                [str(phase) for phase in sources],
                str(*to),
                conditions=[name for name in guards if not name.startswith("!")],
                unless=[name[1:] for name in guards if name.startswith("!")],
                after=[*effects],
            )
    return machine


@cache
def effect(name: str) -> tuple[table.Effect, tuple[Any, ...]]:
    """An effect's name, to its function and what it is given beyond (state, event, out)."""
    verb, *words = name.split()
    if verb not in EFFECTS:
        raise ValueError(f"no effect {name!r}")
    kinds = [parameter.annotation for parameter in inspect.signature(EFFECTS[verb]).parameters.values()][3:]
    try:
        return EFFECTS[verb], tuple(kind[word] for kind, word in zip(kinds, words, strict=True))
    except (KeyError, ValueError):
        raise ValueError(f"the effect {name!r} has not the words that it needs") from None


def _names(cell: str) -> list[Any]:
    return [name.strip() for name in cell.split(",") if name]


def again(s: State, e: Any, out: list[Action]) -> None:
    """The same event, in the phase that is reached now."""
    CELLS[s.phase][type(e)](s, e, out)


def disconnect(s: State, e: Any, out: list[Action]) -> None:
    """As Disconnected does."""
    again(s, Disconnected(), out)


EFFECTS = table.EFFECTS | {"again": again, "disconnect": disconnect}


# -- the engine: a cell is one function, made from the rows that transitions holds for it


def compiled(machine: transitions.Machine) -> dict[Phase, dict[type[Event], Cell]]:
    """Every cell by its phase and its event's class; cells that read alike are one."""
    scope = vars(table) | EFFECTS | {str(phase): phase for phase in Phase}
    made: dict[str, Cell] = {}

    def cell(rows: list[transitions.Transition]) -> Cell:
        if not rows or rows[-1].conditions:
            raise ValueError(f"a cell without a last row that always passes: {rows}")
        source = "\n".join(_source(rows))
        if source not in made:
            exec(source, scope)
            made[source] = scope["cell"]
        return made[source]

    return {
        phase: {kind: cell(machine.events[tag].transitions[str(phase)]) for tag, kind in KINDS.items()}
        for phase in Phase
    }


def _source(rows: list[Any]) -> Iterator[str]:
    """The lines of a cell. Rows that follow each other and begin with the same guard ask it once."""
    yield "def cell(s, e, out):"
    asked = None
    for row in rows:
        guards = [f"{'' if guard.target else 'not '}({table.GUARDS[guard.func]})" for guard in row.conditions]
        first, *rest = guards or ["True"]
        if first != asked:
            yield f"    if {first}:"
        asked = first
        yield f"        if {' and '.join(rest) or True}:"
        if row.dest != row.source:
            yield f"            s.phase = {row.dest}"
        for name in row.after:
            function, words = effect(name)
            given = ["s", "e", "out", *(f"{type(word).__name__}.{word.name}" for word in words)]
            yield f"            {function.__name__}({', '.join(given)})"
        yield "            return"


DEFINITION = definition()
CELLS = compiled(DEFINITION)


# -- the machine

TYPES = {field.name: field.type for field in msgspec.structs.fields(State)} | {"turn": Turn | None}
Snapshot = msgspec.defstruct(
    "Snapshot", [(name, kind) for name, kind in TYPES.items() if name != "policy"], forbid_unknown_fields=True
)
LARGEST = sys.float_info.max


@attrs.define(eq=False, init=False)
class TurnMachine:
    """The pure machine: `receive` an event, get the actions. No I/O, no clock, no loop, no logging; one per call.

    Where `now` (seconds, on any monotonic clock) is given it must be a number; one that is smaller than before, or not
    finite, counts as the last one seen. Without it turns have no times and there is no deadline."""

    _state: State

    def __init__(self, policy: Policy = Policy()) -> None:  # noqa: B008 (a frozen value)
        if not isinstance(policy, Policy):
            raise TypeError(f"TurnMachine: policy is a Policy, not {type(policy).__name__}")
        self._state = State(policy)

    def receive(self, event: Event, now: float | None = None) -> tuple[Action, ...]:
        """What the agent is to do about the event, in order. Raises for no event, and TypeError for what is none."""
        s = self._state
        try:
            cell = CELLS[s.phase][type(event)]
        except KeyError:
            raise TypeError(f"TurnMachine.receive takes an event, not {type(event).__name__}") from None
        if now is not None and (s.now is None or now > s.now) and -LARGEST <= now <= LARGEST:
            s.now = now
        out: list[Action] = []
        cell(s, event, out)
        return (*out,)

    @property
    def policy(self) -> Policy:
        """The policy by which it decides now."""
        return self._state.policy

    @property
    def phase(self) -> Phase:
        return self._state.phase

    @property
    def turn(self) -> Turn | None:
        """The open turn."""
        turn: Turn | None = self._state.turn
        return turn

    @property
    def reply(self) -> int | None:
        """The number of the turn whose reply is in flight; 0: the application's own speech; None: none is."""
        return self._state.reply

    @property
    def deadline(self) -> float | None:
        """When it wants a Tick; None: never. Read it after every `receive`."""
        return table.deadline(self._state)

    def snapshot(self, now: float | None = None) -> dict[str, Any]:
        """All that it knows, but for the policy, as plain JSON values; times as ages, seconds before `now` (before the
        last time seen, where `now` is not given)."""
        s = self._state
        values = {name: getattr(s, name) for name in Snapshot.__struct_fields__}
        base = s.now if now is None or not -LARGEST <= now <= LARGEST else now
        shifted = _shift(values, lambda time: base - time)  # type: ignore[operator]
        return msgspec.json.decode(msgspec.json.encode(Snapshot(**shifted)))  # type: ignore[no-any-return]

    @classmethod
    def restore(cls, snapshot: Mapping[str, Any], policy: Policy, now: float | None = None) -> Self:
        """The machine that `snapshot` was taken of, on another clock, whose time is `now`; without it, without times.
        It behaves as the first would have. Raises ValueError for what is no snapshot."""
        machine = cls(policy)
        try:
            values = msgspec.structs.asdict(msgspec.convert(dict(snapshot), Snapshot))
        except (TypeError, ValueError) as error:
            raise ValueError(f"not a snapshot of a TurnMachine: {error}") from None
        if (values["phase"] is Phase.IDLE) is not (values["turn"] is None):
            raise ValueError("not a snapshot of a TurnMachine: a turn is open in every phase but idle")
        shifted = _shift(values, lambda age: None if now is None or not -LARGEST <= now <= LARGEST else now - age)
        machine._state = State(policy, **shifted)
        return machine


def _shift(values: dict[str, Any], shift: Callable[[float], float | None]) -> dict[str, Any]:
    """The same values, with every time in them shifted."""

    def of(time: float | None) -> float | None:
        return None if time is None else shift(time)

    def moved(turn: Turn) -> Turn:
        return replace(turn, started_at=of(turn.started_at), ended_at=of(turn.ended_at))

    return values | {
        "now": of(values["now"]),
        "progress": of(values["progress"]),
        "turn": None if values["turn"] is None else moved(values["turn"]),
        "closed": tuple(moved(turn) for turn in values["closed"]),
    }
