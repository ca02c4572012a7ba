"""When to try again: exponential backoff with full jitter for one call, and one limiter for all calls of a process.

Rules of this file: no socket and no sleep. Chance and the clock are arguments.
"""

import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import attrs

__all__ = ["LIMITER", "Backoff", "Limiter", "retry_after"]

FIRST, LONGEST = 0.1, 5.0  # seconds: the longest pause before the second attempt, and before any
LIVED = 10.0  # seconds; after a connection of this length the attempts and the outage are counted anew (F61)
PER_SECOND = 100.0  # reconnections of a process: a thousand calls are back within ten seconds


@attrs.define(eq=False)
class Backoff:
    """The pauses of one call. Pause n is drawn evenly from 0 to min(5, 0.1 * 2**n) seconds: clients that lost their
    connections at the same time come back at different times."""

    give_up: float | None  # the call ends after so many seconds without a connection in all; None: never
    uniform: Callable[[float, float], float] = random.uniform
    pauses: int = 0
    outage: float = 0.0  # seconds without a connection since the last one that lived

    def pause(self) -> float:
        """How many seconds to wait before the next attempt."""
        longest = min(LONGEST, FIRST * 2 ** min(self.pauses, 10))
        self.pauses += 1
        return self.uniform(0.0, longest)

    def over(self, seconds: float, *, accepted: bool) -> None:
        """A connection of this length is over. After one that lived for 10 s, attempts and outage are counted anew. One
        on which the server has accepted nothing was outage too."""
        if not accepted:
            self.outage += seconds
        elif seconds >= LIVED:
            self.pauses, self.outage = 0, 0.0

    @property
    def left(self) -> float | None:
        """How many seconds of outage are left; None: no limit."""
        return None if self.give_up is None else max(0.0, self.give_up - self.outage)


class Limiter:
    """At most `per_second` reconnections a second, however many clients share it. Safe from threads."""

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._gap, self._clock = 1 / per_second, clock
        self._next = float("-inf")
        self._lock = threading.Lock()

    def wait(self) -> float:
        """Takes the next free place in line; returns how many seconds away it is."""
        with self._lock:
            now = self._clock()
            at = max(now, self._next)
            self._next = at + self._gap
            return at - now


LIMITER = Limiter(PER_SECOND)


def retry_after(value: str, now: datetime | None = None) -> float:
    """The seconds that a Retry-After header asks for, a number or a date; 0.0 where it cannot be read."""
    if value.strip().isdecimal():
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):  # a year of eleven digits
        return 0.0
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - (now or datetime.now(UTC))).total_seconds())
