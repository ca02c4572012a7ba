"""TurnMachine: event in, actions out.

Rules of this file: no clock, no loop, no I/O; time is an argument. Nothing else imports transitions. The rows define a
`transitions.Machine`. Its own triggers are twenty times slower than this engine, which is made from it: a cell, which
is one input in one phase, becomes one function.
"""

import inspect
import linecache
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
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

Cell = Callable[[State, Event, list[Action]], None]


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
    """Returns the function of an effect, and the arguments that it takes after (state, event, out)."""
    verb, *words = name.split()
    if verb not in EFFECTS:
        raise ValueError(f"no effect {name!r}")
    kinds = [parameter.annotation for parameter in inspect.signature(EFFECTS[verb]).parameters.values()][3:]
    try:
        return EFFECTS[verb], tuple(kind[word] for kind, word in zip(kinds, words, strict=True))
    except (KeyError, ValueError):
        raise ValueError(f"the effect {name!r} does not have the words that its function takes") from None


def _names(cell: str) -> list[str]:
    return [name.strip() for name in cell.split(",") if name]


def again(s: State, e: Event, out: list[Action]) -> None:
    """The same event, in the phase that is reached now."""
    CELLS[s.phase][type(e)](s, e, out)


def disconnect(s: State, e: Event, out: list[Action]) -> None:
    """As Disconnected does."""
    again(s, Disconnected(), out)


EFFECTS = table.EFFECTS | {"again": again, "disconnect": disconnect}


# -- the engine: a cell is one function, made from the rows that transitions holds for it


SOURCE = "<inkturns: the cells of the table>"  # the file that a traceback names


def compiled(machine: transitions.Machine) -> dict[Phase, dict[type[Event], Cell]]:
    """Every cell by its phase and its event's class. Cells with the same rows are one function."""
    bodies: dict[str, str] = {}  # the function's lines, and the name of the first cell that has them
    names: dict[tuple[Phase, type[Event]], str] = {}
    for phase in Phase:
        for tag, kind in KINDS.items():
            rows = machine.events[tag].transitions[str(phase)]
            if not rows or rows[-1].conditions:
                raise ValueError(f"the last row for {tag} in {phase} must have no guard: {rows}")
            body = "\n".join(_body(rows))
            names[phase, kind] = bodies.setdefault(body, f"{tag.replace('.', '_')}_in_{phase}")
    source = "\n\n".join(f"def {name}(s, e, out):\n{body}" for body, name in bodies.items()) + "\n"
    linecache.cache[SOURCE] = (len(source), None, source.splitlines(keepends=True), SOURCE)
    scope = vars(table) | EFFECTS | {str(phase): phase for phase in Phase}
    exec(compile(source, SOURCE, "exec"), scope)
    return {phase: {kind: scope[names[phase, kind]] for kind in KINDS.values()} for phase in Phase}


def _body(rows: list[Any]) -> Iterator[str]:
    """The lines of a cell. Rows that follow each other and begin with the same guard ask it once."""
    asked = None
    for row in rows:
        guards = [f"{'' if guard.target else 'not '}({table.GUARDS[guard.func]})" for guard in row.conditions]
        first, rest = guards[:1], guards[1:]
        if first and first != asked:
            yield f"    if {first[0]}:"
        if rest:
            yield f"        if {' and '.join(rest)}:"
        asked = first
        indent = "    " * (1 + len(first) + bool(rest))
        if row.dest != row.source:
            yield f"{indent}s.phase = {row.dest}"
        for name in row.after:
            function, words = effect(name)
            given = ["s", "e", "out", *(f"{type(word).__name__}.{word.name}" for word in words)]
            yield f"{indent}{function.__name__}({', '.join(given)})"
        yield f"{indent}return"


DEFINITION = definition()
CELLS = compiled(DEFINITION)


# -- the machine

Snapshot = msgspec.defstruct(
    "Snapshot",
    [(field.name, field.type) for field in attrs.fields(State) if field.name != "policy"],
    forbid_unknown_fields=True,
)
LARGEST = sys.float_info.max


@attrs.define(eq=False, init=False)
class TurnMachine:
    """The pure machine: `receive` an event, get the actions. No I/O, no clock, no loop, no logging; one per call.

    `now` is a number: seconds on any monotonic clock. One that is smaller than before, or not finite, counts as the
    last one seen. Without it turns have no times, there is no deadline, and `Policy.think_after` counts as 0."""

    _state: State

    def __init__(self, policy: Policy = Policy()) -> None:  # noqa: B008 (a frozen value)
        if not isinstance(policy, Policy):
            raise TypeError(f"policy must be a Policy, as in Policy(max_thoughts=2), got {type(policy).__name__}")
        self._state = State(policy)

    def receive(self, event: Event, now: float | None = None) -> tuple[Action, ...]:
        """What the agent must do about the event, in order. Never raises for an Event; TypeError for anything else."""
        s = self._state
        try:
            cell = CELLS[s.phase][type(event)]
        except KeyError:
            raise TypeError(f"TurnMachine.receive takes an event, not {type(event).__name__}") from None
        if now is not None and (s.now is None or now > s.now) and -LARGEST <= now <= LARGEST:
            s.now = now
        out: list[Action] = []
        cell(s, event, out)
        return tuple(out)

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
        return self._state.turn

    @property
    def reply(self) -> int | None:
        """The number of the turn whose reply is in flight; 0: the application's own speech; None: no reply is."""
        return self._state.reply

    @property
    def deadline(self) -> float | None:
        """When it wants a Tick; None: never. Read it after every `receive`: a Tick does one thing, and another may be
        due at once."""
        return table.deadline(self._state)

    def snapshot(self, now: float | None = None) -> dict[str, Any]:
        """All that it knows, except the policy, as plain JSON values. Times are ages: seconds before `now`, or before
        the last time seen where `now` is not given."""
        s = self._state
        base = s.now if now is None or not -LARGEST <= now <= LARGEST else now
        shifted = _shift(
            {name: getattr(s, name) for name in Snapshot.__struct_fields__},
            lambda time: None if base is None else base - time,
        )
        return msgspec.json.decode(msgspec.json.encode(Snapshot(**shifted)))  # type: ignore[no-any-return]

    @classmethod
    def restore(cls, snapshot: Mapping[str, Any], policy: Policy, now: float | None = None) -> Self:
        """Makes a machine that goes on where the one of the snapshot stood, on another clock, whose time is `now`;
        without `now` it has no times. Raises ValueError for anything that is not a snapshot.

        CHOICE: without `now`, a thought that waits for `think_after` begins at the next Tick."""
        machine = cls(policy)
        try:
            values = msgspec.structs.asdict(msgspec.convert(dict(snapshot), Snapshot))
        except (TypeError, ValueError) as error:
            raise ValueError(f"not a snapshot of a TurnMachine: {error}") from None
        if (values["phase"] is Phase.IDLE) is not (values["turn"] is None):
            raise ValueError("not a snapshot of a TurnMachine: a turn is open in every phase except idle")
        if values["thinking"] is not None and not (values["turn"] and values["turn"].transcript):
            raise ValueError("not a snapshot of a TurnMachine: a thought is live, and no turn with text is open")
        if values["owed"] and not values["closed"]:
            raise ValueError("not a snapshot of a TurnMachine: an end is owed, and no turn is closed")
        shifted = _shift(values, lambda age: None if now is None or not -LARGEST <= now <= LARGEST else now - age)
        machine._state = State(policy, **shifted)
        return machine


def _shift(values: dict[str, Any], shift: Callable[[float], float | None]) -> dict[str, Any]:
    """The same values of a State, with every time in them shifted."""

    def shifted(names: tuple[str, ...], of: Callable[[str], float | None]) -> dict[str, float | None]:
        return {name: None if (time := of(name)) is None else shift(time) for name in names}

    def moved(turn: Turn) -> Turn:
        return replace(turn, **shifted(table.TURN_TIMES, partial(getattr, turn)))

    turn, closed = values["turn"], values["closed"]
    turns = {"turn": None if turn is None else moved(turn), "closed": tuple(map(moved, closed))}
    return values | turns | shifted(table.TIMES, values.__getitem__)
