"""Roles: what an agent is given (options, roles, hooks), and whom it tells what came of its thoughts and replies.

Rules of this file: everything is checked when it is given; it starts nothing and waits for nothing; a hook that
raises stops no other hook; the log and the recorder never get an error's message, which may hold the caller's
words.
"""

import logging
import math
from collections.abc import Callable
from enum import StrEnum, auto
from typing import Any, TypeVar

import attrs
import msgspec

from inkturns.actions import CancelReason, Report, ReportKind, Turn
from inkturns.history import History
from inkturns.outcomes import Outcome, Replied, ReplyOutcome, Settled
from inkturns.policy import check_count
from inkturns.signatures import Result, check_hook, check_role
from inkturns.tasks import Job
from inkturns.thought import Reply, Thought
from inkturns.turns import Turns

__all__ = ["Audible", "Roles"]

Function = TypeVar("Function", bound=Callable[..., object])
log = logging.getLogger("inkturns")


class Audible(StrEnum):
    """From when on a reply is audible."""

    FIRST_ITEM = auto()  # when `respond` takes its first item
    TOLD = auto()  # when `respond` calls `thought.sounding()` (F36, F50)


@attrs.define(eq=False, on_setattr=attrs.setters.NO_OP)  # checked when made; an assignment is to cost nothing
class Roles(Turns):
    """The part of `Agent` that its users fill in."""

    clock: Callable[[], float] | None = attrs.field(init=False, default=None)
    buffer_size: int = attrs.field(default=256, kw_only=True)
    grace: float = attrs.field(default=0.5, kw_only=True)
    committed_block_timeout: float = attrs.field(default=30.0, kw_only=True)
    drain_timeout: float = attrs.field(default=30.0, kw_only=True)
    audible: Audible = attrs.field(default=Audible.FIRST_ITEM, kw_only=True)
    text: Callable[[Any], str] | None = attrs.field(default=None, kw_only=True)
    history: History = attrs.field(init=False, factory=History)
    _roles: dict[str, Callable[..., Any]] = attrs.field(init=False, factory=dict)
    _on_settled: list[Callable[[Settled], object]] = attrs.field(init=False, factory=list)
    _on_replied: list[Callable[[Replied], object]] = attrs.field(init=False, factory=list)
    _on_failure: list[Callable[[Turn | None, Exception], object]] = attrs.field(init=False, factory=list)
    _failures: list[BaseException] = attrs.field(init=False, factory=list)  # that `run` raises
    _cancelled: type[BaseException] = attrs.field(init=False, default=GeneratorExit)  # the loop's own
    _unsettled: dict[Thought[Any], None] = attrs.field(init=False, factory=dict)
    _said_once: frozenset[str] = attrs.field(init=False, default=frozenset())

    @buffer_size.validator
    def _check_buffer_size(self, _: object, value: int) -> None:
        check_count("Agent: buffer_size", value)
        if value == 0:
            raise ValueError("Agent: buffer_size must be 1 or more, got 0")

    @grace.validator
    @committed_block_timeout.validator
    @drain_timeout.validator
    def _check_seconds(self, field: "attrs.Attribute[float]", value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"Agent: {field.name} must be a number of seconds, got {value!r}")
        if not (value >= 0 and math.isfinite(value)):
            raise ValueError(f"Agent: {field.name} must be 0 or more seconds and finite, got {value}")

    @audible.validator
    def _check_audible(self, _: object, value: object) -> None:
        if not isinstance(value, Audible):
            raise TypeError(f"Agent: audible must be Audible.FIRST_ITEM or Audible.TOLD, got {value!r}")

    @text.validator
    def _check_text(self, _: object, value: object) -> None:
        if value is not None:
            check_hook("Agent: text(item)", value)

    # -- the roles, each at most once

    def listen(self, role: Callable[[Turn], Result]) -> Callable[[Turn], Result]:
        """listen(turn): the user speaks; be quiet. Once a turn, and not for a backchannel. It is cut when the reply to
        its turn starts."""
        return self._takes("listen(turn)", role)

    def think(self, role: Callable[[Turn], Result]) -> Callable[[Turn], Result]:
        """think(turn): a reply to `turn.transcript`, unheard until the turn is over; cancelled when the user goes on.
        Gives a value, an awaitable of one, or a stream of items."""
        return self._takes("think(turn)", role, may_stream=True)

    def respond(self, role: Callable[[Turn, Thought[Any]], Result]) -> Callable[[Turn, Thought[Any]], Result]:
        """respond(turn, thought): the turn is over; say the thought, and return when it has been heard. It is also
        called for what `say` is given; the turn's number is 0 and its text is "" then."""
        return self._takes("respond(turn, thought)", role)

    def _takes(self, usage: str, role: Function, *, may_stream: bool = False) -> Function:
        check_role(usage, role, may_stream=may_stream)
        name = usage.partition("(")[0]
        if name in self._roles:
            raise ValueError(f"there is a {name} already; an agent has one")
        self._roles[name] = role
        return role

    # -- its own hooks

    def on_settled(self, hook: Callable[[Settled], Result]) -> Callable[[Settled], Result]:
        """on_settled(settled): a thought is over; what it gained and what it cost."""
        return self._own_hook("on_settled(settled)", self._on_settled, hook)

    def on_replied(self, hook: Callable[[Replied], Result]) -> Callable[[Replied], Result]:
        """on_replied(replied): a reply is over, or what `say` was given; how much of it was heard, and when."""
        return self._own_hook("on_replied(replied)", self._on_replied, hook)

    def on_failure(
        self, hook: Callable[[Turn | None, Exception], Result]
    ) -> Callable[[Turn | None, Exception], Result]:
        """on_failure(turn, error): a committed thought, `respond`, `listen` or a hook raised. The turn is Turn 0 for
        what `say` was given, and None where no turn is open. Without this hook `run` raises the error."""
        return self._own_hook("on_failure(turn, error)", self._on_failure, hook)

    def _own_hook(self, usage: str, hooks: list[Any], hook: Function) -> Function:
        check_hook(usage, hook)
        hooks.append(hook)
        return hook

    # -- what is told

    def close(self) -> None:
        """Ends the call: `Agent` does."""

    def _now(self) -> float:
        assert self.clock is not None
        return self.clock()

    def _calls(self, turn: Turn | None, hook: Callable[..., object], *given: object) -> None:
        try:
            hook(*given)
        except Exception as error:
            self._fail(turn, error)
        except self._cancelled as error:
            self._fail(turn, stray(error, "a hook"))

    def _fail(self, turn: Turn | None, error: Exception) -> None:
        """Tells `on_failure`. Where there is none, or it raises, the call is over."""
        try:
            for hook in self._on_failure:
                hook(turn, error)
        except Exception as another:
            self._failures.append(another)
        except self._cancelled as another:
            self._failures.append(stray(another, "on_failure"))
        else:
            if self._on_failure:
                return
            self._failures.append(error)
        self.close()

    def _settle(self, thought: Thought[Any]) -> None:
        """Tells what became of a thought, once: when it is decided and its task is gone."""
        is_adopted = thought.committed_at is not None
        if thought not in self._unsettled or not thought.over or not (is_adopted or thought.reason is not None):
            return
        del self._unsettled[thought]
        if self.recorder is None and not self._on_settled:
            return
        failed = thought.error is not None if is_adopted else thought.reason is CancelReason.FAILED
        settled = Settled(
            turn=thought.turn,
            thought=thought.number,
            speculative=thought.speculative,
            outcome=Outcome.FAILED if failed else Outcome.ADOPTED if is_adopted else Outcome.CANCELLED,
            reason=thought.reason,
            error=thought.error,
            began=thought.began,
            first_item=thought.first_item,
            finished=thought.finished,
            cancelled_at=thought.cut_at,
            items=thought.made,
            committed_at=thought.committed_at,
            notes=thought.notes,
            usage=thought.used,
        )
        if self.recorder is not None:
            values = msgspec.structs.asdict(settled) | {"error": _kind(thought.error)}
            self._write("settled", thought.turn, settled=values, head_start=thought.head_start, saved=thought.saved)
        for hook in self._on_settled:
            self._calls(settled.turn, hook, settled)

    def _replied(self, reply: Reply, error: Exception | None = None) -> None:
        """Tells what became of a reply that is gone."""
        thought, outcome = reply.thought, reply.outcome
        assert outcome is not None
        assert thought.committed_at is not None
        assert reply.over_at is not None
        if outcome is ReplyOutcome.HEARD and reply.sounded_at is None and self.audible is Audible.TOLD:
            self._warn_once("`respond` returned and called neither thought.sounding() nor thought.heard()")
        if self.recorder is None and not self._on_replied:
            return
        replied = Replied(
            turn=reply.turn,
            thought=thought.number,
            outcome=outcome,
            committed_at=thought.committed_at,
            first_item=reply.first_item,
            sounded_at=reply.sounded_at,
            over_at=reply.over_at,
            text=thought.spoken.text,
            saved=thought.saved,
            head_start=thought.head_start,
        )
        failed = {} if error is None else {"error": _kind(error)}
        self._write("replied", reply.turn, replied=replied, **failed)
        for hook in self._on_replied:
            self._calls(reply.turn, hook, replied)

    def _failed(self, thought: Thought[Any], error: Exception) -> None:
        """Tells of a guess that failed: nobody hears of it otherwise (F59)."""
        log.warning("%s failed: %s", thought.name, _kind(error))

    def _is_stuck(self, job: Job) -> None:
        report = Report(ReportKind.STUCK_TASK, None, f"{job.name} goes on though it was cancelled; it is not heard")
        self._write("report", None, report=report)
        for hook in self._hooks[Report]:
            self._calls(None, hook, report)

    def _text_of(self, item: object) -> str:
        """The words of an item."""
        if self.text is not None:
            words: object = self.text(item)
            if not isinstance(words, str):
                raise TypeError(f"Agent: text(item) must return a str, got {type(words).__name__}")
            return words
        if isinstance(item, str):
            return item
        self._warn_once(f"items of type {type(item).__name__} leave no words in the history; Agent(text=…) reads them")
        return ""

    def _warn_once(self, sentence: str) -> None:
        if sentence not in self._said_once:
            self._said_once |= {sentence}
            log.warning("%s", sentence)

    def _notes_when(self, thought: Thought[Any], what: str) -> None:
        items = {"items": thought.made} if what == "finished" else {}
        self._write(what, thought.turn, thought=thought.number, **items)

    def _write(self, what: str, turn: Turn | None, **facts: object) -> None:
        if self.recorder is not None:
            self.recorder.note({"t": self._now(), "agent": what, "turn": turn.number if turn else 0, **facts})


def _kind(error: Exception | None) -> str | None:
    return None if error is None else type(error).__name__


def stray(error: BaseException, who: str) -> RuntimeError:
    """Makes a failure of a cancellation that nobody asked for (F55)."""
    failure = RuntimeError(f"{who} was cancelled, and not by its agent")
    failure.__cause__ = error
    return failure
