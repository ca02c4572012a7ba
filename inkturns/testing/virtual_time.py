"""Virtual time: an event loop whose clock jumps to the next thing that is due.

Rules of this file: nothing sleeps. A program that waits for what will never come ends in a RuntimeError on asyncio,
where nothing else could end it; on trio, whose clock then stands still, the caller gives a deadline.
"""

import asyncio
import math
import selectors
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Any, TypeVar, TypeVarTuple

import anyio

__all__ = ["BACKENDS", "VirtualLoop", "run"]

BACKENDS = ("asyncio", "trio")
Value = TypeVar("Value")
Args = TypeVarTuple("Args")


class VirtualLoop(asyncio.SelectorEventLoop):
    """asyncio's loop, with a clock that begins at 0 and jumps.

    `patience`: how many real seconds it looks at its sockets before the clock jumps. Above 0 for programs that talk to
    themselves over the loopback device, which is quick, but not always done when `send` returns."""

    patience = 0.0

    def __init__(self) -> None:
        self._virtual = 0.0
        super().__init__(_Jumping(self))
        self._clock_resolution = 1e-9  # asyncio runs what is due before now, and this

    def time(self) -> float:
        return self._virtual

    def call_at(
        self, when: float, callback: Callable[[*Args], object], *args: *Args, context: Context | None = None
    ) -> asyncio.TimerHandle:
        if when == math.inf:  # "forever" is never due; asyncio would look again each day
            return asyncio.TimerHandle(when, callback, args, self, context)
        return super().call_at(when, callback, *args, context=context)

    def jump(self, seconds: float) -> None:
        self._virtual += seconds


class _Jumping(selectors.DefaultSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout != 0 and self._loop.patience:  # at 0 it is not waiting: callbacks are ready
            ready = super().select(self._loop.patience)
        if not ready:
            if timeout is None:
                raise RuntimeError("virtual time: everything waits, and nothing is due")
            self._loop.jump(max(0.0, timeout))
        return ready


def run(function: Callable[..., Awaitable[Value]], *args: Any, backend: str = "asyncio") -> Value:
    """Runs an async function in virtual time, which begins at 0 on asyncio, on either of BACKENDS."""
    if backend == "trio":
        import trio.testing

        # Not by `anyio.run`: 4.11 passes trio no clock.
        return trio.run(function, *args, clock=trio.testing.MockClock(autojump_threshold=0))
    return anyio.run(function, *args, backend=backend, backend_options={"loop_factory": VirtualLoop})
