"""Pipecat: one timer of a `TurnGuard`, which is set anew after every input.

Rules of this file: it knows no turns and no frames. To set it to the time that it has costs nothing.
"""

import asyncio
from collections.abc import Callable

__all__ = ["Timer"]


class Timer:
    """Calls a function once, at a time of a clock.

    clock  gives seconds; it need not be the loop's
    call   is given the time to which the timer was set. A loop may call a little early: count the later of the two"""

    def __init__(self, clock: Callable[[], float], call: Callable[[float], object]) -> None:
        self.due: float | None = None
        self._clock = clock
        self._call = call
        self._handle: asyncio.TimerHandle | None = None

    def set(self, due: float | None) -> None:
        """Sets it to this time; None: it calls no more."""
        if due == self.due:
            return
        if self._handle is not None:
            self._handle.cancel()
        self.due, self._handle = due, None
        if due is not None:
            wait = max(0.0, due - self._clock())
            self._handle = asyncio.get_running_loop().call_later(wait, self._fire, due)

    def _fire(self, due: float) -> None:
        self.due = self._handle = None
        self._call(due)
