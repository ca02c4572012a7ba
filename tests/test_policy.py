"""Policy, checked when made; what `normalized`, `exact` and `words` count as the same."""

import functools
import math
from string import punctuation
from typing import Any
from unicodedata import category

import attrs
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from inkturns.policy import OnLost, OnResume, OnStall, Policy, exact, normalized, words
from inkturns.testing.strategies import policies

CHOSEN = "aAbßİ5 2.,-:%!?'$+\u0301\u093e\u0940 \t\n\u3000“”—"
texts = st.text(CHOSEN, max_size=8) | st.text(max_size=12)


# -- Policy


def test_the_defaults_are_the_designs() -> None:
    assert attrs.asdict(Policy()) == {
        "speculate": True,
        "on_resume": OnResume.CANCEL,
        "match": normalized,
        "max_thoughts": 3,
        "min_words": 0,
        "interrupts": None,
        "stall_timeout": None,
        "on_stall": OnStall.REPORT,
        "on_lost": OnLost.ABANDON,
    }


async def said(*texts: str) -> bool:
    return True


class Said:
    async def __call__(self, *texts: str) -> bool:
        return True

    async def said(self, *texts: str) -> bool:
        return True


REFUSED: dict[str, tuple[Any, ...]] = {
    "speculate": (None, 0, 1, "yes"),
    "on_resume": (None, "drop", 1, True, OnStall.END, []),
    "match": (None, "exact", 1, said, functools.partial(said, "go"), Said(), Said().said),
    "max_thoughts": (-1, 1.0, True, "3", math.inf),
    "min_words": (None, -1, 1.0, True, "3"),
    "interrupts": (3, "stop", True, said, functools.partial(said, "go"), Said(), Said().said),
    "stall_timeout": (0, 0.0, -1, True, "5", math.nan, math.inf, -math.inf),
    "on_stall": (None, "drop", 1, True, OnLost.ABANDON, []),
    "on_lost": (None, "drop", 1, True, OnResume.KEEP, []),
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in REFUSED.items() for value in values])
def test_f41_nonsense_is_refused_and_the_field_named(name: str, value: Any) -> None:
    with pytest.raises((TypeError, ValueError)) as found:
        Policy(**{name: value})
    assert f"Policy.{name}" in str(found.value)
    assert str(value) in str(found.value)


def test_f41_every_field_is_checked() -> None:
    assert tuple(REFUSED) == tuple(field.name for field in attrs.fields(Policy))


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
    [("on_resume", kind) for kind in OnResume]
    + [("on_stall", kind) for kind in OnStall]
    + [("on_lost", kind) for kind in OnLost],
)
def test_an_enum_may_be_said_as_its_string(name: str, value: OnResume | OnStall | OnLost) -> None:
    by_string: dict[str, Any] = {name: value.value}
    said = getattr(Policy(**by_string), name)
    assert said is value
    assert said is getattr(Policy(**{name: value}), name)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("max_thoughts", 0), ("max_thoughts", None), ("min_words", 7), ("stall_timeout", 6), ("stall_timeout", 0.25)),
        *(("interrupts", str.isupper), ("match", exact), ("speculate", False)),
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
    assert normalized(eager, final)
    assert normalized(final, eager)


@pytest.mark.parametrize(("eager", "final"), DIFFERENT)
def test_f21_texts_that_say_another_thing_do_not(eager: str, final: str) -> None:
    assert not normalized(eager, final)
    assert not normalized(final, eager)
    assert not normalized(f"take {eager} now", f"take {final} now")


@given(texts, texts)
def test_f21_matching_is_reflexive_and_symmetric(eager: str, final: str) -> None:
    assert normalized(eager, eager)
    assert normalized(eager, final) is normalized(final, eager)


@given(texts, texts, texts)
def test_f21_matching_is_transitive(a: str, b: str, c: str) -> None:
    assert not (normalized(a, b) and normalized(b, c)) or normalized(a, c)


@given(st.lists(st.text("abcxyzäж", min_size=1, max_size=5), min_size=1, max_size=5), st.data())
def test_f21_commas_case_and_spacing_never_count_between_words(said: list[str], data: st.DataObject) -> None:
    gaps = st.text(" \t\n\u2003", min_size=1, max_size=3)
    ends = st.text([mark for mark in punctuation + "¿“”…、。" if category(mark).startswith("P")], max_size=2)
    changed = "".join(data.draw(gaps) + word.upper() + data.draw(ends) for word in said)
    assert normalized(" ".join(said), changed)


@given(st.text(min_size=1), st.integers(0), st.characters(categories=("L", "M", "N", "S"), exclude_characters="\u0345"))
def test_f21_a_letter_mark_digit_or_symbol_more_always_counts(text: str, at: int, more: str) -> None:
    at %= len(text) + 1
    assert not normalized(text, text[:at] + more + text[at:])


@given(texts, texts)
def test_exact_is_to_the_letter(eager: str, final: str) -> None:
    assert exact(eager, eager)
    assert exact(eager, final) is (eager == final)


# -- interrupts


@given(st.lists(st.text("abc", min_size=1, max_size=3), max_size=6), st.integers(0, 6))
def test_so_many_words_interrupt(said: list[str], n: int) -> None:
    assert words(n, ())("  ".join(said)) is (len(said) >= n)


@pytest.mark.parametrize("text", ["stop", "Stop!", "no, no", "oh, wait.", "  NO  "])
def test_some_words_always_interrupt(text: str) -> None:
    assert words(9)(text)
    assert not words(9, ())(text)


@pytest.mark.parametrize("text", ["", " ", "nonstop", "know", "waiter", "mhm", "stopping", "st op"])
def test_parts_of_words_do_not(text: str) -> None:
    assert not words(9)(text)


def test_what_always_interrupts_may_be_said_in_several_words() -> None:
    hold_on = words(9, always=("hold on",))
    assert hold_on("please Hold,  on!")
    assert not hold_on("hold it on")
    assert not hold_on("stop")


@pytest.mark.parametrize("text", ["", " ", "...", "?!"])
def test_punctuation_alone_does_not(text: str) -> None:
    assert not words(2)(text)


def test_words_are_values() -> None:
    assert words(2) == words(2, ("stop", "no", "wait")) == words(2, ["stop", "no", "wait"])  # type: ignore[arg-type]
    assert hash(words(2)) == hash(words(2))
    assert words(2) != words(3)
    assert words(2) != words(2, ("stop",))


@pytest.mark.parametrize(
    ("n", "always", "error", "name"),
    [(value, (), TypeError, "n ") for value in (None, 1.0, True, "2")]
    + [(-1, (), ValueError, "n ")]
    + [(1, value, TypeError, "always") for value in ("stop", (1,), (None,), None, 5)]
    + [(1, (value,), ValueError, "always") for value in ("", " ", "...")],
)
def test_words_refuses_nonsense_and_names_it(n: Any, always: Any, error: type[Exception], name: str) -> None:
    with pytest.raises(error, match=f"words: {name}"):
        words(n, always)


@given(texts)
def test_no_function_of_ours_raises(text: str) -> None:
    assume(text)
    assert isinstance(words(2)(text), bool)
    assert isinstance(normalized(text, text[::-1]), bool)
