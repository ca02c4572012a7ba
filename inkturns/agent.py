"""Agent: thinks ahead, holds, cancels, commits; on anyio, for asyncio and trio alike.

Rules of this file:
- The machine decides. `feed` passes its decision on in the same step: what is void is cut off before it returns, and
  can never be heard again, however long its task lives (F18, F24). It starts nothing and waits for nobody (F44).
- The agent's own task starts things, so that they run in the context of `run`, and times the machine's Ticks.
- A piece of user code runs in one task, under one cancel scope, and is seen to end in one way (F28). At most one
  thought and one reply run at a time; the next waits until the last is gone, or for `grace`.
- The only import of anyio. Nothing here reads a clock but the loop's.
"""

import inspect
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar
from enum import StrEnum, auto
from types import TracebackType
from typing import Any, Self, TypeVar

import anyio
import attrs
from anyio.lowlevel import checkpoint, current_token
from msgspec import Struct

from inkturns.actions import (
    Abandon,
    Action,
    Cancel,
    CancelReason,
    Interrupt,
    Listen,
    Report,
    ReportKind,
    Respond,
    Think,
    Turn,
)
from inkturns.events import (
    ContextChanged,
    Disconnected,
    EndNow,
    ReplyDone,
    ReplyStarted,
    StopReply,
    ThoughtFailed,
    Tick,
    UsePolicy,
)
from inkturns.history import History, Spoken
from inkturns.hooks import Turns
from inkturns.policy import OnLost, Policy, check_count

__all__ = ["Agent", "Outcome", "Settled", "Thought", "committed", "current_thought"]

LISTEN_AFTER = 0.05  # seconds that `listen` waits for the reply that was interrupted to be gone

Role = TypeVar("Role", bound=Callable[..., object])
_thought: ContextVar["Thought"] = ContextVar("inkturns_thought")
_reply: ContextVar["_Reply"] = ContextVar("inkturns_reply")


class Outcome(StrEnum):
    """How a thought ended."""

    ADOPTED = auto()  # it was its turn's reply
    VOID = auto()  # it was cancelled
    FAILED = auto()  # it raised


class Settled(Struct, frozen=True, kw_only=True):
    """A thought that is over: what it gained and what it cost. Times are the loop's, in seconds.

    `turn` as the thought was given it; `reason` why it was cancelled; `began` None where it never ran; `first_item`,
    `finished` when its first item, and all of it, was there; `items` how many it made; `ended` when its turn ended,
    None where it was void; `notes` what `Thought.note` was given."""

    turn: Turn
    thought: int
    speculative: bool
    outcome: Outcome
    reason: CancelReason | None
    began: float | None
    first_item: float | None
    finished: float | None
    items: int
    ended: float | None
    notes: dict[str, Any]


class _Signal:
    """Wakes whoever waits. May be fired where there is no task: a loop's bare callback."""

    def __init__(self) -> None:
        self._event: anyio.Event | None = None

    async def wait(self) -> None:
        if self._event is None:
            self._event = anyio.Event()
        await self._event.wait()

    def fire(self) -> None:
        event, self._event = self._event, None
        if event is not None:
            event.set()


class _Run:
    """One piece of user code, from its order to its end."""

    def __init__(self, agent: "Agent", label: str) -> None:
        self.agent = agent
        self.label = label
        self.changed = _Signal()
        self.scope: anyio.CancelScope | None = None
        self.cut_at: float | None = None  # when it was cut off: nothing of it is heard from then on
        self.gone = False
        self.stuck = False
        self.blocks: list[anyio.CancelScope] = []  # of `async with committed()`

    def cut(self) -> None:
        if self.cut_at is not None:
            return
        self.cut_at = self.agent._now()
        for block in self.blocks:
            block.deadline = self.cut_at + self.agent.effect_timeout
        if self.scope is not None:
            self.scope.cancel()
        self.changed.fire()

    async def until_gone(self) -> bool:
        """Waits for its end, once it is cut off: `grace`, after a block that has to stay whole. False: it is stuck."""
        since = self.cut_at
        while not self.gone:
            assert since is not None
            wait = self.agent.grace + (self.agent.effect_timeout if self.blocks else 0)
            blocked = bool(self.blocks)
            with anyio.CancelScope(deadline=since + wait) as timeout:
                await self.changed.wait()
            if timeout.cancelled_caught:
                self.agent._is_stuck(self)
                return False
            if blocked and not self.blocks:
                since = self.agent._now()
        return True


class Thought(_Run):
    """One attempt at a reply: speculative until its turn ends. `async for` takes its items as they are made, once each;
    `await` takes all that are left, as a list, or the value, where `think` made no stream. Either may be cancelled and
    taken up again. An error of `think` is raised where its items end."""

    def __init__(self, agent: "Agent", turn: Turn | None, number: int, *, speculative: bool, said: Any = None) -> None:
        super().__init__(agent, f"thought {number} of turn {turn.number}" if turn else "what the application says")
        self.said = said  # without a turn
        self.turn = turn
        self.number = number
        self.speculative = speculative
        self.committed_at = None if turn else agent._now()
        self.began: float | None = None
        self.first_item: float | None = None
        self.finished: float | None = None
        self.made = 0
        self.notes: dict[str, Any] = {}
        self.error: Exception | None = None
        self.void: CancelReason | None = None
        self.reply: _Reply | None = None
        self.over = False
        self.settled = False
        self._items: deque[Any] = deque()
        self._stream = False
        self._whole = False  # somebody waits for all of it
        self._all: Any = None

    # -- what user code sees

    @property
    def head_start(self) -> float | None:
        """Seconds from its beginning to the end of its turn; None before that."""
        if self.committed_at is None:
            return None
        return 0.0 if self.began is None else max(0.0, self.committed_at - self.began)

    @property
    def saved(self) -> float | None:
        """Seconds of the head start that its first item needed: what speculation really gained; None before both."""
        if self.head_start is None or self.first_item is None or self.began is None:
            return None
        return min(self.head_start, self.first_item - self.began)

    def note(self, **facts: Any) -> None:
        """Keeps facts with the thought: tokens, model, cost. They come back in its Settled."""
        self.notes |= facts

    def heard(self, text: str) -> None:
        """For `respond`: how far the reply was heard, where that is less than what was taken from the thought."""
        if self.reply is None:
            raise RuntimeError("a thought that is no reply yet has not been heard")
        self.agent._heard(self.reply).heard(text)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        while not (self._deaf() or self._items or self.over):
            await self.changed.wait()
        if self._deaf():
            await checkpoint()  # raises in the reply that is cut off, unless it has shielded itself
            raise StopAsyncIteration
        if self._items:
            return self._take()
        if self.error is not None:
            raise self.error
        raise StopAsyncIteration

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._value().__await__()

    # -- what the agent does with it

    async def _value(self) -> Any:
        self._whole = True
        self.changed.fire()
        try:
            while not (self._deaf() or self.over):
                await self.changed.wait()
        finally:
            self._whole = False
        if self._deaf():
            await checkpoint()
            raise RuntimeError("the reply was interrupted")
        if self.error is not None:
            raise self.error
        if self._items:
            items = [self._take() for _ in range(len(self._items))]
            self._all = items if self._stream else items[0]
        return [] if self._stream and self._all is None else self._all

    def _deaf(self) -> bool:
        return self.reply is None or self.reply.gone or self.reply.cut_at is not None

    def _take(self) -> Any:
        item = self._items.popleft()
        self.changed.fire()
        assert self.reply is not None
        self.agent._took(self.reply, item)
        return item

    def _put(self, item: Any) -> None:
        self.made += 1
        if self.first_item is None:
            self.first_item = self.agent._now()
            self.agent._write("first", self.turn, thought=self.number)
        if self.cut_at is None:
            self._items.append(item)
            self.changed.fire()

    async def make(self, result: Any) -> None:
        """What `think` returned decides: an awaitable is awaited, a stream runs ahead, anything else is the value."""
        if inspect.isawaitable(result):
            result = await result
        if hasattr(result, "__aiter__"):
            self._stream = True
            await self._run_ahead(result.__aiter__())
        else:
            self._put(result)
        self.finished = self.agent._now()
        self.agent._write("finished", self.turn, thought=self.number, items=self.made)

    async def _run_ahead(self, stream: AsyncIterator[Any]) -> None:
        """One task iterates and closes. No scope of ours is open between two items, since the stream may hold its own
        open there; for the same reason what is raised in the wait for room is the stream's, and is thrown in."""
        thrown: BaseException | None = None
        throw = getattr(stream, "athrow", None)
        try:
            while self.cut_at is None or thrown is not None or self.blocks:
                try:
                    item = await (anext(stream) if thrown is None or throw is None else throw(thrown))
                except StopAsyncIteration:
                    return
                thrown = None
                self._put(item)
                try:
                    while len(self._items) >= self.agent.max_ahead and self.cut_at is None and not self._whole:
                        await self.changed.wait()
                except BaseException as error:
                    if throw is None:
                        raise
                    thrown = error
        finally:
            close = getattr(stream, "aclose", None)
            if close is not None:
                await close()


class _Reply(_Run):
    """A committed thought being spoken."""

    def __init__(self, agent: "Agent", turn: Turn | None, thought: Thought) -> None:
        super().__init__(agent, f"reply to turn {turn.number}" if turn else "reply that the application began")
        self.turn = turn
        self.number = turn.number if turn else 0
        self.thought = thought
        self.spoken: Spoken | None = None
        self.audible = False  # its first item was taken


class _Listening(_Run):
    """The `listen` of a turn."""

    def __init__(self, agent: "Agent", turn: Turn, after: _Reply | None) -> None:
        super().__init__(agent, f"listen of turn {turn.number}")
        self.turn = turn
        self.after = after  # the reply that the turn interrupted


def current_thought() -> Thought:
    """The thought that this code runs in, however deep. Raises RuntimeError outside one."""
    thought = _thought.get(None)
    if thought is None:
        raise RuntimeError("outside a thought")
    return thought


def committed() -> "_Committed":
    """`await committed()`, inside a thought, waits until its turn is committed, or is cancelled with it (F23, F33).
    `async with committed():` besides keeps its block whole: a barge-in waits for the block's end, at most
    `effect_timeout`, and the next thought begins after it. Raises RuntimeError outside a thought: a gate for side
    effects fails closed."""
    return _Committed(current_thought())


class _Committed:
    def __init__(self, thought: Thought) -> None:
        self.thought = thought
        self.block: anyio.CancelScope | None = None

    def __await__(self) -> Generator[Any, Any, None]:
        return self._wait().__await__()

    async def _wait(self) -> None:
        thought = self.thought
        while thought.committed_at is None and thought.cut_at is None:
            await thought.changed.wait()
        if thought.cut_at is not None:
            await checkpoint()  # raises in the thought that is cut off, unless this is a task of somebody else's
            raise RuntimeError("the thought is void")

    async def __aenter__(self) -> None:
        await self._wait()
        self.block = anyio.CancelScope(shield=True)
        self.block.__enter__()
        self.thought.blocks.append(self.block)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        assert self.block is not None
        self.thought.blocks.remove(self.block)
        self.thought.changed.fire()
        cut_short = self.block.__exit__(kind, error, trace)
        if cut_short:
            await checkpoint()  # nobody takes it for whole
        return cut_short


@attrs.define(eq=False, on_setattr=attrs.setters.NO_OP)  # checked when made; an assignment is to cost nothing
class Agent(Turns):
    """One call's agent: give it `think` and `respond`, and it speculates; what it says was right.

    policy          what is wanted of the turns
    source          whose frames come; None: Ink 2's
    recorder        writes down every input with its actions, and what became of each thought
    max_ahead       items that a thought runs ahead of its reply, at most
    grace           seconds that the next waits for a task that was cancelled
    effect_timeout  seconds that a block under `async with committed()` may outlive a barge-in

    It is the hooks of `Turns` besides, with two of its own, `on_settled` and `on_failure`; hooks are synchronous."""

    clock: Callable[[], float] | None = attrs.field(init=False, default=None)
    max_ahead: int = attrs.field(default=256, kw_only=True)
    grace: float = attrs.field(default=0.5, kw_only=True)
    effect_timeout: float = attrs.field(default=30.0, kw_only=True)
    history: History = attrs.field(init=False, factory=History)
    _roles: dict[str, Callable[..., Any]] = attrs.field(init=False, factory=dict)
    _on_settled: list[Callable[[Settled], object]] = attrs.field(init=False, factory=list)
    _on_failure: list[Callable[[Turn | None, Exception], object]] = attrs.field(init=False, factory=list)
    _call: AbstractAsyncContextManager[None] | None = attrs.field(init=False, default=None)
    _tasks: Any = attrs.field(init=False, default=None)  # the task group, while the call lasts
    _orders: deque[tuple[Callable[..., Awaitable[None]], _Run]] = attrs.field(init=False, factory=deque)
    _wake: _Signal = attrs.field(init=False, factory=_Signal)  # of the agent's own task
    _rested: _Signal = attrs.field(init=False, factory=_Signal)  # a reply or a listen is over
    _armed: float | None = attrs.field(init=False, default=None)
    _live: Thought | None = attrs.field(init=False, default=None)  # the machine's live thought
    _reply: _Reply | None = attrs.field(init=False, default=None)  # ordered or running, and not cut off
    _thinking: Thought | None = attrs.field(init=False, default=None)  # the last that began
    _speaking: _Reply | None = attrs.field(init=False, default=None)  # the last that began
    _deferred: Turn | None = attrs.field(init=False, default=None)  # whose listen waits for a reply that goes on
    _listening: set[int] = attrs.field(init=False, factory=set)
    _running: dict[_Run, None] = attrs.field(init=False, factory=dict)  # or ordered, in that order
    _over: bool = attrs.field(init=False, default=False)
    _unsettled: dict[Thought, None] = attrs.field(init=False, factory=dict)
    _failures: list[Exception] = attrs.field(init=False, factory=list)

    @max_ahead.validator
    def _check_max_ahead(self, _: object, value: int) -> None:
        check_count("Agent: max_ahead", value)
        if value == 0:
            raise ValueError("Agent: max_ahead is 1 or more, not 0")

    @grace.validator
    @effect_timeout.validator
    def _check_seconds(self, field: "attrs.Attribute[float]", value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"Agent: {field.name} is seconds, not {value!r}")
        if not 0 <= value < float("inf"):
            raise ValueError(f"Agent: {field.name} is 0 seconds or more and finite, not {value}")

    def __attrs_post_init__(self) -> None:
        Turns.__attrs_post_init__(self)
        acts: dict[type[Action], Callable[[Any], None]] = {
            Listen: self._opened,
            Think: self._ordered,
            Cancel: self._voided,
            Respond: self._committed,
            Interrupt: self._interrupted,
            Abandon: self._abandoned,
        }
        for kind, act in acts.items():
            self._hooks[kind].append(act)

    # -- the roles, each at most once, and the agent's own hooks

    def listen(self, role: Role) -> Role:
        """listen(turn): the user speaks; be quiet. Once a turn, and not for a backchannel."""
        return self._takes("listen", role)

    def think(self, role: Role) -> Role:
        """think(turn): a reply to `turn.transcript`, unheard until it is over; cancelled when the user goes on."""
        return self._takes("think", role)

    def respond(self, role: Role) -> Role:
        """respond(turn, thought): the turn is over; say the thought, and return when it has been heard."""
        return self._takes("respond", role)

    def _takes(self, name: str, role: Role) -> Role:
        if not callable(role):
            raise TypeError(f"{name} is a function, not {type(role).__name__}")
        if name in self._roles:
            raise ValueError(f"there is a {name} already; an agent has one")
        self._roles[name] = role
        return role

    def on_settled(self, hook: Role) -> Role:
        """on_settled(settled): a thought is over; what it gained and what it cost."""
        return self._own_hook(self._on_settled, hook)

    def on_failure(self, hook: Role) -> Role:
        """on_failure(turn, error): a committed thought, `respond`, `listen` or a hook raised. Without it `run` does."""
        return self._own_hook(self._on_failure, hook)

    def _own_hook(self, hooks: list[Any], hook: Role) -> Role:
        self._refuse_async(hook)
        hooks.append(hook)
        return hook

    # -- the call

    async def run(self, items: AsyncIterable[Any]) -> None:
        """Serves one call: feeds every frame and event, until they end. Then a committed reply may finish. What `items`
        or user code raised is raised, several as an ExceptionGroup."""
        async with self:
            stream = items.__aiter__()
            try:
                async for item in stream:
                    self.feed(item)
            finally:
                if inspect.isasyncgen(stream):
                    await stream.aclose()

    async def __aenter__(self) -> Self:
        if self._call is not None:
            raise RuntimeError("one agent serves one call; make another for the next")
        if "think" in self._roles and "respond" not in self._roles:
            raise RuntimeError("there is a think, but no respond that would say what it thought")
        self._call = self._session()
        await self._call.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        assert self._call is not None
        return await self._call.__aexit__(kind, error, trace)

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[None]:
        self.clock = current_token().backend_class.current_time  # works in a loop's bare callbacks too
        raised: list[Exception] = []
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                tasks.start_soon(self._own_task)
                try:
                    try:
                        yield
                    except Exception as error:
                        raised.append(error)
                    self.feed(Disconnected("the call is over"))
                    while self._orders or self._reply is not None:
                        await self._rested.wait()
                finally:
                    await self._end()
        finally:
            for thought in [*self._unsettled]:
                thought.over = True
                self._settle(thought, last=True)
            self._tasks = None
        raised += self._failures
        if len(raised) > 1:
            raise ExceptionGroup("the call failed", raised)
        if raised:
            raise raised[0]

    async def _end(self) -> None:
        """Hands over the words of an open turn, ends every task, and says which will not end. Deaf from here on: what
        is fed now could be settled by nobody."""
        self._over = True
        if self.machine.turn is not None:  # which nobody will answer, whatever the policy says
            self._receive(UsePolicy(attrs.evolve(self.machine.policy, on_lost=OnLost.ABANDON)))
            self._receive(Disconnected("the agent was closed"))
        self.close()
        while self._orders:  # never begun
            self._is_gone(self._orders.popleft()[1])
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as waiting:
                for run in self._running:
                    waiting.start_soon(run.until_gone)
        self._reply = None
        self._rested.fire()

    async def _own_task(self) -> None:
        """Starts what was ordered, and times the machine's Ticks."""
        while True:
            while self._orders:
                start, run = self._orders.popleft()
                self._tasks.start_soon(start, run)
            self._rested.fire()
            self._armed = self.machine.deadline
            with anyio.CancelScope(deadline=float("inf") if self._armed is None else self._armed):
                await self._wake.wait()
            if self.machine.deadline is not None and self._now() >= self.machine.deadline:
                self.feed(Tick())

    # -- what the application says

    def feed(self, item: Any, now: float | None = None) -> tuple[Action, ...]:
        """Takes a frame or an event, from a task or a loop's bare callback: decides, cancels and returns; what is to
        begin begins afterwards, in the agent's own tasks (F44). Hooks run before it returns. Raises RuntimeError
        outside `run` and `async with`, and nothing because of what came over the wire."""
        if self._tasks is None:
            raise RuntimeError("an agent is fed inside its run, or its `async with`")
        return () if self._over else self._receive(item, now)

    def _receive(self, item: Any, now: float | None = None) -> tuple[Action, ...]:
        try:
            actions = super().feed(item, now)
        except ExceptionGroup as group:
            actions = ()
            for error in group.exceptions:
                self._fail(self.machine.turn, error)
        if self._reply is not None or self._deferred is not None:
            self._follow()
        deadline = self.machine.deadline
        if deadline is not None and (self._armed is None or deadline < self._armed):
            self._wake.fire()
        return actions

    def end_now(self) -> None:
        """Closes the open turn now."""
        self.feed(EndNow())

    def context_changed(self) -> None:
        """What the thought was based on has changed: withdraws it, and thinks again (F20)."""
        self.feed(ContextChanged())

    def use(self, policy: Policy) -> None:
        """Decides by this policy from here on."""
        self.feed(UsePolicy(policy))

    def interrupt(self) -> None:
        """Stops whatever is being said."""
        self.feed(StopReply())
        self._cut_reply()

    def close(self) -> None:
        """Ends the call at once, without an error: nothing more is heard, and `run`, or the `async with`, returns."""
        if self._tasks is not None:
            for run in [*self._running]:
                run.cut()
            self._tasks.cancel_scope.cancel()

    async def say(self, what: Any) -> None:
        """Says what the application wants said by itself (a greeting, a re-prompt), a text or a stream, through
        `respond(None, thought)`; returns when it was heard, or interrupted. Waits for a reply that is in flight. Raises
        RuntimeError outside a call, without `respond`, and inside it, where it would wait for itself."""
        if self._tasks is None or self._over or "respond" not in self._roles:
            raise RuntimeError("an agent says things inside its call, and through `respond`")
        speaking = _reply.get(None)  # the context of a task may outlive the reply that began it
        if speaking is not None and speaking.agent is self and not speaking.gone:
            raise RuntimeError("say, inside respond, would wait for itself")
        while self._reply is not None:
            await self._rested.wait()
        if self._over:
            return
        thought = Thought(self, None, 0, speculative=False, said=what)
        self._reply = reply = thought.reply = _Reply(self, None, thought)
        self._order(self._run_thought, thought)
        self._order(self._run_reply, reply)
        try:
            while not reply.gone:
                await reply.changed.wait()
        finally:
            if self._reply is reply:
                self.interrupt()

    # -- the machine's actions

    def _opened(self, action: Listen) -> None:
        self._deferred = action.turn
        reply = self._reply
        if reply is not None and not reply.number and not reply.audible:
            self._cut_reply()  # nothing was heard of it, and the machine does not know it: it is not for this moment
        self._follow()

    def _ordered(self, action: Think) -> None:
        thought = Thought(self, action.turn, action.thought, speculative=action.speculative)
        self._live = thought
        if "think" in self._roles:
            self._unsettled[thought] = None
            self._order(self._run_thought, thought)
        else:
            thought.over = True

    def _voided(self, action: Cancel) -> None:
        thought, self._live = self._live, None
        assert thought is not None
        thought.void = action.reason
        thought.cut()
        self._settle(thought)

    def _committed(self, action: Respond) -> None:
        self.history.tell(action)
        thought, self._live = self._live, None
        assert thought is not None
        thought.turn = action.turn
        thought.committed_at = self._now()
        if "respond" in self._roles:
            self._cut_reply()  # one that the machine was told is done
            self._reply = thought.reply = _Reply(self, action.turn, thought)
            self._order(self._run_reply, self._reply)
        thought.changed.fire()
        self._settle(thought)

    def _interrupted(self, action: Interrupt) -> None:
        if self._reply is not None and self._reply.number == action.number:
            self._cut_reply()

    def _abandoned(self, action: Abandon) -> None:
        self.history.tell(action)
        self._deferred = None

    def _follow(self) -> None:
        """Cuts off the reply that the machine has no longer in flight (it was told that it is done), and listens where
        none goes on."""
        in_flight, reply = self.machine.reply, self._reply
        if reply is not None and reply.number != in_flight and (reply.number or reply.audible):
            self._cut_reply()
        if in_flight is None:
            self._listen(None)

    # -- user code, each piece in its task

    def _order(self, start: Callable[..., Awaitable[None]], run: _Run) -> None:
        self._running[run] = None
        self._orders.append((start, run))
        self._wake.fire()

    def _cut_reply(self) -> None:
        reply, self._reply = self._reply, None
        if reply is not None:
            reply.cut()
            reply.thought.cut()
            self._listen(reply)
            self._rested.fire()

    def _listen(self, after: _Reply | None) -> None:
        turn, self._deferred = self._deferred, None
        if turn is not None and "listen" in self._roles:
            self._listening.add(turn.number)
            self._order(self._run_listen, _Listening(self, turn, after))

    async def _run_listen(self, run: _Listening) -> None:
        async def body() -> None:
            if run.cut_at is not None:
                return
            if run.after is not None:
                with anyio.CancelScope(deadline=self._now() + LISTEN_AFTER):
                    while not run.after.gone:
                        await run.after.changed.wait()
            await self._returned(self._roles["listen"](run.turn))

        error = await self._guarded(run, body)
        self._listening.discard(run.turn.number)
        self._rested.fire()
        if error is not None:
            self._fail(run.turn, error)

    async def _run_thought(self, thought: Thought) -> None:
        async def body() -> None:
            if thought.cut_at is not None:  # trio may begin it after the next one
                return
            if thought.turn is not None:
                if self._thinking is not None:
                    await self._thinking.until_gone()
                self._thinking = thought
            if thought.cut_at is not None:
                return
            thought.began = self._now()
            self._write("began", thought.turn, thought=thought.number)
            _thought.set(thought)
            await thought.make(thought.said if thought.turn is None else self._roles["think"](thought.turn))

        error = await self._guarded(thought, body)
        thought.error = error
        thought.over = True
        if error is not None:
            self._write("failed", thought.turn, thought=thought.number, error=type(error).__name__)
        if error is not None and thought.committed_at is not None:
            self._fail(thought.turn, error)
        elif error is not None and thought.void is None and thought.turn is not None:
            self.feed(ThoughtFailed(thought.turn.number, thought.number))
        thought.changed.fire()
        self._settle(thought)

    async def _run_reply(self, reply: _Reply) -> None:
        async def body() -> None:
            if reply.cut_at is not None:
                return
            if self._speaking is not None:
                await self._speaking.until_gone()
            self._speaking = reply
            with anyio.CancelScope(deadline=self._now() + self.grace):
                while reply.number in self._listening:
                    await self._rested.wait()
            if reply.cut_at is not None:
                return
            _reply.set(reply)
            await self._returned(self._roles["respond"](reply.turn, reply.thought))

        try:
            error = await self._guarded(reply, body)
        finally:
            text = reply.spoken.text if reply.spoken else ""
            self._write("heard", reply.turn, text=text, whole=reply.cut_at is None)
        reply.thought.cut()
        if self._reply is reply:
            self._reply = None
            self.feed(ReplyDone(reply.number))
        self._rested.fire()
        known = reply.thought.error
        if isinstance(error, ExceptionGroup):  # of its task group, in which it took from the thought
            error = error.split(lambda one: one is known)[1]
        if error is not None and error is not known:
            self._fail(reply.turn, error)

    async def _guarded(self, run: _Run, body: Callable[[], Awaitable[None]]) -> Exception | None:
        """Runs user code in this task, under its scope; gives what it raised."""
        try:
            with anyio.CancelScope() as run.scope:
                if run.cut_at is not None:
                    run.scope.cancel()
                await body()
        except Exception as error:
            return error
        except BaseExceptionGroup as group:  # trio: its own task group's, of the cancellation and of what was raised
            _, rest = group.split(anyio.get_cancelled_exc_class())
            if not isinstance(rest, Exception):
                raise
            return rest
        except anyio.get_cancelled_exc_class() as cancelled:
            if self._tasks.cancel_scope.cancel_called or anyio.current_effective_deadline() == float("-inf"):
                run.cut()
                raise
            # asyncio alone: it awaited something that somebody else cancelled
            stray = RuntimeError(f"{run.label} was cancelled, and not by its agent")
            stray.__cause__ = cancelled
            return stray
        finally:
            self._is_gone(run)
        return None

    def _is_gone(self, run: _Run) -> None:
        self._running.pop(run, None)
        run.gone = True
        run.changed.fire()

    async def _returned(self, result: Any) -> None:
        if inspect.isawaitable(result):
            await result

    # -- what was heard, what failed, what is over

    def _now(self) -> float:
        assert self.clock is not None
        return self.clock()

    def _heard(self, reply: _Reply) -> Spoken:
        if reply.spoken is None:
            reply.spoken = self.history.speak()
        return reply.spoken

    def _took(self, reply: _Reply, item: object) -> None:
        self._heard(reply).took(item)
        if not reply.audible:
            reply.audible = True
            self.feed(ReplyStarted(reply.number))

    def _is_stuck(self, run: _Run) -> None:
        if run.stuck:
            return
        run.stuck = True
        report = Report(ReportKind.STUCK_TASK, None, f"{run.label} goes on though it was cancelled; it is not heard")
        for hook in self._hooks[Report]:
            self._calls(None, hook, report)

    def _calls(self, turn: Turn | None, hook: Callable[..., object], *given: object) -> None:
        try:
            hook(*given)
        except Exception as error:
            self._fail(turn, error)

    def _fail(self, turn: Turn | None, error: Exception) -> None:
        """To `on_failure`; without it, or where it raises itself, the call is over."""
        try:
            for hook in self._on_failure:
                hook(turn, error)
        except Exception as another:
            self._failures.append(another)
        else:
            if self._on_failure:
                return
            self._failures.append(error)
        self.close()

    def _settle(self, thought: Thought, *, last: bool = False) -> None:
        """Says what became of a thought, once: when it is decided and its task is over."""
        decided = thought.void is not None or thought.committed_at is not None or last
        if thought not in self._unsettled or not thought.over or not decided:
            return
        del self._unsettled[thought]
        adopted = thought.committed_at is not None
        failed = thought.error is not None if adopted else thought.void is CancelReason.FAILED
        assert thought.turn is not None
        settled = Settled(
            turn=thought.turn,
            thought=thought.number,
            speculative=thought.speculative,
            outcome=Outcome.FAILED if failed else Outcome.ADOPTED if adopted else Outcome.VOID,
            reason=thought.void,
            began=thought.began,
            first_item=thought.first_item,
            finished=thought.finished,
            items=thought.made,
            ended=thought.committed_at,
            notes=thought.notes,
        )
        self._write("settled", thought.turn, settled=settled, head_start=thought.head_start, saved=thought.saved)
        for hook in self._on_settled:
            self._calls(settled.turn, hook, settled)

    def _write(self, what: str, turn: Turn | None, **facts: object) -> None:
        if self.recorder is not None:
            self.recorder.note({"t": self._now(), "agent": what, "turn": turn.number if turn else 0, **facts})
