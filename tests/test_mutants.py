"""The tests of the tests: the machine broken on purpose, in every way that its table can be broken by one change, and
in its effects by hand. The laws, the failures or the table's cells must catch each.

A mutant is caught where a law breaks (on sessions drawn once, under the Oracle) or a test of `test_released_bugs` or
`test_machine` fails. Those that nothing can catch are listed, each with the reason."""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial, wraps
from itertools import product
from typing import Any, NamedTuple

import attrs
import pytest
from hypothesis import given, settings
from msgspec.structs import replace

from inkturns import machine, table
from inkturns.actions import Action, CancelReason, EndReason, Hear, Report
from inkturns.events import Tick
from inkturns.machine import TurnMachine
from inkturns.policy import Policy
from inkturns.table import Out, State
from inkturns.testing.oracle import Oracle
from inkturns.testing.strategies import Session, hostile_sessions, lawful_sessions, policies

FAILURES, CELLS = (
    importlib.import_module(__name__.replace("test_mutants", name)) for name in ("test_released_bugs", "test_machine")
)

Change = Callable[[pytest.MonkeyPatch], None]
Row = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], str, str]


class Mutant(NamedTuple):
    name: str
    change: Change


@contextmanager
def broken(change: Change) -> Iterator[None]:
    """The machine as `change` leaves it."""
    with pytest.MonkeyPatch.context() as patch:
        change(patch)
        patch.setattr(machine, "EFFECTS", machine.EFFECTS | table.EFFECTS)
        machine.effect.cache_clear()
        patch.setattr(machine, "CELLS", machine.compiled(machine.definition()))
        try:
            yield
        finally:
            machine.effect.cache_clear()


# -- changes of the rows: one row dropped, one guard or effect left out, one wrong word, one wrong destination


def in_rows(index: int, *rows: Row, drop: int = 1) -> Change:
    changed = (*table.ROWS[:index], *rows, *table.ROWS[index + drop :])
    return lambda patch: patch.setattr(table, "ROWS", changed)


def row_mutants() -> Iterator[Mutant]:
    for i, row in enumerate(table.ROWS):
        on, sources, to, where, do = row
        name = f"{' '.join(on)}, {' '.join(sources)}, where {where!r}"
        guards, effects = ([part.strip() for part in cell.split(",") if part.strip()] for cell in (where, do))
        if guards:
            yield Mutant(f"{name}: dropped", in_rows(i))
        for guard in guards:
            rest = ", ".join(other for other in guards if other != guard)
            yield Mutant(f"{name}: without the guard {guard}", in_rows(i, (on, sources, to, rest, do)))
            other = ", ".join(turned(it) if it == guard else it for it in guards)
            yield Mutant(f"{name}: with {turned(guard)}", in_rows(i, (on, sources, to, other, do)))
        for effect in effects:
            rest = ", ".join(other for other in effects if other != effect)
            yield Mutant(f"{name}: without {effect}", in_rows(i, (on, sources, to, where, rest)))
            for wrong in wrong_words(effect):
                other = ", ".join(wrong if it == effect else it for it in effects)
                yield Mutant(f"{name}: {wrong} for {effect}", in_rows(i, (on, sources, to, where, other)))
        if guards and i + 1 < len(table.ROWS) and shadows(row, table.ROWS[i + 1]):
            yield Mutant(f"{name}: after the next row", in_rows(i, table.ROWS[i + 1], row, drop=2))
        for phase in table.Phase:
            if to != ("=",) and to != (phase,):
                yield Mutant(f"{name}: to {phase}", in_rows(i, (on, sources, (phase,), where, do)))


def shadows(row: Row, other: Row) -> bool:
    """Whether they have a cell in common, and the other is not its last row."""
    return bool(other[3]) and all(set(mine) & set(its) for mine, its in zip(row[:2], other[:2], strict=True))


def turned(guard: str) -> str:
    return guard[1:] if guard.startswith("!") else f"!{guard}"


def wrong_words(effect: str) -> Iterator[str]:
    """The same effect with the word before its own, of the same enum."""
    verb, *words = effect.split()
    for word in machine.effect(effect)[1]:
        names = list(type(word).__members__)
        yield f"{verb} {names[names.index(words[0]) - 1]}"


def guard_mutants() -> Iterator[Mutant]:
    for name in table.GUARDS:
        yield Mutant(f"{name} is always True", in_guards(name, "True"))
        yield Mutant(f"{name} is always False", in_guards(name, "False"))


def in_guards(name: str, expression: str) -> Change:
    return lambda patch: patch.setitem(table.GUARDS, name, expression)


# -- changes of what effects and guards are made of


def instead(name: str, other: Callable[..., Any]) -> Mutant:
    """`other` is given the function of that name, and makes the one that takes its place."""

    def change(patch: pytest.MonkeyPatch) -> None:
        original = getattr(table, name)
        made = wraps(original)(other(original))
        patch.setattr(table, name, made)
        if name in table.EFFECTS:
            patch.setitem(table.EFFECTS, name, made)

    return Mutant(f"{name}: {other.__name__.replace('_', ' ')}", change)


def value(name: str, other: object) -> Mutant:
    return Mutant(f"{name} is {other}", lambda patch: patch.setattr(table, name, other))


def does_nothing(effect: Callable[..., object]) -> Callable[..., object]:
    return lambda *given, **named: None


def happens_twice(effect: Callable[..., object]) -> Callable[..., object]:
    def twice(s: State, e: Any, out: Out, *words: Any) -> None:
        effect(s, e, out, *words)
        effect(s, e, out, *words)

    return twice


def says_it_twice(effect: Callable[..., object]) -> Callable[..., object]:
    def twice(s: State, e: Any, out: Out, *words: Any) -> None:
        effect(s, e, out, *words)
        out.append(out[-1])

    return twice


def says_nothing(effect: Callable[..., object]) -> Callable[..., object]:
    return lambda s, e, out, *words: effect(s, e, [], *words)


def leaves(name: str) -> Callable[[Callable[..., object]], Callable[..., object]]:
    """The effect, but for what it does to that part of the state."""

    def make(effect: Callable[..., object]) -> Callable[..., object]:
        def other(s: State, *rest: Any, **named: Any) -> object:
            before = getattr(s, name)
            result = effect(s, *rest, **named)
            setattr(s, name, before)
            return result

        return other

    make.__name__ = f"leaves {name} as it was"
    return make


def by_policy(**fields: Any) -> Callable[[Callable[..., object]], Callable[..., object]]:
    def make(effect: Callable[..., object]) -> Callable[..., object]:
        def other(s: State, *rest: Any) -> None:
            kept, s.policy = s.policy, attrs.evolve(s.policy, **fields)
            effect(s, *rest)
            s.policy = kept

        return other

    make.__name__ = f"as if {fields}"
    return make


def of_the_turn(**fields: Any) -> Callable[[Callable[..., object]], Callable[..., object]]:
    """What the effect says of its turn, with other fields."""

    def make(effect: Callable[..., object]) -> Callable[..., object]:
        def other(s: State, e: Any, out: Out, *words: Any) -> None:
            n = len(out)
            effect(s, e, out, *words)
            out[n:] = [replace(a, turn=replace(a.turn, **fields)) if hasattr(a, "turn") else a for a in out[n:]]

        return other

    make.__name__ = f"tells {fields}"
    return make


def uses_a_number_again(effect: Callable[..., object]) -> Callable[..., object]:
    def other(s: State, e: Any, out: Out) -> None:
        s.number -= s.number > 0
        effect(s, e, out)

    return other


def skips_the_first_number(effect: Callable[..., object]) -> Callable[..., object]:
    def other(s: State, e: Any, out: Out) -> None:
        s.number += s.number == 0
        effect(s, e, out)

    return other


def keeps_the_text(effect: Callable[..., object]) -> Callable[..., object]:
    def other(s: State, e: Any, out: Out) -> None:
        before = s.closed[-1].transcript if s.closed else ""
        effect(s, e, out)
        s.turn = replace(table.opened(s), transcript=before)

    return other


def forgets_the_earlier(remember: Callable[..., object]) -> Callable[..., object]:
    def other(s: State, e: Any, out: Out) -> None:
        remember(s, e, out)
        s.earlier = ()

    return other


def counts_thoughts_from_one_again(begin: Callable[..., object]) -> Callable[..., object]:
    def other(s: State, out: Out, *, speculative: bool) -> None:
        s.turn = replace(table.opened(s), latest_thought=0)
        begin(s, out, speculative=speculative)

    return other


def is_always(speculative: bool) -> Callable[[Callable[..., object]], Callable[..., object]]:
    def make(begin: Callable[..., object]) -> Callable[..., object]:
        def other(s: State, out: Out, *, speculative: bool) -> None:
            begin(s, out, speculative=told)

        return other

    told = speculative
    make.__name__ = f"is always {'' if speculative else 'not '}speculative"
    return make


def says_every_delta_is_none(hear: Callable[..., object]) -> Callable[..., object]:
    def other(s: State, e: Any, out: Out) -> None:
        n = len(out)
        hear(s, e, out)
        out[n:] = [Hear(a.turn, None) if isinstance(a, Hear) else a for a in out[n:]]

    return other


def says_every_delta_is_the_text(hear: Callable[..., object]) -> Callable[..., object]:
    def other(s: State, e: Any, out: Out) -> None:
        n = len(out)
        hear(s, e, out)
        out[n:] = [Hear(a.turn, a.turn.transcript) if isinstance(a, Hear) else a for a in out[n:]]

    return other


def with_text(make: Callable[[State, str], str], name: str) -> Callable[[Callable[..., object]], Callable[..., object]]:
    def decorate(hear: Callable[..., object]) -> Callable[..., object]:
        return lambda s, e, out: hear(s, replace(e, transcript=make(s, e.transcript)), out)

    decorate.__name__ = name
    return decorate


def interrupts_at_an_end_too(hear: Callable[..., object]) -> Callable[..., object]:
    """Every Hear, whatever the policy says."""

    def other(s: State, e: Any, out: Out) -> None:
        hear(s, e, out)
        if s.reply is not None:
            table.cut_off(s, e, out)

    return other


def adopts_what_does_not_match(answer: Callable[..., object]) -> Callable[..., object]:
    def other(s: State, e: Any, out: Out, end: EndReason) -> None:
        s.thought_text = table.text(s, e)
        answer(s, e, out, end)

    return other


def adopts_nothing(answer: Callable[..., object]) -> Callable[..., object]:
    def other(s: State, e: Any, out: Out, end: EndReason) -> None:
        table.cancel(s, e, out, CancelReason.MISMATCHED)
        answer(s, e, out, end)

    return other


def does_not_hear(answer: Callable[..., object]) -> Callable[..., object]:
    return lambda s, e, out, end: answer(s, Tick(), out, end)


def leaves_the_thought(lose: Callable[..., object]) -> Callable[..., object]:
    def other(s: State, e: Any, out: Out, end: EndReason) -> None:
        s.thinking = None
        lose(s, e, out, end)

    return other


def remembers(remembered: bool) -> Callable[[Callable[..., object]], Callable[..., object]]:
    def make(close: Callable[..., object]) -> Callable[..., object]:
        return lambda s, end, **named: close(s, end, remembered=remembered)

    make.__name__ = "remembers every turn" if remembered else "remembers no turn"
    return make


def lets_errors_through(policy_says: Callable[..., object]) -> Callable[..., object]:
    return lambda s, e, out, name, *texts: bool(getattr(s.policy, name)(*texts))


def passes_where_it_raises(policy_says: Callable[..., object]) -> Callable[..., object]:
    def other(s: State, e: Any, out: Out, name: str, *texts: str) -> object:
        n = len(out)
        return policy_says(s, e, out, name, *texts) or len(out) > n

    return other


def hides_errors(policy_says: Callable[..., object]) -> Callable[..., object]:
    return lambda s, e, out, *rest: policy_says(s, e, [], *rest)


def tells_the_words(report: Callable[..., object]) -> Callable[..., object]:
    return lambda s, e, out, kind: out.append(Report(kind, e, str(e)))


def loses_the_event(report: Callable[..., object]) -> Callable[..., object]:
    return lambda s, e, out, kind: out.append(Report(kind, None, table.DETAILS[kind]))


def takes_the_oldest(closed_turn: Callable[..., object]) -> Callable[..., object]:
    def other(s: State, e: Any) -> object:
        return closed_turn(attrs.evolve(s, closed=s.closed[::-1]), e)

    return other


def compares_nothing(function: Callable[..., object]) -> Callable[..., object]:
    return lambda *given: True


def knows_no_prefix(is_late: Callable[..., object]) -> Callable[..., object]:
    def other(s: State, e: Any) -> bool:
        turn = table.closed_turn(s, e)
        return turn is not None and bool(is_late(s, e)) and (e.turn_id is not None or e.transcript == turn.transcript)

    return other


def compares_to_the_letter(begins_with: Callable[..., object]) -> Callable[..., object]:
    return lambda text, beginning: text.startswith(beginning)


def knows_only_the_empty_text(is_blank: Callable[..., object]) -> Callable[..., object]:
    return lambda text: not text


def does_not_read_blank_as_the_turns_own(text: Callable[..., object]) -> Callable[..., object]:
    return lambda s, e: getattr(e, "transcript", table.opened(s).transcript)


def comes_late(deadline: Callable[..., Any]) -> Callable[..., object]:
    return lambda s: None if (at := deadline(s)) is None else at + 0.5


def needs_more_than_the_deadline(is_due: Callable[..., object]) -> Callable[..., object]:
    return lambda s: is_due(s) and s.now > table.deadline(s)


def receives(name: str, clock: Callable[[State, float | None], float | None]) -> Mutant:
    def receive(self: TurnMachine, event: Any, now: float | None = None) -> tuple[Action, ...]:
        s, out = self._state, list[Action]()
        cell = machine.CELLS[s.phase][type(event)]
        s.now = clock(s, now)
        cell(s, event, out)
        return (*out,)

    return Mutant(f"receive: {name}", lambda patch: patch.setattr(TurnMachine, "receive", receive))


CODE = [
    *(instead("open", how) for how in (uses_a_number_again, skips_the_first_number, keeps_the_text, says_nothing)),
    *(
        instead("open", how)
        for how in (says_it_twice, leaves("progress"), leaves("reply"), of_the_turn(continues=None))
    ),
    *(instead("open", how) for how in (of_the_turn(started_at=None), of_the_turn(turn_id=None))),
    *(instead("begin", how) for how in (counts_thoughts_from_one_again, leaves("turn"), leaves("thought_text"))),
    *(instead("begin", how) for how in (is_always(True), is_always(False))),
    *(instead("hear", how) for how in (does_nothing, says_nothing, says_it_twice, interrupts_at_an_end_too)),
    *(instead("hear", how) for how in (says_every_delta_is_none, says_every_delta_is_the_text, leaves("progress"))),
    instead("hear", with_text(lambda s, said: said.strip(), "strips")),
    instead(
        "hear",
        with_text(lambda s, said: said if said.startswith(old := table.opened(s).transcript) else old + said, "joins"),
    ),
    *(
        instead("think", by_policy(**{name: it}))
        for name, it in (("speculate", True), ("max_thoughts", None), ("min_words", 0))
    ),
    instead("think", leaves("thinking")),
    *(instead("cancel", how) for how in (does_nothing, says_nothing, leaves("thinking"))),
    *(instead("respond", how) for how in (adopts_what_does_not_match, adopts_nothing, does_not_hear, leaves("reply"))),
    *(instead("respond", how) for how in (leaves("audible"), says_it_twice, of_the_turn(end=EndReason.SERVER))),
    *(instead("respond", how) for how in (leaves("turn"), leaves("closed"))),
    *(instead("abandon", how) for how in (leaves_the_thought, says_it_twice, says_nothing, leaves("turn"))),
    *(instead("close", how) for how in (remembers(True), remembers(False))),
    *(value("CLOSED_TURNS", n) for n in (1, 7, 9)),
    *(value("EARLIER_CONNECTIONS", n) for n in (1, 63, 65)),
    *(instead("forget_connection", how) for how in (does_nothing, leaves("request_id"), leaves("closed"))),
    *(instead("remember_connection", how) for how in (does_nothing, forgets_the_earlier, leaves("turn"))),
    instead("adopt_turn_id", does_nothing),
    *(instead("interrupt", how) for how in (says_it_twice, says_nothing, leaves("reply"))),
    instead("cut_off", leaves("turn")),
    *(instead("may_go_on", how) for how in (does_nothing, compares_nothing)),
    *(instead("is_backchannel", how) for how in (does_nothing, compares_nothing)),
    *(instead("may_speculate", how) for how in (does_nothing, compares_nothing)),
    *(instead("reply_audible", how) for how in (does_nothing, leaves("audible"), leaves("reply"))),
    instead("reply_over", does_nothing),
    *(instead("resume", how) for how in (says_nothing, says_it_twice, leaves("progress"))),
    *(instead("stall", how) for how in (says_nothing, says_it_twice, leaves("progress"))),
    instead("use_policy", does_nothing),
    *(
        instead("policy_says", how)
        for how in (lets_errors_through, passes_where_it_raises, hides_errors, compares_nothing)
    ),
    *(instead("report", how) for how in (says_nothing, says_it_twice, tells_the_words, loses_the_event)),
    *(instead("closed_turn", how) for how in (does_nothing, takes_the_oldest)),
    *(instead("is_late", how) for how in (does_nothing, knows_no_prefix, compares_nothing)),
    *(instead("begins_with", how) for how in (does_nothing, compares_to_the_letter, compares_nothing)),
    *(instead("is_echo", how) for how in (does_nothing, compares_nothing)),
    *(instead("owed_turn", how) for how in (does_nothing,)),
    *(instead("start_wait", how) for how in (does_nothing, leaves("eager_at"), leaves("eager_text"))),
    instead("continued", does_nothing),
    instead("is_blank", knows_only_the_empty_text),
    instead("text", does_not_read_blank_as_the_turns_own),
    *(instead("deadline", how) for how in (does_nothing, comes_late)),
    instead("stall_is_due", needs_more_than_the_deadline),
    *(instead("think_is_due", how) for how in (does_nothing, compares_nothing)),
    receives("time runs backwards", lambda s, now: s.now if now is None else now),
    receives("time is forgotten", lambda s, now: now),
    receives("time stands still", lambda s, now: s.now or now),
    receives("there is no time", lambda s, now: None),
]

# Changes after which the machine does the same, and why. One that is caught after all has to leave this list.
EQUIVALENT = {
    "turn.resume, eager_ended, where 'other_turn_id, of_closed_turn': after the next row": "both say the same",
    "turn.eager_end turn.end, idle, where 'blank': after the next row": "nothing blank continues a turn",
    "turn.update, speaking, where 'thinking, same_text': without the guard thinking": "only to be quick",
    "turn.end, speaking eager_ended, where 'blank': after the next row": "the row before took the blank backchannel",
    "tick, eager_ended, where 'think_due': after the next row": "no thought waits in a turn without text",
    "reply_started, idle speaking eager_ended, where 'its_reply': after the next row": "one has a reply, one has none",
}

MUTANTS = [*row_mutants(), *guard_mutants(), *CODE]


# -- who catches them


@cache
def corpus() -> tuple[tuple[bool, Policy, Session], ...]:
    """Sessions, lawful or not, with their policies: the same in every run."""
    sessions: list[tuple[bool, Policy, Session]] = []

    @settings(derandomize=True, database=None)
    @given(hostile_sessions(), policies())
    def hostile(session: Session, policy: Policy) -> None:
        sessions.append((False, policy, session))

    @settings(derandomize=True, database=None)
    @given(lawful_sessions(), policies(sound=True))
    def lawful(session: Session, policy: Policy) -> None:
        sessions.append((True, policy, session))

    hostile()
    lawful()
    return tuple(sessions)


def laws() -> None:
    for is_lawful, policy, session in corpus():
        oracle, runner = Oracle(lawful=is_lawful), TurnMachine(policy)
        for event, now in session:
            oracle.step(event, runner.receive(event, now))


@cache
def calls(module: Any) -> tuple[tuple[str, Callable[[], None]], ...]:
    """The tests of a module, each with its parameters."""
    found = list[tuple[str, Callable[[], None]]]()
    for name, test in vars(module).items():
        if not name.startswith("test_"):
            continue
        choices: list[list[dict[str, Any]]] = []
        for mark in getattr(test, "pytestmark", []):
            names, values = mark.args
            several = isinstance(names, tuple)
            choices.append([dict(zip(names, it, strict=True)) if several else {names: it} for it in values])
        for chosen in product(*choices):
            given = {name: it for some in chosen for name, it in some.items()}
            found.append((name, partial(test, **given)))
    return tuple(found)


def caught_by() -> str | None:
    """Who catches the machine as it is now."""
    for name, test in (("the laws", laws), *calls(FAILURES), *calls(CELLS)):
        try:
            test()
        except (Exception, pytest.fail.Exception):
            return name
    return None


def test_what_is_not_broken_is_not_caught() -> None:
    with broken(lambda patch: None):
        assert caught_by() is None


def test_the_names_of_mutants_are_their_own() -> None:
    names = [mutant.name for mutant in MUTANTS]
    assert len(names) > 400
    assert len(set(names)) == len(names)
    assert set(names) >= set(EQUIVALENT)


SAMPLE = 20  # one mutant in so many is always tried, the others with --full
TRIED = [
    pytest.param(mutant, id=mutant.name, marks=[pytest.mark.full] if index % SAMPLE else [])
    for index, mutant in enumerate(MUTANTS)
]


@pytest.mark.parametrize("mutant", TRIED)
def test_caught(mutant: Mutant) -> None:
    with broken(mutant.change):
        catcher = caught_by()
    assert (catcher is None) == (mutant.name in EQUIVALENT), catcher or EQUIVALENT.get(mutant.name, "survives")
