"""Storm: hostile calls against anyone's agent, in virtual time. `agent_oracle` judges what was spoken.

Rules of this file: a seed is a run, to the byte: nothing is left to chance, neither the world's draws nor the loop's
scheduler.

    def make_call(world):                  # a new agent for one call: its roles and hooks are the world's
        agent = Agent(world.policy, **world.options)
        world.joins(agent)
        return agent

    storm(make_call, seed=1)

An agent of another kind: give an object with the methods of `StormAgent`, and have it call `listen`, `think` and
`respond` of the world, and its `on_…` hooks, as inkturns' Agent would.
"""

import gc
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

from inkturns.testing.agent_oracle import AgentOracle
from inkturns.testing.draws import Boom
from inkturns.testing.virtual_time import run
from inkturns.testing.world import StormAgent, World

__all__ = ["Boom", "StormAgent", "World", "storm"]


@contextmanager
def repeatable(seed: object, backend: str) -> Iterator[None]:
    """Nothing is left to chance: trio's scheduler is random, and anyio on asyncio cancels in the order of a set, which
    is that of addresses. Neither has a public way to say so; this is Hypothesis' own for trio."""
    if backend == "trio":
        from trio._core import _run

        _run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
        _run._r.seed(f"{seed}")
        yield
        return
    from anyio._backends import _asyncio

    numbers = count()
    scope = _asyncio.CancelScope

    class Numbered(scope):  # type: ignore[valid-type,misc]
        def __init__(self, *given: Any, **named: Any) -> None:
            self.number = next(numbers)
            super().__init__(*given, **named)

        def __hash__(self) -> int:
            return self.number

    _asyncio.CancelScope = Numbered  # type: ignore[misc]
    try:
        yield
    finally:
        _asyncio.CancelScope = scope  # type: ignore[misc]


def storm(make_call: Callable[[World], StormAgent], seed: object, *, backend: str = "asyncio") -> list[str]:
    """Run an agent through the call that `seed` draws, in virtual time, on asyncio or trio. Returns the log, one line
    for each thing that was seen; the same seed gives the same log. Raises AssertionError where the agent broke one of
    the laws of `agent_oracle`; its message begins with "law N:"."""
    unraisable: list[str] = []
    hook, frozen = sys.unraisablehook, gc.get_freeze_count()
    gc.freeze()  # so that the collection looks at this call alone, which is most of what a storm costs
    sys.unraisablehook = lambda unraisable_: unraisable.append(f"{unraisable_.exc_value!r}")
    try:
        with repeatable(seed, backend), warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            seen, lost = _call(make_call, seed, backend)
            gc.collect()
    finally:
        sys.unraisablehook = hook
        if not frozen:
            gc.unfreeze()
    for left in [*(f"{warning.message}" for warning in warned), *unraisable]:
        seen.breaks(8, f"left behind: {left}")
    seen.log.insert(0, f"storm(make_call, {seed!r}, backend={backend!r})")
    seen.judge(lost=lost)
    return seen.log


def _call(make_call: Callable[[World], StormAgent], seed: object, backend: str) -> tuple[AgentOracle, bool]:
    """What was seen of it, and whether it was cancelled from outside. The world itself is garbage after it."""
    world = World(seed, backend)
    run(world.happens, make_call, backend=backend)
    over = world.seen.returned or 0.0
    world.seen.now = lambda: over
    for error in [*world.seen.failures, *(error for error, _, _ in world.seen.raised)]:
        error.__traceback__ = error.__context__ = None  # its frames hold the world
    return world.seen, world.ending in ("cancel", "cancel twice")
