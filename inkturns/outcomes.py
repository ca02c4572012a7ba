"""Outcomes: what is told of a thought and of a reply that are over.

Rules of this file: values alone. Times are the loop's, in seconds; None where the moment never came.
"""

from enum import StrEnum, auto
from typing import Any

from msgspec import Struct

from inkturns.actions import CancelReason, Turn

__all__ = ["Outcome", "Replied", "ReplyOutcome", "Settled", "Usage"]


class Outcome(StrEnum):
    """How a thought ended."""

    ADOPTED = auto()  # it was its turn's reply
    CANCELLED = auto()
    FAILED = auto()  # it raised


class ReplyOutcome(StrEnum):
    """How a reply ended."""

    HEARD = auto()  # `respond` returned
    INTERRUPTED = auto()  # cancelled once it was audible
    NOT_BEGUN = auto()  # cancelled before
    FAILED = auto()  # `respond` raised, or its thought did; `on_failure` has the error


class Usage(Struct, frozen=True, kw_only=True):
    """What the model calls of a thought used, as `thought.usage` was told; the sums of all that it was told."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cost: float = 0.0


class Settled(Struct, frozen=True, kw_only=True):
    """A thought that is over: what it gained and what it cost. `on_settled` gets one for every thought.

    turn          as the thought was given it; of an adopted one as it ended
    thought       its number in the turn
    speculative   whether it began before the end of the turn
    outcome       ADOPTED, CANCELLED or FAILED
    reason        why it was cancelled
    error         what it raised
    began         when `think` was called; None where it never was
    first_item    when its first item was made
    finished      when all of it was made
    cancelled_at  when it was cut: cancelled, or its reply interrupted or over
    items         how many items it made
    committed_at  when its turn ended with it
    notes         what `thought.note` was given
    usage         what `thought.usage` was given; None where nothing was"""

    turn: Turn
    thought: int
    speculative: bool
    outcome: Outcome
    reason: CancelReason | None
    error: Exception | None
    began: float | None
    first_item: float | None
    finished: float | None
    cancelled_at: float | None
    items: int
    committed_at: float | None
    notes: dict[str, Any]
    usage: Usage | None


class Replied(Struct, frozen=True, kw_only=True):
    """A reply that is over. `on_replied` gets one for every reply, and for all that `say` was given.

    turn          the turn that it answers; Turn 0 for what `say` was given
    thought       the number of its thought in the turn; 0 for `say`
    outcome       HEARD, INTERRUPTED, NOT_BEGUN or FAILED
    committed_at  when its turn ended; when `say` was called
    first_item    when `respond` took its first item
    sounded_at    when it became audible
    over_at       when it was interrupted, or `respond` had ended
    text          its words, as far as they were heard
    saved         seconds of the head start that the first item needed: what thinking ahead gained
    head_start    seconds from the beginning of the thought to the end of the turn"""

    turn: Turn
    thought: int
    outcome: ReplyOutcome
    committed_at: float
    first_item: float | None
    sounded_at: float | None
    over_at: float
    text: str
    saved: float | None
    head_start: float | None
