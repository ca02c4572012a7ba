"""Policy: what a user may decide; the match and interrupt functions.

Rules of this file: a policy is a frozen value, checked when made, in the library's own words; its functions are pure;
one that raises counts as False and is a Report (the machine sees to that).
"""

import inspect
import math
from collections.abc import Callable, Iterable
from enum import StrEnum, auto
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from unicodedata import category

import attrs

if TYPE_CHECKING:
    from inkturns.settings import TurnSettings

__all__ = ["OnLost", "OnResume", "OnStall", "Policy", "exact", "normalized", "words"]

DEFAULT_END_TIMEOUT_MS = 5600  # the server's, in every version documented


class OnResume(StrEnum):
    """What becomes of the thought when the user goes on."""

    CANCEL = auto()  # at once
    KEEP = auto()  # when the text moves


class OnStall(StrEnum):
    """What becomes of a turn that stalls."""

    REPORT = auto()  # Stall, and wait
    END = auto()  # Stall, then close it


class OnLost(StrEnum):
    """What becomes of an open turn when its connection goes away."""

    ABANDON = auto()  # hand over its words unanswered
    RESPOND = auto()  # answer what was heard


def exact(eager: str, final: str) -> bool:
    """The same text, to the letter."""
    return eager == final


def normalized(eager: str, final: str) -> bool:
    """The same words (F21): case, punctuation (Unicode's category P) and the amount of white space do not count.

    Letters, marks, digits and symbols do; so does punctuation that makes a number another: a sign or point that
    touches a digit ("-5" is not "5", "5%" not "5"), and whatever stands between two digits ("1:30" is not "130")."""
    return eager == final or _essence(eager) == _essence(final)


def _essence(text: str) -> str:
    text = text.casefold()
    kept = [char for i, char in enumerate(text) if category(char)[0] != "P" or _numeric(text, i)]
    return " ".join("".join(kept).split())


SIGNS_AND_POINTS = ".%‰\uff0e\uff05\u066a\u066b"  # also full-width and Arabic; a decimal comma is between two digits


def _numeric(text: str, i: int) -> bool:
    before, after = text[i - 1 : i].isdigit(), text[i + 1 : i + 2].isdigit()
    sign_or_point = text[i] in SIGNS_AND_POINTS or category(text[i]) == "Pd"
    return (before and after) or ((before or after) and sign_or_point)


@attrs.frozen
class Words:
    """What `words` makes: a value, so that a recording can say it."""

    n: int = attrs.field()
    always: tuple[str, ...] = attrs.field()

    @n.validator
    def _check_n(self, _: object, value: object) -> None:
        check_count("words: n", value)

    @always.validator
    def _check_always(self, _: object, value: tuple[object, ...]) -> None:
        for word in value:
            if not isinstance(word, str):
                raise TypeError(f"words: always holds strings, not {word!r}")
            if not _essence(word):
                raise ValueError(f"words: always holds words, not {word!r}")

    def __call__(self, text: str) -> bool:
        if len(text.split()) >= self.n:
            return True
        said = f" {_essence(text)} "
        return any(f" {_essence(word)} " in said for word in self.always)


def words(n: int, always: tuple[str, ...] = ("stop", "no", "wait")) -> Callable[[str], bool]:
    """Makes an `interrupts` function: text of `n` words or more stops a reply, and so does each of `always`."""
    if isinstance(always, str) or not isinstance(always, Iterable):
        raise TypeError(f"words: always is a tuple of strings, not {always!r}")
    return Words(n, tuple(always))


def check_count(name: str, value: object) -> None:
    if type(value) is not int:
        raise TypeError(f"{name} is a whole number, not {value!r}")
    if value < 0:
        raise ValueError(f"{name} is 0 or more, not {value}")


def is_async(function: Any) -> bool:
    """Whether to call it gives what has to be awaited."""
    while isinstance(function, partial | staticmethod):
        function = function.func if isinstance(function, partial) else function.__func__
    called = (function, getattr(function, "__call__", None))  # noqa: B004 (an object's own)
    return any(inspect.iscoroutinefunction(one) or inspect.isasyncgenfunction(one) for one in called)


Member = TypeVar("Member", bound=StrEnum)


def _member(kind: type[Member], name: str, value: Any) -> Member:
    try:
        return kind(value)
    except ValueError:
        raise ValueError(f"Policy.{name} is one of {', '.join(kind)}, not {value!r}") from None


def _on_resume(value: Any) -> OnResume:
    return _member(OnResume, "on_resume", value)


def _on_stall(value: Any) -> OnStall:
    return _member(OnStall, "on_stall", value)


def _on_lost(value: Any) -> OnLost:
    return _member(OnLost, "on_lost", value)


@attrs.frozen(kw_only=True)
class Policy:
    """What an agent wants of its turns. Raises TypeError or ValueError, naming the field, when made with nonsense.

    speculate      think from eager_end on; False: only at the turn's end
    on_resume      OnResume.CANCEL, or KEEP: the thought lives until the text moves
    match          (eager, final) -> bool: is a thought on `eager` a reply to `final`? `normalized`, or `exact`
    max_thoughts   speculative ones a turn; None: no limit
    min_words      that a text needs for a speculative thought
    interrupts     (text) -> bool: does this text stop an audible reply? None: any turn does. `words` makes one
    stall_timeout  seconds without progress of the text, after which a turn stalls; None: never (F12, F13)
    on_stall       OnStall.REPORT, or END: close the turn
    on_lost        OnLost.ABANDON, or RESPOND: answer what was heard before the connection went away
    """

    speculate: bool = attrs.field(default=True)
    on_resume: OnResume = attrs.field(default=OnResume.CANCEL, converter=_on_resume)
    match: Callable[[str, str], bool] = attrs.field(default=normalized)
    max_thoughts: int | None = attrs.field(default=3)
    min_words: int = attrs.field(default=0)
    interrupts: Callable[[str], bool] | None = attrs.field(default=None)
    stall_timeout: float | None = attrs.field(default=None)
    on_stall: OnStall = attrs.field(default=OnStall.REPORT, converter=_on_stall)
    on_lost: OnLost = attrs.field(default=OnLost.ABANDON, converter=_on_lost)

    @speculate.validator
    def _check_speculate(self, _: object, value: object) -> None:
        if not isinstance(value, bool):
            raise TypeError(f"Policy.speculate is True or False, not {value!r}")

    @match.validator
    def _check_match(self, _: object, value: object) -> None:
        if not callable(value) or is_async(value):  # a coroutine would count as True
            raise TypeError(f"Policy.match is a function of two texts, and not async, not {value!r}")

    @max_thoughts.validator
    def _check_max_thoughts(self, _: object, value: object) -> None:
        if value is not None:
            check_count("Policy.max_thoughts", value)

    @min_words.validator
    def _check_min_words(self, _: object, value: object) -> None:
        check_count("Policy.min_words", value)

    @interrupts.validator
    def _check_interrupts(self, _: object, value: object) -> None:
        if value is not None and (not callable(value) or is_async(value)):
            raise TypeError(f"Policy.interrupts is a function of a text, and not async, or None, not {value!r}")

    @stall_timeout.validator
    def _check_stall_timeout(self, _: object, value: object) -> None:
        if value is None:
            return
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"Policy.stall_timeout is seconds, or None, not {value!r}")
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"Policy.stall_timeout is more than 0 seconds and finite, or None, not {value}")

    def check(self, settings: "TurnSettings") -> None:
        """Raises ValueError where `stall_timeout` is not above the server's own `end_timeout_ms`: such a watchdog
        would cut every slow ending short just before it comes (F12). For whoever connects to call."""
        end_timeout_ms = settings.end_timeout_ms or DEFAULT_END_TIMEOUT_MS
        if self.stall_timeout is not None and self.stall_timeout <= end_timeout_ms / 1000:
            raise ValueError(
                f"Policy.stall_timeout is {self.stall_timeout} s, which is not above the server's end_timeout_ms,"
                f" {end_timeout_ms}: slow endings would be cut short"
            )
