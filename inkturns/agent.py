"""Agent: thinks ahead, holds, cancels, commits; on anyio, for asyncio and trio alike.

Rules of this file:
- The machine decides. `feed` passes its decision on in the same step: what is void is cut off before it returns, and
  can never be heard again, however long its task lives (F18, F24). It starts nothing and waits for nobody (F44).
- The agent's own task starts things, so that they run in the context of `run`, and times the machine's Ticks.
- A piece of user code runs in one task, under one cancel scope, and is seen to end in one way (F28). At most one
  thought and one reply run at a time; the next waits until the last is gone, or for `grace`.
- Only this file and `thought.py` import anyio. Nothing here reads a clock but the loop's.
"""

import inspect
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Self, TypeVar

import anyio
import attrs
from anyio.lowlevel import current_token

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
from inkturns.thought import (
    Listening,
    Outcome,
    Reply,
    Run,
    Settled,
    Signal,
    Thought,
    committed,
    current_thought,
    running_thought,
)

__all__ = ["Agent", "Outcome", "Settled", "Thought", "committed", "current_thought"]

LISTEN_AFTER = 0.05  # seconds that `listen` waits for the reply that was interrupted to be gone

Role = TypeVar("Role", bound=Callable[..., object])
running_reply: ContextVar[Reply] = ContextVar("inkturns_reply")


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
    _orders: list[tuple[Callable[..., Awaitable[None]], Run]] = attrs.field(init=False, factory=list)
    _wake: Signal = attrs.field(init=False, factory=Signal)  # of the agent's own task
    _rested: Signal = attrs.field(init=False, factory=Signal)  # a reply or a listen is over
    _armed: float | None = attrs.field(init=False, default=None)
    _live: Thought | None = attrs.field(init=False, default=None)  # the machine's live thought
    _reply: Reply | None = attrs.field(init=False, default=None)  # ordered or running, and not cut off
    _thinking: Thought | None = attrs.field(init=False, default=None)  # the last that began
    _speaking: Reply | None = attrs.field(init=False, default=None)  # the last that began
    _deferred: Turn | None = attrs.field(init=False, default=None)  # whose listen waits for a reply that goes on
    _floor: int = attrs.field(init=False, default=0)  # the last turn to which what was being said gave way
    _listening: set[int] = attrs.field(init=False, factory=set)
    _running: dict[Run, None] = attrs.field(init=False, factory=dict)  # or ordered, in that order
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
            self._hooks[kind].append((False, act))

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
            self._is_gone(self._orders.pop(0)[1])
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as waiting:
                for run in self._running:
                    waiting.start_soon(run.until_gone)
        self._reply = None
        self._rested.fire()

    async def _own_task(self) -> None:
        """Starts what was ordered, and times the machine's Ticks."""
        while True:
            with anyio.CancelScope() as alarm:  # one for many orders: it costs as much as to start a task
                while True:
                    while self._orders:
                        self._tasks.start_soon(*self._orders.pop(0))
                    self._rested.fire()
                    if self._armed != self.machine.deadline:
                        self._armed = self.machine.deadline
                        alarm.deadline = float("inf") if self._armed is None else self._armed
                    await self._wake.wait()
            self._armed = None
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
        speaking = running_reply.get(None)  # the context of a task may outlive the reply that began it
        if speaking is not None and speaking.agent is self and not speaking.gone:
            raise RuntimeError("say, inside respond, would wait for itself")
        inside = running_thought.get(None)
        if inside is not None and inside.agent is self and not inside.gone:
            raise RuntimeError("say, inside think, would be heard before the end, or wait for itself")
        floor = self._floor
        while self._reply is not None:
            await self._rested.wait()
        if self._over or self._floor != floor:
            return  # the user has begun to speak meanwhile: it counts as interrupted (F25)
        thought = Thought(self, None, 0, speculative=False, said=what)
        self._reply = reply = thought.reply = Reply(self, None, thought)
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
        self._listen(None)  # of a turn that opened in this very step: its own reply is not what it waits for
        self.history.tell(action)
        thought, self._live = self._live, None
        assert thought is not None
        thought.turn = action.turn
        thought.committed_at = self._now()
        if "respond" in self._roles:
            self._cut_reply()  # one that the machine was told is done
            self._reply = thought.reply = Reply(self, action.turn, thought)
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

    def _order(self, start: Callable[..., Awaitable[None]], run: Run) -> None:
        self._running[run] = None
        if self._tasks.cancel_scope.cancel_called:  # closed in this very step: nothing more is heard
            run.cut()
        self._orders.append((start, run))
        self._wake.fire()

    def _cut_reply(self) -> None:
        reply, self._reply = self._reply, None
        if reply is not None:
            reply.cut()
            reply.thought.cut()
            self._listen(reply)
            self._rested.fire()

    def _listen(self, after: Reply | None) -> None:
        turn, self._deferred = self._deferred, None
        if turn is None:
            return
        self._floor = turn.number
        if "listen" in self._roles:
            self._listening.add(turn.number)
            self._order(self._run_listen, Listening(self, turn, after))

    async def _run_listen(self, run: Listening) -> None:
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
            running_thought.set(thought)
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

    async def _run_reply(self, reply: Reply) -> None:
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
            running_reply.set(reply)
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

    async def _guarded(self, run: Run, body: Callable[[], Awaitable[None]]) -> Exception | None:
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

    def _is_gone(self, run: Run) -> None:
        self._running.pop(run, None)
        run.gone = True
        if run is self._thinking:
            self._thinking = None
        elif run is self._speaking:
            self._speaking = None
        run.changed.fire()

    async def _returned(self, result: Any) -> None:
        if inspect.isawaitable(result):
            await result

    # -- what was heard, what failed, what is over

    def _now(self) -> float:
        assert self.clock is not None
        return self.clock()

    def _heard(self, reply: Reply) -> Spoken:
        if reply.spoken is None:
            reply.spoken = self.history.speak()
        return reply.spoken

    def _took(self, reply: Reply, item: object) -> None:
        self._heard(reply).took(item)
        if not reply.audible:
            reply.audible = True
            self.feed(ReplyStarted(reply.number))

    def _is_stuck(self, run: Run) -> None:
        if run.stuck:
            return
        run.stuck = True
        report = Report(ReportKind.STUCK_TASK, None, f"{run.label} goes on though it was cancelled; it is not heard")
        for _, hook in self._hooks[Report]:
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
