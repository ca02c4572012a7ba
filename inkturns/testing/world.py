"""World: what surrounds an agent in one storm: the server's frames, the user's code, and what is seen of both.

Rules of this file: each draw is keyed by its purpose and ordinal, so the order in which the agent asks changes nothing.
Times are multiples of 1/16 s, so that they collide. The world is hostile until the storm is over, and calm after it.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
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
from inkturns.outcomes import Replied, Settled
from inkturns.roles import Audible
from inkturns.testing.agent_oracle import AgentOracle, Asked, Piece
from inkturns.testing.draws import (
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
from inkturns.thought import Thought, committed, current_thought

__all__ = ["StormAgent", "World"]

HOOKS = ("on_start", "on_end", "on_abandon", "on_interrupt", "on_settled", "on_replied", "on_failure", "on_report")
CALM = ("calm, please", "and calm again")
CALM_AFTER = 100.0  # seconds: whatever the storm has begun is over by then
PATIENCE = 10_000.0
ACTS = 10  # of the user's code, in a call, at most


class StormAgent(Protocol):
    """One call's agent, as `storm` uses it. inkturns' Agent is one."""

    async def run(self, items: AsyncIterator[object], /) -> None:
        """Takes frames and events until they end."""

    def feed(self, item: object, /) -> object:
        """Takes one more, from anywhere in the loop."""

    def say(self, what: object, /) -> Awaitable[object]:
        """Says what the application wants said."""

    def interrupt(self) -> None:
        """Stops what is being said."""

    def close(self) -> None:
        """Ends the call at once."""


class World:
    """What surrounds one call: its frames, its user code, and the oracle that is told what happens."""

    def __init__(self, seed: object, backend: str) -> None:
        self.seed, self.backend = seed, backend
        dice = self.dice("call")
        self.policy = a_policy(dice)
        self.options: dict[str, Any] = {
            "buffer_size": dice.of(1, 2, 256),
            "grace": dice.of(0.0, 0.125, 0.5),
            "committed_block_timeout": dice.of(30.0, 0.25, 1.0),
            "drain_timeout": dice.of(30.0, 0.25, 3.0),
            "audible": dice.of(Audible.FIRST_ITEM, Audible.FIRST_ITEM, Audible.TOLD),
        }
        self.is_told = self.options["audible"] is Audible.TOLD
        self.roles = dice.of(("listen", "think", "respond"), ("think", "respond"))
        forgives = dice.often(90)
        self.hooks = tuple(hook for hook in HOOKS if forgives or hook != "on_failure")
        self.ending = dice.of("calm") if dice.often(75) else dice.of("close", "cancel", "cancel twice", "raise")
        self.session = a_session(dice)
        self.times: list[float] = []
        at = 0.0
        for _ in self.session:
            at += dice.of(*GAPS)
            self.times.append(at)
        self.ways = [dice.of("items", "items", "items", "task", "callback") for _ in self.session]
        self.ends_at = dice.of(*self.times) + dice.of(*SHORT) if self.ending != "calm" else at + CALM_AFTER
        self.committed: Callable[[], Any] = committed  # what a think waits with, and records with; replace them by
        self.record: Callable[[dict[str, object]], object] = lambda message: current_thought().record(message)  # yours
        self.is_calm = False
        self.counts: dict[str, int] = {}
        self.acts = 0
        self.is_thinking = False  # the code that acts is called by a think, however deep
        self.said: list[tuple[Asked, Awaitable[object]]] = []  # what `say` returned, to be awaited
        self.waiting = 0  # of these, those that are not over
        self.seen: AgentOracle = AgentOracle(
            self.policy,
            self.options["grace"],
            self.options["committed_block_timeout"],
            lambda: 0.0,
            forgives,
            self.is_told,
            self.options["drain_timeout"],
        )

    def dice(self, what: str) -> Dice:
        return Dice(f"{self.seed}: {what}")

    def joins(self, agent: object) -> None:
        """Makes all roles and hooks of the world an Agent's."""
        for name in (*self.roles, *self.hooks):
            getattr(agent, name)(getattr(self, name))

    async def happens(self, make_call: "Callable[[World], StormAgent]") -> None:
        """Run the whole call; the oracle `seen` keeps what was wrong with it."""
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
            self.tasks.start_soon(self._awaits_all)
            with anyio.CancelScope() as self.outer, anyio.move_on_after(PATIENCE) as patience:
                try:
                    await self._runs()
                except Exception as raised:
                    error = raised
            if patience.cancelled_caught:
                self.seen.breaks(7, "run has not returned")
            for one in self._flat(error):
                if not isinstance(one, Boom) or "on_failure" not in self.hooks or one is self.frames_error:
                    self.seen.on_failure(None, one)
                else:
                    self.seen.breaks(6, f"run raises {one!r}, though there is an on_failure")
            await anyio.sleep(CALM_AFTER)
            if self.waiting:
                self.seen.breaks(8, "a say is not over, though run has returned")
            self.tasks.cancel_scope.cancel()
        history = getattr(self.call, "history", None)
        self.seen.messages = None if history is None else history.messages()
        if self.backend == "asyncio":
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                self.seen.breaks(8, f"left behind: {task.get_name()}")

    frames_error: Boom | None = None

    async def _runs(self) -> None:
        """The call, in the task that "cancel twice" cancels as asyncio does it, without a scope that repeats it."""
        if self.ending != "cancel twice" or self.backend != "asyncio":
            await self._run()
            return
        import asyncio

        self.task = asyncio.create_task(self._run())
        await asyncio.wait({self.task})
        if not self.task.cancelled():
            self.task.result()

    async def _run(self) -> None:
        self.tasks.start_soon(self._feeds)
        try:
            await self.call.run(self._items())
        finally:
            self.seen.returns()

    def _flat(self, error: BaseException | None) -> Iterator[BaseException]:
        if isinstance(error, BaseExceptionGroup):
            for one in error.exceptions:
                yield from self._flat(one)
        elif error is not None:
            yield error

    # -- its frames

    async def _items(self) -> AsyncIterator[object]:
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
        """Feed the frames that do not come through `items`, and end the call from outside."""
        steps: list[tuple[float, str, object]] = [
            (at, way, item) for item, at, way in zip(self.session, self.times, self.ways, strict=True) if way != "items"
        ]
        if self.ending in ("close", "cancel"):
            steps.append((self.ends_at, self.ending, None))
        elif self.ending == "cancel twice":
            dice = self.dice("cancellations")
            steps += [(self.ends_at + dice.of(*SHORT) * again, self.ending, None) for again in range(3)]
        for at, way, item in sorted(steps, key=lambda step: step[0]):
            await self._until(at)
            if way == "close":
                self.closes()
            elif way == "cancel":
                self.seen.closes("cancelled from outside", at_once=False)
                self.outer.cancel()
            elif way == "cancel twice":
                self.seen.closes("cancelled from outside", at_once=False)
                if self.backend == "asyncio":
                    self.task.cancel()
                else:
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

    def feeds(self, item: object, *, by_hook: bool = False) -> None:
        if self.seen.returned is not None:
            return
        self._uses(item, by_hook=by_hook)
        nested, self.seen.feeding = self.seen.feeding, True
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

    def _uses(self, item: object, *, by_hook: bool = False) -> None:
        if isinstance(item, UsePolicy):
            self.policy = item.policy
        self.seen.is_fed(item, by_hook=by_hook)

    def says(self, what: object, asked: Asked, *, inside_think: bool) -> None:
        """`what` is given to `say`; a task that has nothing to do with who does so awaits the outcome."""
        try:
            speech = self.call.say(what)
        except RuntimeError as error:
            if not inside_think:
                self.seen.breaks(5, f"say raises {error!r}")
            return
        self.said.append((asked, speech))
        self.bell.set()

    async def _awaits_all(self) -> None:
        while True:
            while self.said:
                self.tasks.start_soon(self._awaits, *self.said.pop(0))
            await self.bell.wait()
            self.bell = anyio.Event()

    async def _awaits(self, asked: Asked, speech: Awaitable[object]) -> None:
        self.waiting += 1
        outcome = await speech
        self.waiting -= 1
        self.seen.said(asked, outcome)

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
        """Let time pass in user code that may swallow its cancellation."""
        try:
            await self._sleep(manners, seconds)
        except anyio.get_cancelled_exc_class():
            self._bears(asked, manners, swallowed)

    def _bears(self, asked: Asked, manners: Manners, swallowed: list[int]) -> None:
        """Call it in an except clause: swallows the cancellation, or raises."""
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

    def listen(self, turn: Turn) -> object:
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

    def think(self, turn: Turn) -> object:
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

    async def _awaited(self, manners: Manners, stream: object) -> object:
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
            finally:
                await self._cleans_up(manners)
            self.seen.made(asked)
            return Piece(asked, 0)

    async def _thinks(self, asked: Asked, manners: Manners) -> AsyncIterator[Piece]:
        swallowed: list[int] = []
        with self._in(asked):
            try:
                await self._begins(asked, manners, swallowed)
                self.is_thinking = True
                try:
                    self._acts(f"{asked}")
                finally:
                    self.is_thinking = False
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
                    if index == manners.records:
                        await self._records(asked, manners)
                    await self._passes(asked, manners, swallowed, manners.gap)
            finally:
                await self._cleans_up(manners)

    async def _records(self, asked: Asked, manners: Manners) -> None:
        """The call of a tool, and its result, unless this is cancelled between the two."""
        call = f"{asked}"
        self.record({"role": "assistant", "content": None, "tool_calls": [{"id": call, "type": "function"}]})
        self.seen.records(asked, call)
        await self._sleep(manners, manners.gap)
        self.record({"role": "tool", "tool_call_id": call, "content": "done"})
        self.seen.records(asked, call)

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

    async def respond(self, turn: Turn | None, thought: Thought[object]) -> None:
        asked, manners = self._asked("respond", turn if turn is not None and turn.number else None)
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

    async def _speaks_all(self, asked: Asked, manners: Manners, swallowed: list[int], thought: Thought[object]) -> None:
        try:
            said = await thought
        except anyio.get_cancelled_exc_class():
            self._bears(asked, manners, swallowed)
            return
        for piece in said if isinstance(said, list) else [said]:
            self.seen.spoke(asked, piece)
        self._sounds(asked, manners, thought, len(said))
        self.seen.exhausted(asked)

    async def _speaks_each(
        self, asked: Asked, manners: Manners, swallowed: list[int], thought: Thought[object]
    ) -> None:
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
            self._sounds(asked, manners, thought, spoken)
            await self._passes(asked, manners, swallowed, manners.gap)
        raise Boom(f"{asked}")

    def _sounds(self, asked: Asked, manners: Manners, thought: Thought[object], spoken: int) -> None:
        """A respond may say that it is audible, or how much was heard."""
        if not self.is_told or manners.sounds == "never" or (manners.sounds == "late" and spoken < 2):
            return
        if manners.sounds == "heard":
            thought.heard(f"{spoken} pieces")
        else:
            thought.sounding()
        self.seen.sounded(asked)

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

    def on_replied(self, replied: Replied) -> None:
        self.seen.on_replied(replied)
        self._acts_in_hook("on_replied")

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
        """Now and then user code feeds, ends, says, interrupts, closes or raises where it stands."""
        dice = self.dice(f"acts in {where}")
        if self.is_calm or self.acts == ACTS or not dice.often(12):
            return
        self.acts += 1
        does = dice.of("feed", "feed", "end", "context", "say", "say", "interrupt", "raise", "raise", "close")
        self.seen.notes(f"    {where} does {does}")
        match does:
            case "feed":
                self.feeds(an_event(dice, use=False), by_hook=True)
            case "end":
                self.feeds(EndNow())
            case "context":
                self.feeds(ContextChanged())
            case "say":
                asked = Asked("say", None, self.acts)
                what = Piece(asked, 0) if dice.often(50) else self._speech(asked, dice.of(*SHORT))
                self.says(what, asked, inside_think=self.is_thinking)
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
    """A stream that is not a generator: it has `aclose` and no `athrow`."""

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
