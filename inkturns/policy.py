"""Policy: what a user decides about turns, and the functions that come with it.

Rules of this file:
- A policy is a frozen value. It is checked when it is made, and a message names the field, the value and the fix.
- Its functions are pure. The machine reports one that raises, and goes on: `match` and `speculate` count as False then,
  `interrupts` as True.
- To add a field: here with its line in the docstring and its validator; what it decides in `table.py`; then in
  `testing/strategies.py`, `testing/draws.py`, `serialize.py` (where it is a function), the README's table, and the
  defaults and bad values in `tests/test_policy.py`. The command's `--policy` reads the fields off. `test_policy.py`
  and `test_readme.py` fail for each place that is forgotten, and name it.
"""

import inspect
import math
from collections.abc import Callable, Iterable
from enum import StrEnum, auto
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from unicodedata import category

import attrs

from inkturns.turn import Turn

if TYPE_CHECKING:
    from inkturns.settings import TurnSettings

__all__ = ["AfterDisconnect", "AfterResume", "AfterStall", "Policy", "min_words", "same_text", "same_words"]

DEFAULT_END_TIMEOUT_MS = 5600  # the server's, in every documented version
MAX_SECONDS = 3600  # more was meant as milliseconds


class AfterResume(StrEnum):
    """What happens to the thought when the user goes on."""

    CANCEL = auto()  # it is cancelled at once
    KEEP = auto()  # it lives until the text changes


class AfterStall(StrEnum):
    """What happens to a turn that stalls."""

    WAIT = auto()  # Stall is given, and the turn stays open
    END = auto()  # Stall is given, and the turn is closed


class AfterDisconnect(StrEnum):
    """What happens to an open turn when its connection is lost."""

    ABANDON = auto()  # it is closed, and its words are not answered
    RESPOND = auto()  # it is closed, and what was heard is answered


# -- match


def same_text(eager: str, final: str) -> bool:
    """The texts are equal to the letter."""
    return eager == final


def same_words(eager: str, final: str) -> bool:
    """The texts are equal once `reduced` (F21): case, punctuation and the amount of white space do not count."""
    return eager == final or reduced(eager) == reduced(final)


def reduced(text: str) -> str:
    """The text without case, without punctuation (Unicode's category P), and with single spaces between its words.

    Letters, marks, digits and symbols stay. So does punctuation that makes another number: what stands between two
    digits ("1:30" is not "130"), a dash or point right before a digit ("-5" is not "5"), a per cent sign right after
    one ("5%" is not "5"; but "at 5." is "at 5")."""
    text = text.casefold()
    if text.isalpha():
        return text
    kept = [char for i, char in enumerate(text) if char.isalnum() or category(char)[0] != "P" or _numeric(text, i)]
    return " ".join("".join(kept).split())


POINTS = ".\uff0e\u066b"  # also full-width and Arabic; a decimal comma stands between two digits
PER_CENT = "%‰‱\uff05\ufe6a\u066a\u0609\u060a"


def _numeric(text: str, i: int) -> bool:
    char, before, after = text[i], text[i - 1 : i].isdigit(), text[i + 1 : i + 2].isdigit()
    if before:
        return after or char in PER_CENT
    return after and (char in POINTS or category(char) == "Pd")


# -- speculate, interrupts


def _phrases(value: object) -> tuple[Any, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"min_words: or_any must be a tuple of strings, got {value!r}")
    return tuple(value)


@attrs.frozen(repr=False)
class min_words:  # noqa: N801 (written like a function: `interrupts=min_words(2)`)
    """A function of a turn, for `Policy.speculate` or `Policy.interrupts`: does its text have `n` words, or any of
    these? Words are what white space separates; punctuation alone is no word. `or_any` holds words or phrases; case,
    punctuation and spacing do not count in them: `min_words(2, or_any=("stop", "no", "hold on"))`.

    It is a value: two of equal fields are equal, and a recording can hold it. Raises TypeError or ValueError, naming
    the argument, for an `n` that is not a whole number of 0 or more, and for an `or_any` that is not made of words."""

    n: int = attrs.field()
    or_any: tuple[str, ...] = attrs.field(default=(), converter=_phrases)

    @n.validator
    def _check_n(self, _: object, value: object) -> None:
        check_count("min_words: n", value)

    @or_any.validator
    def _check_or_any(self, _: object, value: tuple[object, ...]) -> None:
        for phrase in value:
            if not isinstance(phrase, str):
                raise TypeError(f"min_words: or_any must hold strings, got {phrase!r}")
            if not reduced(phrase):
                raise ValueError(f"min_words: or_any must hold words, got {phrase!r}")

    def __call__(self, turn: Turn) -> bool:
        words = 0
        for word in turn.transcript.split() if self.n else ():
            words += bool(reduced(word))
            if words == self.n:
                break
        if words == self.n:
            return True
        if not self.or_any:
            return False
        said = f" {reduced(turn.transcript)} "
        return any(f" {reduced(phrase)} " in said for phrase in self.or_any)

    def __repr__(self) -> str:
        return f"min_words({self.n}, or_any={self.or_any!r})" if self.or_any else f"min_words({self.n})"


# -- checks


def check_count(name: str, value: object) -> None:
    if type(value) is not int:  # a bool is no count
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    if value < 0:
        raise ValueError(f"{name} must be 0 or more, got {value}")


def check_seconds(name: str, value: object, least: str) -> None:
    """Raises unless `value` is a number of seconds up to an hour; `least` is "0 or more" or "more than 0"."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be {least} seconds, got {value!r}")
    if not 0 <= value < math.inf or (value == 0 and least != "0 or more"):  # isfinite takes no huge int
        raise ValueError(f"{name} must be {least} seconds, got {value}")
    if value > MAX_SECONDS:
        raise ValueError(f"{name} must be at most {MAX_SECONDS} seconds, got {value}: were milliseconds meant?")


def gives_no_answer(function: Any) -> bool:
    """Whether it is async or a generator: calling it gives an object that always counts as True."""
    while isinstance(function, partial | staticmethod):
        function = function.func if isinstance(function, partial) else function.__func__
    called = (function, getattr(function, "__call__", None))  # noqa: B004 (an object's own)
    kinds = (inspect.iscoroutinefunction, inspect.isasyncgenfunction, inspect.isgeneratorfunction)
    return any(kind(one) for kind in kinds for one in called)


def is_sync_function(value: object, takes: int) -> bool:
    """Whether it can be called with so many arguments, and answers with a plain value."""
    if not callable(value) or gives_no_answer(value):
        return False
    try:
        inspect.signature(value).bind(*range(takes))
    except (TypeError, ValueError) as error:
        return isinstance(error, ValueError)  # a built-in function that does not say what it takes
    return True


Member = TypeVar("Member", bound=StrEnum)


def _member(kind: type[Member], name: str, value: Member) -> Member:
    try:
        return kind(value)
    except ValueError:
        raise ValueError(f"Policy.{name} must be one of {', '.join(kind)}, got {value!r}") from None


def _after_resume(value: AfterResume) -> AfterResume:
    return _member(AfterResume, "after_resume", value)


def _after_stall(value: AfterStall) -> AfterStall:
    return _member(AfterStall, "after_stall", value)


def _after_disconnect(value: AfterDisconnect) -> AfterDisconnect:
    return _member(AfterDisconnect, "after_disconnect", value)


# -- Policy


@attrs.frozen(kw_only=True)
class Policy:
    """What an agent wants of its turns. Raises TypeError or ValueError, naming the field, for a wrong value.

    speculate      think at an eager end? True, False, or (turn) -> bool, which is asked at the eager end and again when
                   `think_after` is over; False: think only at the turn's end
    think_after    seconds to wait after an eager end before thinking; a resume or other words in between save the call
    max_thoughts   speculative thoughts a turn; None: no limit
    match          (eager, final) -> bool: is a thought on `eager` a reply to `final`? `same_words`, or `same_text`
    after_resume   AfterResume.CANCEL, or KEEP: the thought lives until the text changes
    interrupts     (turn) -> bool: do the turn's words stop an audible reply? None: every turn stops it
    stall_timeout  seconds without progress of the text, after which a turn stalls; None: never (F12, F13)
    after_stall    AfterStall.WAIT, or END: close the turn
    after_disconnect  AfterDisconnect.ABANDON, or RESPOND: answer what was heard before the connection was lost

    `min_words(n)` makes a function for `speculate` or `interrupts`."""

    speculate: bool | Callable[[Turn], bool] = attrs.field(default=True)
    think_after: float = attrs.field(default=0.0)
    max_thoughts: int | None = attrs.field(default=3)
    match: Callable[[str, str], bool] = attrs.field(default=same_words)
    after_resume: AfterResume = attrs.field(default=AfterResume.CANCEL, converter=_after_resume)
    interrupts: Callable[[Turn], bool] | None = attrs.field(default=None)
    stall_timeout: float | None = attrs.field(default=None)
    after_stall: AfterStall = attrs.field(default=AfterStall.WAIT, converter=_after_stall)
    after_disconnect: AfterDisconnect = attrs.field(default=AfterDisconnect.ABANDON, converter=_after_disconnect)

    @speculate.validator
    def _check_speculate(self, _: object, value: object) -> None:
        if not isinstance(value, bool) and not is_sync_function(value, 1):
            raise TypeError(f"Policy.speculate must be True, False or a sync function of a turn, got {value!r}")

    @think_after.validator
    def _check_think_after(self, _: object, value: object) -> None:
        check_seconds("Policy.think_after", value, "0 or more")

    @max_thoughts.validator
    def _check_max_thoughts(self, _: object, value: object) -> None:
        if value is not None:
            check_count("Policy.max_thoughts", value)

    @match.validator
    def _check_match(self, _: object, value: object) -> None:
        if not is_sync_function(value, 2):
            raise TypeError(f"Policy.match must be a sync function of two texts, got {value!r}")

    @interrupts.validator
    def _check_interrupts(self, _: object, value: object) -> None:
        if value is not None and not is_sync_function(value, 1):
            raise TypeError(f"Policy.interrupts must be a sync function of a turn, or None, got {value!r}")

    @stall_timeout.validator
    def _check_stall_timeout(self, _: object, value: object) -> None:
        if value is not None:
            check_seconds("Policy.stall_timeout", value, "more than 0")

    def check(self, settings: "TurnSettings") -> None:
        """Raises ValueError where `stall_timeout` is not above the server's own `end_timeout_ms`: it would cut every
        slow ending short just before it comes (F12). Call it where the settings of the connection are known."""
        end_timeout_ms = settings.end_timeout_ms or DEFAULT_END_TIMEOUT_MS
        if self.stall_timeout is not None and self.stall_timeout <= end_timeout_ms / 1000:
            raise ValueError(
                f"Policy.stall_timeout must be above the server's end_timeout_ms, {end_timeout_ms}, or slow endings are"
                f" cut short; got {self.stall_timeout} s"
            )
