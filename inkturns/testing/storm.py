"""Storm: hostile sessions against anyone's agent, in virtual time; what was spoken is judged by `outside`.

Rules of this file: a seed is a run, to the byte: all that is drawn comes from it, by what is drawn and the how-manieth
it is, never from the order in which the agent happens to ask. Times are multiples of 1/16 s, so that they collide.
The world is hostile to the end of the storm, and calm after it.

    def make_call(world):                  # a new agent for one call: its roles and hooks are the world's
        agent = Agent(world.policy, max_ahead=world.max_ahead, grace=world.grace, effect_timeout=world.effect_timeout)
        world.joins(agent)
        return agent

    storm(make_call, seed=1)

Whoever has an agent of another kind gives an object with the four methods of `Call`, and has it call `listen`, `think`
and `respond` of the world, and its `on_…` hooks, as inkturns' Agent would.
"""

import gc
import sys
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any, Protocol

import anyio
import attrs
from anyio.lowlevel import current_token

from inkturns.actions import Report, Turn
from inkturns.events import (
    Connected,
    ContextChanged,
    EndNow,
    StopReply,
    TurnEagerEnd,
    TurnEnd,
    TurnStart,
    TurnUpdate,
    UsePolicy,
)
from inkturns.testing.outside import Asked, Outside, Piece
from inkturns.testing.virtual import run
from inkturns.testing.weather import (
    CALM_MANNERS,
    GAPS,
    SHORT,
    Boom,
    Dice,
    Manners,
    a_policy,
    a_session,
    an_event,
    some_manners,
)
from inkturns.thought import Settled, Thought, committed

__all__ = ["Boom", "Call", "World", "storm"]

HOOKS = ("on_start", "on_end", "on_abandon", "on_interrupt", "on_settled", "on_failure", "on_report")
CALM = ("calm, please", "and calm again")
CALM_AFTER = 100.0  # seconds: whatever the storm has begun is over by then
PATIENCE = 10_000.0
ACTS = 10  # of the user's code, in a call, at most


class Call(Protocol):
    """One call's agent, as `storm` uses it. inkturns' Agent is one."""

    async def run(self, items: AsyncIterator[Any], /) -> None:
        """Takes frames and events until they end."""

    def feed(self, item: Any, /) -> object:
        """Takes one more, from anywhere in the loop."""

    async def say(self, what: Any, /) -> None:
        """Says what the application wants said."""

    def interrupt(self) -> None:
        """Stops what is being said."""

    def close(self) -> None:
        """Ends the call at once."""


# -- the world


class World:
    """The outside world of one call: its frames, its user's code, and what it sees."""

    def __init__(self, seed: object, backend: str) -> None:
        self.seed, self.backend = seed, backend
        dice = self.dice("call")
        self.policy = a_policy(dice)
        self.max_ahead = dice.of(1, 2, 256)
        self.grace = dice.of(0.0, 0.125, 0.5)
        self.effect_timeout = dice.of(30.0, 0.25, 1.0)
        self.roles = dice.of(("listen", "think", "respond"), ("think", "respond"))
        forgives = dice.often(90)
        self.hooks = tuple(hook for hook in HOOKS if forgives or hook != "on_failure")
        self.ending = dice.of("calm") if dice.often(75) else dice.of("close", "cancel", "raise")
        self.session = a_session(dice)
        self.times: list[float] = []
        at = 0.0
        for _ in self.session:
            at += dice.of(*GAPS)
            self.times.append(at)
        self.ways = [dice.of("items", "items", "items", "task", "callback") for _ in self.session]
        self.ends_at = dice.of(*self.times) + dice.of(*SHORT) if self.ending != "calm" else at + CALM_AFTER
        self.committed: Callable[[], Any] = committed  # what a think of this world waits with; yours, if you have one
        self.is_calm = False
        self.counts: dict[str, int] = {}
        self.acts = 0
        self.wanted: list[Any] = []  # to be said
        self.speaking = 0  # says that have not returned
        self.seen: Outside = Outside(self.policy, self.grace, self.effect_timeout, lambda: 0.0, forgives)

    def dice(self, what: str) -> Dice:
        return Dice(f"{self.seed}: {what}")

    def joins(self, agent: Any) -> None:
        """Makes all roles and hooks of the world an Agent's."""
        for name in (*self.roles, *self.hooks):
            getattr(agent, name)(getattr(self, name))

    async def happens(self, make_call: "Callable[[World], Call]") -> None:
        """The whole call. What was wrong with it is `seen`."""
        clock, begin = current_token().backend_class.current_time, anyio.current_time()
        self.seen.now = lambda: clock() - begin
        self.call = make_call(self)
        error: BaseException | None = None
        self.bell = anyio.Event()
        if self.backend == "asyncio":
            import asyncio

            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, told: self.seen.breaks(8, f"left behind: {told.get('message')}"))
        async with anyio.create_task_group() as self.tasks:
            self.tasks.start_soon(self._feeds)
            self.tasks.start_soon(self._says)
            with anyio.CancelScope() as self.outer, anyio.move_on_after(PATIENCE) as patience:
                try:
                    await self.call.run(self._items())
                except Exception as raised:
                    error = raised
            self.seen.returns()
            if patience.cancelled_caught:
                self.seen.breaks(7, "run has not returned")
            for one in self._flat(error):
                if not isinstance(one, Boom) or "on_failure" not in self.hooks or one is self.frames_error:
                    self.seen.on_failure(None, one)
                else:
                    self.seen.breaks(6, f"run raises {one!r}, though there is an on_failure")
            await anyio.sleep(CALM_AFTER)
            if self.speaking:
                self.seen.breaks(8, "say has not returned, though run has")
            self.tasks.cancel_scope.cancel()
        if self.backend == "asyncio":
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                self.seen.breaks(8, f"left behind: {task.get_name()}")

    frames_error: Boom | None = None

    def _flat(self, error: BaseException | None) -> Iterator[BaseException]:
        if isinstance(error, BaseExceptionGroup):
            for one in error.exceptions:
                yield from self._flat(one)
        elif error is not None:
            yield error

    # -- its frames

    async def _items(self) -> AsyncIterator[Any]:
        try:
            for item, at, way in zip(self.session, self.times, self.ways, strict=True):
                if way == "items":
                    if at > self.ends_at and self.ending == "raise":
                        break
                    await self._until(at)
                    self._uses(item)
                    yield item
            await self._until(self.ends_at)
            if self.ending == "raise":
                self.frames_error = Boom("the frames")
                self.seen.raises(self.frames_error, must_be_seen=True, closes=False)
                raise self.frames_error
            if self.ending == "calm":
                self.is_calm = True
                self.seen.calm = CALM
                yield StopReply()
                yield Connected(request_id="calm")
                for text in CALM:
                    spoken = [kind(transcript=text, request_id="calm") for kind in (TurnUpdate, TurnEagerEnd, TurnEnd)]
                    for event in (TurnStart(request_id="calm"), *spoken):
                        yield event
                        await anyio.sleep(0.0625)
                    await anyio.sleep(20)
            else:
                await anyio.sleep(CALM_AFTER)
        finally:
            self.seen.items_over = self.seen.now()

    async def _feeds(self) -> None:
        """Frames that come another way, and the end of the call from outside."""
        steps: list[tuple[float, str, Any]] = [
            (at, way, item) for item, at, way in zip(self.session, self.times, self.ways, strict=True) if way != "items"
        ]
        if self.ending in ("close", "cancel"):
            steps.append((self.ends_at, self.ending, None))
        for at, way, item in sorted(steps, key=lambda step: step[0]):
            await self._until(at)
            if way == "close":
                self.closes()
            elif way == "cancel":
                self.seen.closes("cancelled from outside", at_once=False)
                self.outer.cancel()
            elif way == "task":
                self.feeds(item)
            elif self.backend == "trio":
                import trio

                trio.lowlevel.current_trio_token().run_sync_soon(self.feeds, item)
            else:
                import asyncio

                asyncio.get_running_loop().call_soon(self.feeds, item)

    async def _until(self, at: float) -> None:
        if at > self.seen.now():
            await anyio.sleep(at - self.seen.now())

    def feeds(self, item: Any) -> None:
        if self.seen.returned is not None:
            return
        nested, self.seen.feeding = self.seen.feeding, True
        self._uses(item)
        try:
            self.call.feed(item)
        except Exception as error:
            self.seen.breaks(5, f"feed raises {error!r}")
        finally:
            self.seen.feeding = nested

    def closes(self) -> None:
        if self.seen.returned is None:
            self.seen.closes("close()")
            self.call.close()

    def _uses(self, item: Any) -> None:
        if isinstance(item, UsePolicy):
            self.policy = item.policy
        self.seen.is_fed(item)

    async def _says(self) -> None:
        """From a task that has nothing to do with whoever wants it said."""
        while True:
            while self.wanted:
                self.tasks.start_soon(self._say, self.wanted.pop(0))
            await self.bell.wait()
            self.bell = anyio.Event()

    async def _say(self, what: Any) -> None:
        if self.seen.returned is not None:
            return
        self.speaking += 1
        try:
            await self.call.say(what)
        except RuntimeError:
            if self.seen.closing is None and self.seen.items_over is None:
                raise
        finally:
            self.speaking -= 1

    # -- its user's code

    def _asked(self, role: str, turn: Turn | None) -> tuple[Asked, Manners]:
        number = self.counts[role] = self.counts.get(role, 0) + 1
        calm = self.is_calm
        forms = {"think": "stream", "respond": "each", "listen": "async"}
        manners = some_manners(self.dice(f"{role} {number}"), role)
        return Asked(role, turn, number), attrs.evolve(CALM_MANNERS, form=forms[role]) if calm else manners

    @contextmanager
    def _in(self, asked: Asked) -> Iterator[None]:
        self.seen.called(asked)
        try:
            yield
        except (anyio.get_cancelled_exc_class(), GeneratorExit):
            self.seen.is_over(asked, "cancelled")
            raise
        except Exception as error:
            self.seen.is_over(asked, "failed", error)
            raise
        else:
            self.seen.is_over(asked, "done")

    async def _sleep(self, manners: Manners, seconds: float) -> None:
        if manners.native and self.backend == "asyncio":
            import asyncio

            await asyncio.sleep(seconds)
        else:
            await anyio.sleep(seconds)

    async def _passes(self, asked: Asked, manners: Manners, swallowed: list[int], seconds: float) -> None:
        """Time, in a piece of user code that does not like to be cancelled."""
        try:
            await self._sleep(manners, seconds)
        except anyio.get_cancelled_exc_class():
            self._bears(asked, manners, swallowed)

    def _bears(self, asked: Asked, manners: Manners, swallowed: list[int]) -> None:
        """In an except clause: swallows the cancellation, or raises."""
        self.seen.was_cancelled(asked)
        if len(swallowed) < manners.swallows:
            swallowed.append(1)
        elif manners.cancelled_raises:
            raise Boom(f"{asked}, cancelled") from None
        else:
            raise

    async def _begins(self, asked: Asked, manners: Manners, swallowed: list[int]) -> None:
        if manners.shields:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(manners.shields)
        await self._passes(asked, manners, swallowed, manners.first)

    async def _cleans_up(self, manners: Manners) -> None:
        if manners.cleans_up:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(manners.cleans_up)

    def listen(self, turn: Turn) -> Any:
        asked, manners = self._asked("listen", turn)
        if manners.form == "sync":
            with self._in(asked):
                if manners.fails_at == 0:
                    raise Boom(f"{asked}")
            return None
        return self._listens(asked, manners)

    async def _listens(self, asked: Asked, manners: Manners) -> None:
        swallowed: list[int] = []
        with self._in(asked):
            try:
                await self._begins(asked, manners, swallowed)
                self._acts(f"{asked}")
                if manners.fails_at == 0:
                    raise Boom(f"{asked}")
            finally:
                await self._cleans_up(manners)

    def think(self, turn: Turn) -> Any:
        asked, manners = self._asked("think", turn)
        match manners.form:
            case "stream":
                return self._thinks(asked, manners)
            case "iterator":
                return Iterating(self, asked, manners)
            case "awaited stream":
                return self._awaited(manners, self._thinks(asked, manners))
            case "awaited":
                return self._value(asked, manners)
            case "value":
                with self._in(asked):
                    self.seen.made(asked)
                    return Piece(asked, 0)
            case _:
                with self._in(asked):
                    raise Boom(f"{asked}")

    async def _awaited(self, manners: Manners, stream: Any) -> Any:
        await anyio.sleep(manners.gap)
        return stream

    async def _value(self, asked: Asked, manners: Manners) -> Piece:
        swallowed: list[int] = []
        with self._in(asked):
            try:
                await self._begins(asked, manners, swallowed)
                await self._waits(asked, manners, swallowed)
                if manners.fails_at is not None:
                    raise Boom(f"{asked}")
                self.seen.made(asked)
                return Piece(asked, 0)
            finally:
                await self._cleans_up(manners)

    async def _thinks(self, asked: Asked, manners: Manners) -> AsyncIterator[Piece]:
        swallowed: list[int] = []
        with self._in(asked):
            try:
                await self._begins(asked, manners, swallowed)
                self._acts(f"{asked}")
                for index in range(manners.pieces):
                    if index == manners.fails_at:
                        raise Boom(f"{asked}")
                    if index == 1:
                        await self._waits(asked, manners, swallowed)
                    piece = Piece(asked, index)
                    self.seen.made(asked)
                    try:
                        if manners.raises_timeout:
                            try:
                                with anyio.fail_after(manners.gap + 0.0625):
                                    yield piece
                            except TimeoutError:
                                pass
                        else:
                            yield piece
                    except anyio.get_cancelled_exc_class():
                        self._bears(asked, manners, swallowed)
                    await self._passes(asked, manners, swallowed, manners.gap)
            finally:
                await self._cleans_up(manners)

    async def _waits(self, asked: Asked, manners: Manners, swallowed: list[int]) -> None:
        """For its commit."""
        if manners.gate == "await":
            await self.committed()
            self.seen.has_effect(asked)
        elif manners.gate == "block":
            async with self.committed():
                self.seen.begins_block(asked)
                whole = False
                try:
                    await self._sleep(manners, manners.block)
                    whole = True
                finally:
                    self.seen.ends_block(asked, whole=whole)

    async def respond(self, turn: Turn | None, thought: Thought) -> None:
        asked, manners = self._asked("respond", turn)
        swallowed: list[int] = []
        with self._in(asked):
            try:
                await self._begins(asked, attrs.evolve(manners, first=min(manners.first, 0.25)), swallowed)
                if manners.form == "whole":
                    await self._speaks_all(asked, manners, swallowed, thought)
                elif manners.form != "none":
                    await self._speaks_each(asked, manners, swallowed, thought)
                self._acts(f"{asked}")
                await self._passes(asked, manners, swallowed, manners.first)  # until it has been heard
            finally:
                await self._cleans_up(manners)

    async def _speaks_all(self, asked: Asked, manners: Manners, swallowed: list[int], thought: Thought) -> None:
        try:
            said = await thought
        except anyio.get_cancelled_exc_class():
            self._bears(asked, manners, swallowed)
            return
        for piece in said if isinstance(said, list) else [said]:
            self.seen.spoke(asked, piece)
        self.seen.exhausted(asked)

    async def _speaks_each(self, asked: Asked, manners: Manners, swallowed: list[int], thought: Thought) -> None:
        spoken = 0
        while spoken != manners.fails_at:
            try:
                if manners.form == "timeouts" and manners.patience:
                    with anyio.move_on_after(manners.patience) as patience:
                        piece = await anext(thought)
                    if patience.cancelled_caught:
                        continue
                else:
                    piece = await anext(thought)
            except StopAsyncIteration:
                self.seen.exhausted(asked)
                return
            except anyio.get_cancelled_exc_class():
                self._bears(asked, manners, swallowed)
                continue
            self.seen.spoke(asked, piece)
            spoken += 1
            await self._passes(asked, manners, swallowed, manners.gap)
        raise Boom(f"{asked}")

    # -- its hooks

    def on_start(self, turn: Turn) -> None:
        self.seen.on_start(turn)
        self._acts_in_hook("on_start")

    def on_end(self, turn: Turn) -> None:
        self.seen.on_end(turn)
        self._acts_in_hook("on_end")

    def on_abandon(self, turn: Turn) -> None:
        self.seen.on_abandon(turn)
        self._acts_in_hook("on_abandon")

    def on_interrupt(self, number: int) -> None:
        self.seen.on_interrupt(number)
        self._acts_in_hook("on_interrupt")

    def on_settled(self, settled: Settled) -> None:
        self.seen.on_settled(settled)
        self._acts_in_hook("on_settled")

    def on_failure(self, turn: Turn | None, error: Exception) -> None:
        self.seen.on_failure(turn, error)
        self._acts_in_hook("on_failure")

    def on_report(self, report: Report) -> None:
        self.seen.on_report(report)
        self._acts_in_hook("on_report")

    def _acts_in_hook(self, hook: str) -> None:
        number = self.counts[hook] = self.counts.get(hook, 0) + 1
        self._acts(f"{hook} {number}", raises=hook != "on_failure")

    def _acts(self, where: str, *, raises: bool = False) -> None:
        """Now and then the user's code feeds, ends, says, interrupts, closes or raises where it is called."""
        dice = self.dice(f"acts in {where}")
        if self.is_calm or self.acts == ACTS or not dice.often(12):
            return
        self.acts += 1
        what = dice.of("feed", "feed", "end", "context", "say", "say", "interrupt", "raise", "raise", "close")
        self.seen.notes(f"    {where} does {what}")
        match what:
            case "feed":
                self.feeds(an_event(dice, use=False))
            case "end":
                self.feeds(EndNow())
            case "context":
                self.feeds(ContextChanged())
            case "say":
                asked = Asked("say", None, self.acts)
                self.wanted.append(Piece(asked, 0) if dice.often(50) else self._speech(asked, dice.of(*SHORT)))
                self.bell.set()
            case "interrupt" if self.seen.returned is None:
                self.seen.interrupts()
                self.call.interrupt()
            case "raise" if raises:
                error = Boom(where)
                self.seen.raises(error)
                raise error
            case "close" if dice.often(20):
                self.closes()

    async def _speech(self, asked: Asked, gap: float) -> AsyncIterator[Piece]:
        for index in range(3):
            await anyio.sleep(gap)
            yield Piece(asked, index)


class Iterating:
    """A stream that is no generator: it can be closed, and not be thrown into."""

    def __init__(self, world: World, asked: Asked, manners: Manners) -> None:
        self.world, self.asked, self.manners, self.swallowed = world, asked, manners, list[int]()

    def __aiter__(self) -> "Iterating":
        self.world.seen.called(self.asked)
        return self

    async def __anext__(self) -> Piece:
        world, asked, manners = self.world, self.asked, self.manners
        try:
            await world._passes(asked, manners, self.swallowed, manners.gap)
            if asked.pieces == manners.fails_at:
                raise Boom(f"{asked}")
            if asked.pieces == manners.pieces:
                raise StopAsyncIteration
        except StopAsyncIteration:
            self.ends("done")
            raise
        except Exception as error:
            self.ends("failed", error)
            raise
        except BaseException:
            self.ends("cancelled")
            raise
        world.seen.made(asked)
        return Piece(asked, asked.pieces - 1)

    async def aclose(self) -> None:
        self.ends("cancelled")

    def ends(self, how: str, error: Exception | None = None) -> None:
        if self.asked.over is None:
            self.world.seen.is_over(self.asked, how, error)


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


def storm(make_call: Callable[[World], Call], seed: object, *, backend: str = "asyncio") -> list[str]:
    """Runs an agent through the call that `seed` draws, in virtual time, on asyncio or trio. Raises AssertionError,
    its message beginning with "law N:", where it broke one of the laws of `outside`; gives the log, a line for each
    thing that was seen. The same seed gives the same log."""
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


def _call(make_call: Callable[[World], Call], seed: object, backend: str) -> tuple[Outside, bool]:
    """What was seen of it, and whether it was cancelled from outside. The world itself is garbage after it."""
    world = World(seed, backend)
    run(world.happens, make_call, backend=backend)
    over = world.seen.returned or 0.0
    world.seen.now = lambda: over
    for error in [*world.seen.failures, *(error for error, _, _ in world.seen.raised)]:
        error.__traceback__ = error.__context__ = None  # its frames hold the world
    return world.seen, world.ending == "cancel"
