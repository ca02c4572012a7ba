"""Policy is checked when it is made; what `same_words`, `same_text` and `min_words` say."""

import functools
import inspect
import math
from collections.abc import Callable, Iterator
from string import punctuation
from typing import Any
from unicodedata import category

import attrs
import pytest
from hypothesis import Phase, assume, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from inkturns.actions import Turn
from inkturns.cli.policy import described
from inkturns.policy import (
    AfterDisconnect,
    AfterResume,
    AfterStall,
    Policy,
    min_words,
    reduced,
    same_text,
    same_words,
)
from inkturns.serialize import dump_policy, load_policy
from inkturns.testing.draws import Dice, a_policy
from inkturns.testing.strategies import policies

CHOSEN = "aAbßİ5 2.,-:%!?'$+\u0301\u093e\u0940 \t\n\u3000“”—"
texts = st.text(CHOSEN, max_size=8) | st.text(max_size=12)


# -- Policy


def test_the_defaults_are_the_designs() -> None:
    assert attrs.asdict(Policy()) == {
        "speculate": True,
        "think_after": 0.0,
        "max_thoughts": 3,
        "match": same_words,
        "after_resume": AfterResume.CANCEL,
        "interrupts": None,
        "stall_timeout": None,
        "after_stall": AfterStall.WAIT,
        "after_disconnect": AfterDisconnect.ABANDON,
    }


async def said(*texts: str) -> bool:
    return True


class Said:
    async def __call__(self, *texts: str) -> bool:
        return True

    async def said(self, *texts: str) -> bool:
        return True


def yielded(*texts: str) -> Iterator[bool]:
    yield False


FUNCTIONS = (said, functools.partial(said, "go"), Said(), Said().said, yielded)
REFUSED: dict[str, tuple[Any, ...]] = {
    "speculate": (None, 0, 1, "yes", same_words, *FUNCTIONS),
    "think_after": (None, -1, -0.1, True, "0", math.nan, math.inf, 3601, 10**400, 250_000),
    "max_thoughts": (-1, 1.0, True, "3", math.inf),
    "match": (None, "same_text", 1, min_words(3), *FUNCTIONS),
    "after_resume": (None, "drop", 1, True, AfterStall.END, []),
    "interrupts": (3, "stop", True, same_text, *FUNCTIONS),
    "stall_timeout": (0, 0.0, -1, True, "5", math.nan, math.inf, -math.inf, 3600.5, 6000, -(10**400)),
    "after_stall": (None, "drop", 1, True, AfterDisconnect.ABANDON, []),
    "after_disconnect": (None, "drop", 1, True, AfterResume.KEEP, []),
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in REFUSED.items() for value in values])
def test_f41_nonsense_is_refused_and_the_field_named(name: str, value: Any) -> None:
    with pytest.raises((TypeError, ValueError)) as found:
        Policy(**{name: value})
    assert f"Policy.{name}" in str(found.value)
    assert str(value) in str(found.value)


@pytest.mark.parametrize("function", [bool, max, functools.partial(same_words, "go"), lambda *given: True])
def test_a_function_that_takes_what_it_is_given_is_taken(function: Any) -> None:
    assert Policy(speculate=function).speculate is function


def test_f41_every_field_is_checked() -> None:
    assert set(REFUSED) == {field.name for field in attrs.fields(Policy)}


FIELDS = [field.name for field in attrs.fields(Policy)]


def is_drawn(name: str, value: object) -> Policy:
    """A policy of the strategies' whose field differs from the default, as it was drawn."""
    as_drawn = settings(max_examples=200, phases=[Phase.generate], derandomize=True)
    return find(policies(sound=True), lambda policy: bool(getattr(policy, name) != value), settings=as_drawn)


KNOWN: dict[str, Callable[[str, object], bool]] = {
    "the docstring of Policy": lambda name, _: f"\n{name} " in f"{inspect.getdoc(Policy)}",
    "testing/strategies.py, policies": lambda name, value: is_drawn(name, value) is not None,
    "testing/draws.py, a_policy": lambda name, value: any(
        getattr(a_policy(Dice(seed)), name) != value for seed in range(200)
    ),
    "serialize.py": lambda name, value: is_kept(attrs.evolve(Policy(), **{name: drawn_of(name, value)})),
    "the help of --policy": lambda name, _: f" {name}," in described().replace(".", ","),
}


def drawn_of(name: str, value: object) -> Any:
    return recordable(getattr(is_drawn(name, value), name), name)


def is_kept(policy: Policy) -> bool:
    return load_policy(dump_policy(policy)) == policy


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("place", KNOWN)
def test_every_field_is_known_wherever_policies_are_made(place: str, name: str) -> None:
    """tests/test_readme.py compares the README's table."""
    try:
        known = KNOWN[place](name, getattr(Policy(), name))
    except NoSuchExample:
        known = False
    assert known, f"Policy.{name} is missing in {place}"


def recordable(value: Any, name: str) -> Any:
    """A recording imports no function of the tests' own."""
    if not callable(value):
        return value
    return same_text if name == "match" else min_words(2)


@pytest.mark.parametrize("name", ["speculation", "stall_timeout_ms", "Match", ""])
def test_f41_unknown_names_are_refused_and_named(name: str) -> None:
    fields: dict[str, Any] = {name: True}
    with pytest.raises(TypeError, match=f"'{name}'"):
        Policy(**fields)


def test_f41_positions_are_refused() -> None:
    with pytest.raises(TypeError):
        Policy(True)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("name", "value"),
    [("after_resume", kind) for kind in AfterResume]
    + [("after_stall", kind) for kind in AfterStall]
    + [("after_disconnect", kind) for kind in AfterDisconnect],
)
def test_an_enum_may_be_said_as_its_string(name: str, value: AfterResume | AfterStall | AfterDisconnect) -> None:
    by_string: dict[str, Any] = {name: value.value}
    said = getattr(Policy(**by_string), name)
    assert said is value
    assert said is getattr(Policy(**{name: value}), name)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("max_thoughts", 0), ("max_thoughts", None), ("stall_timeout", 6), ("stall_timeout", 0.25)),
        *(("stall_timeout", 3600), ("think_after", 0), ("think_after", 0.25), ("think_after", 3600)),
        *(("interrupts", min_words(2)), ("interrupts", bool), ("match", same_text)),
        *(("speculate", False), ("speculate", min_words(7)), ("speculate", bool)),
    ],
)
def test_what_makes_sense_is_kept(name: str, value: Any) -> None:
    assert getattr(Policy(**{name: value}), name) == value


@given(policies())
def test_a_policy_is_a_value(policy: Policy) -> None:
    assert attrs.evolve(policy) == policy
    assert len({policy, attrs.evolve(policy)}) == 1
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        policy.speculate = False  # type: ignore[misc]


# -- match

SAME = [
    ("So the derivative of x", "so the derivative, of X."),
    ("hello", "Hello!"),
    ("hello world", " hello \t world\n"),
    ("hello, world", "hello  world"),
    ("Straße", "STRASSE"),
    ("don't", "dont"),
    ("“quoted” — text", "quoted text"),
    ("¿qué?", "Qué"),
    ("はい。", "はい"),
    ("at 5 o'clock", "At 5, o'clock"),
    ("at 5.", "at 5"),
    ("at 5 -", "at 5"),
    ("a 5- or 6-hour trip", "a 5 or 6hour trip"),
    ("100 %", "100"),
    ("I said: 5, and 6!", "i said 5 and 6"),
    ("", " \t"),
    ("...", ""),
]
DIFFERENT = [
    ("का", "की"),
    ("का", "क"),
    ("-5", "5"),
    ("\u22125", "5"),
    ("2 5", "25"),
    ("1:30", "130"),
    ("1:30", "1 30"),
    ("5%", "5"),
    ("5.5", "55"),
    ("5,5", "55"),
    ("5.5", "5,5"),
    (".5", "5"),
    ("at -5", "at 5"),
    ("5‰", "5"),
    ("1/2", "12"),
    ("2-5", "25"),
    ("5٪", "5"),
    ("$5", "5"),
    ("$5", "€5"),
    ("5 + 5", "5 5"),
    ("a = b", "a b"),
    ("x^2", "x2"),
    ("e", "é"),
    ("résumé", "resume"),
    ("ice cream", "icecream"),
    ("go", "go on"),
    ("go", ""),
]


@pytest.mark.parametrize(("eager", "final"), SAME)
def test_f21_texts_that_differ_by_comma_case_or_spacing_match(eager: str, final: str) -> None:
    assert same_words(eager, final)
    assert same_words(final, eager)


@pytest.mark.parametrize(("eager", "final"), DIFFERENT)
def test_f21_texts_that_say_another_thing_do_not(eager: str, final: str) -> None:
    assert not same_words(eager, final)
    assert not same_words(final, eager)
    assert not same_words(f"take {eager} now", f"take {final} now")


@given(texts, texts)
def test_f21_matching_is_reflexive_and_symmetric(eager: str, final: str) -> None:
    assert same_words(eager, eager)
    assert same_words(eager, final) is same_words(final, eager)


@given(texts, texts, texts)
def test_f21_matching_is_transitive(a: str, b: str, c: str) -> None:
    assert not (same_words(a, b) and same_words(b, c)) or same_words(a, c)


@given(st.lists(st.text("abcxyzäж", min_size=1, max_size=5), min_size=1, max_size=5), st.data())
def test_f21_commas_case_and_spacing_never_count_between_words(said: list[str], data: st.DataObject) -> None:
    gaps = st.text(" \t\n\u2003", min_size=1, max_size=3)
    ends = st.text([mark for mark in punctuation + "¿“”…、。" if category(mark).startswith("P")], max_size=2)
    changed = "".join(data.draw(gaps) + word.upper() + data.draw(ends) for word in said)
    assert same_words(" ".join(said), changed)


@given(st.text(min_size=1), st.integers(0), st.characters(categories=("L", "M", "N", "S"), exclude_characters="\u0345"))
def test_f21_a_letter_mark_digit_or_symbol_more_always_counts(text: str, at: int, more: str) -> None:
    at %= len(text) + 1
    assert not same_words(text, text[:at] + more + text[at:])


@given(texts, texts)
def test_same_text_is_to_the_letter(eager: str, final: str) -> None:
    assert same_text(eager, eager)
    assert same_text(eager, final) is (eager == final)


@given(texts)
def test_a_reduced_text_is_as_it_is(text: str) -> None:
    assert same_words(reduced(text), text) or any(char.isdigit() for char in text)
    assert "  " not in reduced(text)
    assert reduced(text) == reduced(text).strip()


# -- min_words


def turn(text: str) -> Turn:
    return Turn(1, text)


@given(st.lists(st.text("abc", min_size=1, max_size=3), max_size=6), st.integers(0, 6))
def test_a_text_has_so_many_words(said: list[str], n: int) -> None:
    assert min_words(n)(turn("  ".join(said))) is (len(said) >= n)


STOP = ("stop", "no", "wait")


@pytest.mark.parametrize("text", ["stop", "Stop!", "no, no", "oh, wait.", "  NO  "])
def test_or_any_of_these(text: str) -> None:
    assert min_words(9, or_any=STOP)(turn(text))
    assert not min_words(9)(turn(text))


@pytest.mark.parametrize("text", ["", " ", "nonstop", "know", "waiter", "mhm", "stopping", "st op"])
def test_a_part_of_a_word_is_not_the_word(text: str) -> None:
    assert not min_words(9, or_any=STOP)(turn(text))


def test_or_any_may_hold_phrases() -> None:
    hold_on = min_words(9, or_any=("hold on",))
    assert hold_on(turn("please Hold,  on!"))
    assert not hold_on(turn("hold it on"))
    assert not hold_on(turn("stop"))


@pytest.mark.parametrize("text", ["", " ", "...", "?!", "- - -", "… “ ”"])
def test_punctuation_is_no_word(text: str) -> None:
    assert not min_words(1)(turn(text))
    assert min_words(0)(turn(text))


def test_min_words_is_a_value() -> None:
    assert min_words(2) == min_words(2, ()) == min_words(2, or_any=[])
    assert hash(min_words(2, STOP)) == hash(min_words(2, list(STOP)))
    assert min_words(2) != min_words(3)
    assert min_words(2) != min_words(2, ("stop",))
    assert [repr(min_words(2)), repr(min_words(2, ("no",)))] == ["min_words(2)", "min_words(2, or_any=('no',))"]
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        min_words(2).n = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("n", "or_any", "error", "name"),
    [(value, (), TypeError, "n ") for value in (None, 1.0, True, "2")]
    + [(-1, (), ValueError, "n ")]
    + [(1, value, TypeError, "or_any") for value in ("stop", (1,), (None,), None, 5)]
    + [(1, (value,), ValueError, "or_any") for value in ("", " ", "...")],
)
def test_min_words_refuses_nonsense_and_names_it(n: Any, or_any: Any, error: type[Exception], name: str) -> None:
    with pytest.raises(error, match=f"min_words: {name}"):
        min_words(n, or_any)


@given(texts)
def test_no_function_of_ours_raises(text: str) -> None:
    assume(text)
    assert isinstance(min_words(2, STOP)(turn(text)), bool)
    assert isinstance(same_words(text, text[::-1]), bool)
