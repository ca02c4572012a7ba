"""Agent: thinks ahead, holds, cancels, commits; for asyncio and trio alike.

Rules of this file:
- The machine decides. `feed` passes its decision on in the same step: a cancelled thought is cut before `feed` returns,
  and is never heard after that, however long its task lives (F18, F24). `feed` runs no role and waits for none (F44).
- It translates the machine's actions into orders; `tasks.py` starts, cuts and ends what is ordered.
- At most one thought, one reply and one `listen` run at a time.
- The end of the call answers nobody, commits nothing, and leaves nobody waiting (F52, F53).
"""

import inspect
from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from types import TracebackType
from typing import Any, Self

import anyio
import attrs

from inkturns.actions import Abandon, Action, Cancel, Hear, Interrupt, Listen, Respond, Resume, Think, Turn
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
from inkturns.outcomes import Outcome, Replied, ReplyOutcome, Settled, Usage
from inkturns.policy import AfterDisconnect, Policy
from inkturns.roles import Audible, Roles, stray
from inkturns.tasks import Alarm, Backend, Job, Jobs, Lane, Wakeup, backend_of_this_loop
from inkturns.thought import (
    Reply,
    Speech,
    Thought,
    check_value,
    committed,
    current_thought,
    is_inside_a_thought_of,
    running_reply,
    running_thought,
)
from inkturns.turns import Turns

__all__ = [
    "Agent",
    "Audible",
    "Outcome",
    "Replied",
    "ReplyOutcome",
    "Settled",
    "Speech",
    "Thought",
    "Usage",
    "committed",
    "current_thought",
]

LISTEN_AFTER = 0.05  # seconds that `listen` waits for the reply that was interrupted to be gone
TAKEN_AT_THE_END = (ReplyStarted, ReplyDone, StopReply)
OWN: dict[type[Action], str] = {  # the method that takes each
    Think: "_ordered",
    Cancel: "_thought_cancelled",
    Respond: "_committed",
    Interrupt: "_interrupted",
    Abandon: "_abandoned",
}


@attrs.define(eq=False, on_setattr=attrs.setters.NO_OP)
class Agent(Roles):
    """The agent of one call. Give it `think` and `respond`: it thinks ahead, and speaks when the turn is over.

    policy           what is wanted of the turns
    source           turns frames into events; None: Ink 2's frames
    recorder         writes down every input with its actions, and what became of each thought and reply
    buffer_size      items that a thought runs ahead of its reply, at most
    grace            seconds that the next task waits for a cancelled one, which is cancelled again after each `grace`
    committed_block_timeout  seconds that a block under `async with committed()` may outlive a barge-in
    drain_timeout    seconds that a committed reply may go on when the items have ended
    audible          Audible.FIRST_ITEM: a reply is audible when `respond` takes its first item. Audible.TOLD: when
                     `respond` calls `thought.sounding()`
    text             (item) -> str: the words of an item, for the history; None: items that are text are their words

    It also has the hooks of `Turns`, and `on_settled`, `on_replied` and `on_failure`; hooks are synchronous. Raises
    TypeError or ValueError, naming the option, when made with nonsense."""

    _call: AbstractAsyncContextManager[None] | None = attrs.field(init=False, default=None)
    _backend: Backend = attrs.field(init=False)
    _jobs: Jobs = attrs.field(init=False)
    _place: Callable[[], object] = attrs.field(init=False, default=str)  # where this code runs
    _home: object = attrs.field(init=False, default=None)  # where the call is fed
    _scope: anyio.CancelScope = attrs.field(init=False)  # of what runs inside `async with agent`
    _lanes: tuple[Lane, Lane, Lane] = attrs.field(init=False)  # thinking, speaking, listening
    _rested: Wakeup = attrs.field(init=False)  # a reply is over
    _alarm: Alarm | None = attrs.field(init=False, default=None)  # of the machine's deadline, or of one before it
    _alarm_at: float = attrs.field(init=False, default=0.0)
    _live: Thought[Any] | None = attrs.field(init=False, default=None)  # the machine's live thought
    _reply: Reply | None = attrs.field(init=False, default=None)  # ordered or running, and not cut
    _listening: Job | None = attrs.field(init=False, default=None)  # the last `listen`
    _deferred: Turn | None = attrs.field(init=False, default=None)  # whose listen waits for a reply that goes on
    _speeches: list[Reply] = attrs.field(init=False, factory=list)  # given to `say`, and not begun
    _asked: list[Reply] = attrs.field(init=False, factory=list)  # given to `say` in a hook
    _is_draining: bool = attrs.field(init=False, default=False)  # the items have ended
    _is_over: bool = attrs.field(init=False, default=False)  # it takes nothing in, and lets nothing out
    _is_gone: bool = attrs.field(init=False, default=False)  # the call has returned

    def __attrs_post_init__(self) -> None:
        Turns.__attrs_post_init__(self)
        goes_on = self._goes_on
        self._only |= {Listen: self._opened, Hear: goes_on, Resume: goes_on}
        decided = (self._decided,)  # one for all kinds: an idle agent is to be small
        self._hooks |= dict.fromkeys(OWN, decided)

    # -- the call

    async def run(self, items: AsyncIterable[Any]) -> None:
        """Serves one call: feeds every frame and event, until they end. Then a committed reply may finish, within
        `drain_timeout`. What `items` or user code raised is raised, several as an ExceptionGroup, also where the call
        was cancelled. Raises TypeError, and begins nothing, where `items` is no async iterable.

        Ink's client sets `catching_up` on its iterator while the server still hears sound that was kept from an outage.
        The recording marks the turns that begin then, and a report leaves out their times."""
        if not hasattr(items, "__aiter__"):
            raise TypeError(f"Agent.run: items must be an async iterable of frames, got {type(items).__name__}")
        async with self:
            stream = items.__aiter__()
            try:
                async for item in stream:
                    actions = self.feed(item)
                    if self.recorder is not None and getattr(stream, "catching_up", False):
                        for action in actions:
                            if isinstance(action, Listen):
                                self._write("catching_up", action.turn)
            except self._cancelled as error:
                if self._backend.is_cancelled():
                    raise
                raise stray(error, "the iteration of the items") from error
            finally:
                if inspect.isasyncgen(stream):
                    await stream.aclose()

    async def __aenter__(self) -> Self:
        if self._call is not None:
            raise RuntimeError("one agent serves one call; make another for the next")
        if "think" in self._roles and "respond" not in self._roles:
            raise RuntimeError("the agent has a think but no respond: add one with `@agent.respond`")
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
        token = running_thought.set(None)  # roles are in no thought of another agent's
        self._backend = backend_of_this_loop()
        running_thought.reset(token)
        self.clock, self._cancelled = self._backend.now, self._backend.cancelled
        self._place, self._home = self._backend.place, self._backend.place()
        self._lanes = (Lane(), Lane(), Lane())
        self._rested = self._backend.wakeup()
        self._write("run", None, **dict.fromkeys(self._roles, True))
        raised: list[BaseException] = []
        cancelled: BaseException | None = None
        async with self._backend:
            self._jobs = Jobs(
                self._backend,
                grace=self.grace,
                block_timeout=self.committed_block_timeout,
                on_stuck=self._is_stuck,
                on_crash=self._crashes,
            )
            try:
                with anyio.CancelScope() as self._scope:
                    try:
                        try:
                            yield
                        except (self._cancelled, GeneratorExit):
                            raise
                        except BaseExceptionGroup as group:
                            cancellations, rest = group.split(self._cancelled)
                            if rest is not None:
                                raised.append(rest)
                            if cancellations is not None:  # of a trio nursery
                                raise cancellations from None
                        except BaseException as error:
                            raised.append(error)
                        if not raised or isinstance(raised[0], Exception):
                            await self._drain()
                    finally:
                        self._ends()
            except BaseException as error:  # kept from trio's nursery, which would wrap it
                cancelled = error
            try:
                await self._jobs.join()
            except self._cancelled as error:
                cancelled = error
        self._is_gone, self._place, self._home = True, str, None
        if self.recorder is not None:
            self.recorder.close()
        raised += self._failures
        if cancelled is not None and not (raised and isinstance(cancelled, self._cancelled | BaseExceptionGroup)):
            try:
                raise cancelled
            finally:
                del cancelled
        if len(raised) == 1 and isinstance(raised[0], Exception):
            raise raised[0]
        if raised:
            raise BaseExceptionGroup("the call failed", raised)

    async def _drain(self) -> None:
        """The items have ended: nobody answers an open turn, and a reply may finish."""
        self._is_draining = True
        self._withdraw()
        self._safely(partial(self._abandon, "the call is over"))
        if self._reply is not None:
            alarm = self._backend.call_at(self._now() + self.drain_timeout, partial(self._safely, self.interrupt))
            try:
                while self._reply is not None:
                    await self._rested.wait()
            finally:
                alarm.cancel()

    def _abandon(self, why: str) -> None:
        """Abandons the open turn, with its words, whatever the policy says."""
        if self.machine.policy.after_disconnect is not AfterDisconnect.ABANDON:
            self._receive(UsePolicy(attrs.evolve(self.machine.policy, after_disconnect=AfterDisconnect.ABANDON)))
        self._receive(Disconnected(why))

    def _ends(self) -> None:
        """From this step on nothing is taken in, and nothing gets out."""
        if self._is_over:
            return
        self._is_over = self._is_draining = True
        if self.machine.turn is not None or self._feeding:
            self._safely(partial(self._abandon, "the agent was closed"))
        while self._speeches:
            self._safely(self._withdraw)
        self._cut_reply()
        self._jobs.cut_all()
        if self._alarm is not None:
            self._alarm.cancel()

    def _safely(self, function: Callable[[], object]) -> None:
        """Calls a function and lets its caller (an alarm, say) go on, even where a hook raises KeyboardInterrupt: that
        is raised where the call ends."""
        try:
            function()
        except BaseException as error:
            self._crashes(error)

    def _crashes(self, error: BaseException) -> None:
        self._failures.append(error)
        self.close()

    # -- what the application says

    def feed(self, item: Any, now: float | None = None) -> tuple[Action, ...]:
        """Takes a frame or an event, from a task or from a bare callback of the loop, and returns the actions. When it
        returns, cancelled thoughts and replies are cut and all hooks have run; new tasks start with the next step of
        the loop (F44). After `close()` it does nothing. Raises RuntimeError outside `run` and `async with`, and in
        another thread or loop. Never raises because of what came over the wire."""
        if self._place() != self._home:
            self._check_place("feed")
        if self._is_draining and (self._is_over or not isinstance(item, TAKEN_AT_THE_END)):
            return ()
        return self._receive(item, now)

    def _check_place(self, name: str) -> None:
        if self._call is None or self._is_gone:
            raise RuntimeError(f"{name}: call it while the agent is inside its `run`, or inside `async with agent`")
        if self._place() != self._home:
            raise RuntimeError(
                f"{name} must be called in the thread and the loop of the call; from elsewhere use"
                f" loop.call_soon_threadsafe(agent.{name}, …), on trio token.run_sync_soon(agent.{name}, …)"
            )

    def _receive(self, item: Any, now: float | None = None) -> tuple[Action, ...]:
        actions: tuple[Action, ...] = ()
        try:
            actions = Turns.feed(self, item, now)
        except ExceptionGroup as group:
            for error in group.exceptions:
                self._fail(self.machine.turn, error)
        if not self._feeding:
            if self._reply is not None or self._deferred is not None:
                self._follow_reply()
            if self._asked or self._speeches:
                self._take_up()
            deadline = self.machine.deadline
            if deadline is not None and (self._alarm is None or deadline < self._alarm_at) and not self._is_over:
                self._arm(deadline)
        return actions

    def end_now(self) -> None:
        """Closes the open turn now."""
        self.feed(EndNow())

    def context_changed(self) -> None:
        """What the thought was based on has changed: cancels it, and thinks again (F20)."""
        self.feed(ContextChanged())

    def use(self, policy: Policy) -> None:
        """Decides by this policy from here on."""
        self.feed(UsePolicy(policy))

    def interrupt(self) -> None:
        """Stops whatever is being said."""
        self.feed(StopReply())
        self._cut_reply()
        self._speak()

    def close(self) -> None:
        """Ends the call at once, without an error: nothing more is heard, an open turn is abandoned before it returns,
        and `run`, or the `async with`, returns when all tasks are gone. Outside the call it does nothing."""
        if self._call is None or self._is_gone:
            return
        self._check_place("close")
        self._ends()
        self._scope.cancel()

    def say(self, what: Any) -> Speech:
        """Says a text or a stream of the application's own, a greeting or a re-prompt, through `respond(turn, thought)`
        with a turn whose number is 0. It begins at once, or after the reply in flight, and is withdrawn when the user
        speaks, or a turn is answered, before it is audible. `await` the result for the ReplyOutcome. After the call it
        is NOT_BEGUN. Raises RuntimeError before the call, without `respond`, and inside `think`; TypeError for what
        cannot be said."""
        if self._call is None or "respond" not in self._roles:
            raise RuntimeError("say: call it while the agent is inside its call, and give the agent a `respond`")
        check_value(None if inspect.iscoroutine(what) else what)
        if not self._is_gone:
            self._check_place("say")
        if is_inside_a_thought_of(self._jobs) and not self._feeding:  # a hook may, whoever has fed
            raise RuntimeError("say, inside think, would be heard before the end of the turn; yield the text instead")
        thought = self._thought(Turn(0), 0, speculative=False)
        thought.committed_at = self._now()
        reply = self._reply_of(thought)
        if inspect.isawaitable(what) or hasattr(what, "__aiter__"):
            reply.source = what
        else:
            thought.is_value(what)
        if self._is_draining:  # not told to `on_replied`, whose hook may be what says it
            self._end_unbegun(reply)
        elif self._feeding:
            self._asked.append(reply)
        else:
            self._speeches.append(reply)
            self._speak()
        return Speech(reply)

    # -- the machine's actions

    def _opened(self, turn: Turn) -> None:
        self._deferred = turn
        self._withdraw()
        self._follow_reply()

    def _goes_on(self, turn: Turn) -> None:
        if self._speeches or self._reply is not None:
            self._withdraw()

    def _decided(self, action: Action) -> None:
        getattr(self, OWN[type(action)])(action)

    def _ordered(self, action: Think) -> None:
        self._live = thought = self._thought(action.turn, action.thought, speculative=action.speculative)
        if "think" in self._roles:
            self._unsettled[thought] = None
            self._order(thought, self._think, self._thought_ended, self._lanes[0])
        else:
            thought.over = True

    def _thought_cancelled(self, action: Cancel) -> None:
        thought, self._live = self._live, None
        if thought is None:  # a hook raised KeyboardInterrupt before the Think of its step was passed on
            return
        thought.reason = action.reason
        self._jobs.cut(thought)
        if thought.cut_at is None and thought.error is None:  # it was made before
            thought.cut_at = self._now()
        thought.changed.fire()  # a task that it has left behind may wait for the commit
        self._settle(thought)

    def _committed(self, action: Respond) -> None:
        self._listen(None)  # of a turn that opened in this very step: its own reply is not what it waits for
        self._withdraw()
        self._cut_reply()  # one that the machine was told is done
        self.history.tell(action)
        thought, self._live = self._live, None
        assert thought is not None
        thought.turn = action.turn
        thought.committed_at = self._now()
        self.history.commit(thought.spoken)
        if "respond" in self._roles:
            self._reply = self._reply_of(thought)
            self._order_reply(self._reply)
        thought.changed.fire()
        self._settle(thought)

    def _interrupted(self, action: Interrupt) -> None:
        if self._reply is not None and self._reply.turn.number == action.number:
            self._cut_reply()

    def _abandoned(self, action: Abandon) -> None:
        self.history.tell(action)
        self._deferred = None

    def _take_up(self) -> None:
        """Takes what `say` was given in hooks, now that all actions at hand are done."""
        asked, self._asked = self._asked, []
        for reply in asked:
            if self._is_draining:
                self._end_unbegun(reply)
                self._replied(reply)
            else:
                self._speeches.append(reply)
        self._speak()

    def _follow_reply(self) -> None:
        """Cuts the reply that the machine no longer has in flight (it was told that it is done), and listens where
        none goes on."""
        in_flight, reply = self.machine.reply, self._reply
        if reply is not None and reply.turn.number != in_flight and (reply.turn.number or reply.sounded_at is not None):
            self._cut_reply()
        if in_flight is None:
            self._listen(None)

    def _arm(self, deadline: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm, self._alarm_at = self._backend.call_at(deadline, partial(self._safely, self._rings)), deadline

    def _rings(self) -> None:
        self._alarm = None
        deadline = self.machine.deadline
        if deadline is not None and deadline <= self._alarm_at:
            self._receive(Tick(), max(deadline, self._now()))
        elif deadline is not None:
            self._arm(deadline)

    # -- the orders

    def _thought(self, turn: Turn, number: int, *, speculative: bool) -> Thought[Any]:
        return Thought(
            self._jobs,
            turn,
            number,
            speculative=speculative,
            spoken=self.history.begin(),
            buffer_size=self.buffer_size,
            notes_when=None if self.recorder is None else self._notes_when,
        )

    def _reply_of(self, thought: Thought[Any]) -> Reply:
        is_told = self.audible is Audible.TOLD
        reply = Reply(
            self._jobs,
            thought,
            self.history,
            is_told=is_told,
            text_of=self.text,
            words_of=self._text_of,
            sounds=self._sounds,
        )
        thought.reply = reply
        return reply

    def _order(
        self, job: Job, work: Any, ended: Any, lane: Lane | None, after: Job | None = None, patience: float = 0.0
    ) -> None:
        self._jobs.order(job, work, ended, lane, after, patience)
        if self._is_over:  # closed in this very step
            self._jobs.cut(job)

    def _order_reply(self, reply: Reply) -> None:
        listening = self._listening
        if not reply.turn.number:  # what the application says answers no turn that it would listen to
            listening = None
        self._order(reply, self._respond, self._reply_ended, self._lanes[1], after=listening, patience=self.grace)

    def _speak(self) -> None:
        """Begins what `say` was given, where no reply is in flight."""
        while self._speeches and self._reply is None and not self._feeding:
            self._reply = reply = self._speeches.pop(0)
            if reply.source is not None:
                self._order(reply.thought, self._think, self._thought_ended, None)
            self._order_reply(reply)

    def _withdraw(self) -> None:
        """Ends what `say` was given and nobody hears yet: the user has spoken since (F25)."""
        while self._speeches:
            speech = self._speeches.pop(0)
            self._end_unbegun(speech)
            self._replied(speech)
        reply = self._reply
        if reply is not None and not reply.turn.number and reply.sounded_at is None and not self._is_draining:
            self._cut_reply()

    def _cut_reply(self) -> None:
        reply, self._reply = self._reply, None
        if reply is not None:
            reply.over_at = self._now()
            reply.outcome = ReplyOutcome.NOT_BEGUN if reply.sounded_at is None else ReplyOutcome.INTERRUPTED
            thought = reply.thought
            self._jobs.cut(reply)
            self._jobs.cut(thought)
            self._listen(reply)
            self._rested.fire()

    def _listen(self, after: Reply | None) -> None:
        turn, self._deferred = self._deferred, None
        if turn is None or "listen" not in self._roles:
            return
        if self._listening is not None:
            self._jobs.cut(self._listening)
        self._listening = job = ListenJob(self._jobs, turn)
        self._order(job, self._be_quiet, self._listen_ended, self._lanes[2], after=after, patience=LISTEN_AFTER)

    # -- the pieces of user code, each in its task; and how each ends

    async def _be_quiet(self, job: "ListenJob") -> None:
        result = self._roles["listen"](job.turn)
        if inspect.isawaitable(result):
            await result

    def _listen_ended(self, job: "ListenJob", error: Exception | None) -> None:
        if self._listening is job:
            self._listening = None
        if error is not None:
            self._fail(job.turn, error)

    async def _think(self, thought: Thought[Any]) -> None:
        thought.begins()
        running_thought.set(thought)
        reply = thought.reply
        if reply is not None and reply.source is not None:
            await thought.make(reply.source)
        else:
            await thought.make(self._roles["think"](thought.turn))

    def _thought_ended(self, thought: Thought[Any], error: Exception | None) -> None:
        thought.error, thought.over = error, True
        if thought.reply is not None:
            thought.reply.closes_source()
        if error is not None:
            self._write("failed", thought.turn, thought=thought.number, error=type(error).__name__)
            if thought.committed_at is not None:
                self._fail(thought.turn, error)
            elif thought.reason is None:
                self._failed(thought, error)
                self._receive(ThoughtFailed(thought.turn.number, thought.number))
        thought.changed.fire()
        self._settle(thought)

    async def _respond(self, reply: Reply) -> None:
        running_reply.set(reply)
        self._write("responds", reply.turn)
        result = self._roles["respond"](reply.turn, reply.thought)
        if inspect.isawaitable(result):
            await result

    def _sounds(self, reply: Reply) -> None:
        self.feed(ReplyStarted(reply.turn.number))

    def _reply_ended(self, reply: Reply, error: Exception | None) -> None:
        if reply.outcome is None:
            reply.over_at = self._now()
            if reply.cut_at is not None:  # a hook has closed the call in the step that committed it
                reply.outcome = ReplyOutcome.NOT_BEGUN
            else:
                reply.outcome = ReplyOutcome.HEARD if error is None else ReplyOutcome.FAILED
        self._jobs.cut(reply.thought)
        if self._reply is reply:
            self._reply = None
            if not self._is_over and (reply.turn.number or reply.sounded_at is not None):
                self._receive(ReplyDone(reply.turn.number))
        self._replied(reply, error)
        known = reply.thought.error
        del reply.thought  # which holds the reply: a cycle would wait for the garbage collector
        if isinstance(error, ExceptionGroup):  # of its task group, in which it took from the thought
            error = error.split(lambda one: one is known)[1]
        if error is not None and error is not known:
            self._fail(reply.turn, error)
        self._rested.fire()
        self._speak()

    def _end_unbegun(self, reply: Reply) -> None:
        """What `say` was given will not be said."""
        reply.over_at, reply.outcome = self._now(), ReplyOutcome.NOT_BEGUN
        reply.closes_source()
        reply.changed.fire()


class ListenJob(Job):
    """The `listen` of a turn."""

    __slots__ = ("turn",)

    def __init__(self, jobs: Jobs, turn: Turn) -> None:
        super().__init__(jobs, f"listen of turn {turn.number}")
        self.turn = turn
