"""The engine does what `transitions` understood of the table, the table holds nothing that cannot happen, and a name
that does not exist is refused when it is read."""

import ast
import builtins
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import attrs
import msgspec
import pytest
import transitions
from hypothesis import given

from inkturns import machine, table
from inkturns.actions import Action, EndReason, Turn
from inkturns.events import (
    KINDS,
    Connected,
    ContextChanged,
    Disconnected,
    EndNow,
    Event,
    ReplyDone,
    ReplyStarted,
    ServerError,
    StopReply,
    ThoughtFailed,
    Tick,
    TurnEagerEnd,
    TurnEnd,
    TurnResume,
    TurnStart,
    TurnUpdate,
    Unknown,
    UsePolicy,
)
from inkturns.machine import TurnMachine
from inkturns.policy import AfterDisconnect, AfterResume, AfterStall, Policy, min_words
from inkturns.table import Phase, State
from inkturns.testing.strategies import Session, hostile_sessions, policies


class Model:
    """What `machine.DEFINITION` drives: guards and effects by the names in the rows; all else is transitions' doing."""

    trigger: Callable[..., bool]
    state: str

    def __init__(self, policy: Policy) -> None:
        self.s = State(policy)
        self.out: list[Action] = []

    def __getattr__(self, name: str) -> Callable[[Event], object]:
        verb = name.split()[0]
        if verb in ("again", "disconnect"):
            return lambda e: self.fire(e if verb == "again" else Disconnected())
        if verb in table.GUARDS:
            return lambda e: eval(table.GUARDS[verb], vars(table) | {"s": self.s, "e": e, "out": self.out})
        if verb in table.EFFECTS:
            function, words = machine.effect(name)
            return lambda e: function(self.s, e, self.out, *words)
        raise AttributeError(name)

    def fire(self, event: Event) -> None:
        assert self.trigger(event.__struct_config__.tag, event), "no row has passed"

    def receive(self, event: Event, now: float | None) -> tuple[Action, ...]:
        if now is not None and (self.s.now is None or now > self.s.now):
            self.s.now = now
        self.out = []
        self.fire(event)
        return tuple(self.out)


@contextmanager
def driven(policy: Policy) -> Iterator[Model]:
    model = Model(policy)
    machine.DEFINITION.add_model(model)
    try:
        yield model
    finally:
        machine.DEFINITION.remove_model(model)


@given(hostile_sessions(), policies())
def test_the_engine_and_transitions_agree(session: Session, policy: Policy) -> None:
    agree(session, policy)


def test_they_agree_wherever_a_row_leads(full: bool) -> None:
    """On the first of the walks below, which together pass every row of every cell."""
    for session in walks()[: 1000 if full else 150]:
        agree(session, Policy())


def agree(session: Session, policy: Policy) -> None:
    engine = TurnMachine(policy)
    with driven(policy) as model:
        for event, now in session:
            assert engine.receive(event, now) == model.receive(event, now)
            assert engine.phase == model.state


def test_the_definition_keeps_no_model() -> None:
    with driven(Policy()) as model:
        assert model in machine.DEFINITION.models
    assert machine.DEFINITION.models == []


def test_every_row_is_in_the_definition_in_order() -> None:
    """Row by row, and cell by cell in the rows' order: nothing is lost or merged on the way through transitions."""
    expected: dict[tuple[str, str], list[tuple[str, list[str], list[str]]]] = {}
    for on, sources, to, where, do in table.ROWS:
        for trigger in on:
            for source in sources:
                guards, effects = (sorted(filter(None, map(str.strip, cell.split(",")))) for cell in (where, do))
                to_phase = source if to == ("=",) else to[0]
                expected.setdefault((trigger, source), []).append((to_phase, guards, effects))
    actual = {
        (trigger, source): [
            (
                row.dest,
                sorted(f"{'' if condition.target else '!'}{condition.func}" for condition in row.conditions),
                sorted(map(str, row.after)),
            )
            for row in rows
        ]
        for trigger, event in machine.DEFINITION.events.items()
        for source, rows in event.transitions.items()
    }
    assert actual == expected


def test_every_event_has_a_cell_in_every_phase() -> None:
    assert set(machine.CELLS) == set(Phase)
    for cells in machine.CELLS.values():
        assert set(cells) == set(KINDS.values())


def test_the_last_row_of_every_cell_always_passes() -> None:
    for trigger, event in machine.DEFINITION.events.items():
        for phase, rows in event.transitions.items():
            assert rows[-1].conditions == [], (trigger, phase)


# -- names that do not exist

ROW = (("tick",), ("idle",), ("=",), "late", "hear")


@pytest.mark.parametrize(
    ("column", "wrong"),
    [
        (0, ("turn.sigh",)),
        (1, ("asleep",)),
        (1, ("idle", "asleep")),
        (2, ("asleep",)),
        (3, "rich"),
        (3, "late, rich"),
        (3, "!rich"),
        (4, "sing"),
        (4, "hear, sing"),
        (4, "drop SUNG"),  # no such reason
        (4, "drop DUPLICATE_START"),  # one of another enum
        (4, "drop"),  # for no reason
        (4, "drop MOVED LOST"),
        (4, "hear MOVED"),
    ],
)
def test_a_name_that_does_not_exist_is_refused(monkeypatch: pytest.MonkeyPatch, column: int, wrong: object) -> None:
    row = [*ROW]
    row[column] = wrong  # type: ignore[call-overload]
    monkeypatch.setattr(table, "ROWS", (tuple(row), *table.ROWS))
    with pytest.raises(ValueError, match=r"\w+"):
        machine.definition()


def test_and_without_it_the_same_row_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "ROWS", (ROW, *table.ROWS))
    assert len(machine.definition().get_transitions("tick", "idle")) == 2


@pytest.mark.parametrize("where", ["late", ""])
def test_a_cell_whose_last_row_may_not_pass_is_refused(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """A guarded last row, or no row at all for an event in a phase."""
    rows = tuple(row for row in table.ROWS if row[0] != ("stop_reply",))
    more = () if not where else ((("stop_reply",), table.ANY, ("=",), where, ""),)
    monkeypatch.setattr(table, "ROWS", (*rows, *more))
    with pytest.raises((ValueError, KeyError)):
        machine.compiled(machine.definition())


# -- nothing in the table is dead


T, R = (None, None, None, "1", "2"), (*[None] * 12, "a", "b")
STARTS, RESUMES = ([kind(turn_id=t, request_id=r) for t in T for r in R] for kind in (TurnStart, TurnResume))
SPOKEN = [
    kind(transcript=text, turn_id=t, request_id=r)
    for kind in (TurnUpdate, TurnEagerEnd, TurnEagerEnd, TurnEnd)
    for text in ("", "", "go", "go", "go.", "go on", "stop it")
    for t in T
    for r in R
]
REST = [
    *(Connected(request_id="a"), Connected(request_id="b"), Connected(), Disconnected(), EndNow(), ContextChanged()),
    *(ThoughtFailed(1, 1), ThoughtFailed(2, 1), ReplyStarted(0), ReplyStarted(1), ReplyStarted(2), ReplyDone()),
    *(ReplyDone(1), StopReply(), ServerError(), Unknown(kind="turn.sigh", fields={}), Tick(), Tick(), Tick()),
]
POLICIES = [
    UsePolicy(
        Policy(
            after_resume=after_resume,
            after_disconnect=after_disconnect,
            after_stall=after_stall,
            interrupts=interrupts,
            stall_timeout=2,
            think_after=think_after,
        )
    )
    for after_resume in AfterResume
    for after_disconnect, after_stall in (
        (AfterDisconnect.ABANDON, AfterStall.WAIT),
        (AfterDisconnect.RESPOND, AfterStall.END),
    )
    for interrupts, think_after in ((None, 0), (None, 1), (min_words(2), 0))
]


def walks(sessions: int = 5000) -> list[Session]:
    """Walks at random, the same each time, over few texts and ids, under policies that change on the way."""
    chance = Random(0)
    kinds: list[list[Any]] = [*[STARTS] * 2, *[SPOKEN] * 4, RESUMES, *[REST] * 3, POLICIES]
    return [
        [(chance.choice(POLICIES), 0), *((chance.choice(chance.choice(kinds)), now) for now in range(1, 20))]
        for _ in range(sessions)
    ]


def instrumented(patch: pytest.MonkeyPatch) -> tuple[Counter[str], Counter[tuple[str, bool]], set[str]]:
    """The same table, a row for each input and phase, that counts: rows that fired, guards by what they said. The last
    is the names of all rows."""
    fired, said = Counter[str](), Counter[tuple[str, bool]]()
    rows, names, effects = [], set[str](), dict[str, Callable[..., object]]()
    for number, (on, sources, to, where, do) in enumerate(table.ROWS):
        for trigger in on:
            for phase in sources:
                name = f"{trigger}, {phase}, where {where}"
                names.add(name)
                effects[f"row_{number}_{trigger.replace('.', '_')}_{phase}"] = count(fired, name)
                rows.append(((trigger,), (phase,), to, where, ", ".join(filter(None, (do, [*effects][-1])))))
    for verb, effect in effects.items():
        effect.__name__ = verb

    def note(guard: str, value: object) -> object:
        said[guard, bool(value)] += 1
        return value

    patch.setattr(table, "ROWS", tuple(rows))
    patch.setattr(table, "GUARDS", {name: f"note({name!r}, {guard})" for name, guard in table.GUARDS.items()})
    patch.setattr(table, "note", note, raising=False)
    patch.setattr(machine, "EFFECTS", machine.EFFECTS | effects)
    patch.setattr(machine, "CELLS", machine.compiled(machine.definition()))
    return fired, said, names


def run(session: Session) -> list[tuple[Action, ...]]:
    runner = TurnMachine()
    return [runner.receive(event, now) for event, now in session]


def count(fired: Counter[str], name: str) -> Callable[..., object]:
    def effect(s: State, e: Any, out: list[Action]) -> None:
        fired[name] += 1

    return effect


def test_every_row_fires_in_every_one_of_its_cells_and_every_guard_says_both(monkeypatch: pytest.MonkeyPatch) -> None:
    fired, said, names = instrumented(monkeypatch)
    for session in walks():
        run(session)
    assert names - set(fired) == set()
    assert {(guard, value) for guard in table.GUARDS for value in (True, False)} - set(said) == set()


def test_every_effect_is_named_by_a_row() -> None:
    named = {name.split()[0] for *_, do in table.ROWS for name in map(str.strip, do.split(",")) if name}
    assert named == set(machine.EFFECTS)


def test_every_name_in_a_guard_exists() -> None:
    """In `table` or among the builtins; after `s.` in State, after `e.` in each event of the guard's rows."""
    known = {"s", "e", "out", *vars(table), *vars(builtins)}
    state = {field.name for field in attrs.fields(State)}
    policy = {field.name for field in attrs.fields(Policy)}
    for name, expression in table.GUARDS.items():
        asked = [on for on, _, _, where, _ in table.ROWS if name in where.replace("!", "").split(", ")]
        fields = [set(KINDS[tag].__struct_fields__) for on in asked for tag in on]
        for node in ast.walk(ast.parse(expression, mode="eval")):
            match node:
                case ast.Name(id=used):
                    assert used in known, (name, used)
                case ast.Attribute(value=ast.Name(id="s"), attr=used):
                    assert used in state, (name, used)
                case ast.Attribute(value=ast.Name(id="e"), attr=used):
                    assert all(used in of for of in fields), (name, used)
                case ast.Attribute(value=ast.Attribute(attr="turn"), attr=used):
                    assert used in Turn.__struct_fields__, (name, used)
                case ast.Attribute(value=ast.Attribute(attr="policy"), attr=used):
                    assert used in policy, (name, used)


def test_the_times_of_a_state_are_its_fields_that_are_times() -> None:
    assert set(table.TIMES) == {field.name for field in attrs.fields(State) if field.type == float | None}
    assert set(table.TURN_TIMES) == {field.name for field in msgspec.structs.fields(Turn) if field.type == float | None}


def test_a_state_with_every_field_set_is_restored_on_another_clock() -> None:
    def at(later: float) -> State:
        closed = Turn(2, "go", "1", "r", 5.0 + later, 8.0 + later, EndReason.FORCED, 1, 1, 1)
        return State(
            Policy(),
            phase=Phase.EAGER_ENDED,
            number=3,
            turn=Turn(3, "go on", "2", "r", 10.0 + later, None, None, 2, 2, 2),
            thinking=2,
            thought_text="go",
            eager_text="go on",
            eager_at=11.0 + later,
            reply=2,
            audible=True,
            began_in=3,
            closed=(closed,),
            owed=True,
            request_id="r",
            earlier=("q",),
            now=12.0 + later,
            progress=11.5 + later,
        )

    first = TurnMachine()
    first._state = at(0)
    restored = TurnMachine.restore(first.snapshot(12.0), Policy(), 1012.0)._state
    for field in attrs.fields(State):
        name = field.name
        assert getattr(restored, name) == getattr(at(1000), name), name
        if name != "policy":
            assert getattr(restored, name) != field.default, f"{name} is to be set here"


def test_every_guard_is_named_by_a_row() -> None:
    named = {name.strip().lstrip("!") for *_, where, _ in table.ROWS for name in where.split(",") if name.strip()}
    assert named == set(table.GUARDS)


def test_counting_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = walks(50)
    before = [run(session) for session in sessions]
    instrumented(monkeypatch)
    assert [run(session) for session in sessions] == before


def test_transitions_alone_would_have_taken_names_that_do_not_exist() -> None:
    """The reason why `definition` looks: when this fails, transitions does it."""
    rows = transitions.Machine(model=None, states=["idle"], initial="idle", auto_transitions=False)
    rows.add_transition("tick", "idle", "asleep", conditions="rich", after="sing")
