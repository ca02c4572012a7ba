"""Thought: one attempt at a reply, and what an agent's pieces of user code have in common.

Rules of this file: what is cut off is deaf, from that step of the loop on; whoever waits is woken by every change, and
looks again; no scope of ours is open between two items of a stream, since the stream may hold its own open there.
"""

import inspect
from collections import deque
from collections.abc import AsyncIterator, Generator
from contextvars import ContextVar
from enum import StrEnum, auto
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import anyio
from anyio.lowlevel import checkpoint
from msgspec import Struct

from inkturns.actions import CancelReason, Turn
from inkturns.history import Spoken

if TYPE_CHECKING:
    from inkturns.agent import Agent

__all__ = ["Listening", "Outcome", "Reply", "Run", "Settled", "Signal", "Thought", "committed", "current_thought"]

running_thought: ContextVar["Thought"] = ContextVar("inkturns_thought")
running_block: ContextVar[anyio.CancelScope | None] = ContextVar("inkturns_block", default=None)


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


class Signal:
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


class Run:
    """One piece of user code, from its order to its end."""

    def __init__(self, agent: "Agent", label: str) -> None:
        self.agent = agent
        self.label = label
        self.changed = Signal()
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


class Thought(Run):
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
        self.reply: Reply | None = None
        self.over = False
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


class Reply(Run):
    """A committed thought being spoken."""

    def __init__(self, agent: "Agent", turn: Turn | None, thought: Thought) -> None:
        super().__init__(agent, f"reply to turn {turn.number}" if turn else "reply that the application began")
        self.turn = turn
        self.number = turn.number if turn else 0
        self.thought = thought
        self.spoken: Spoken | None = None
        self.audible = False  # its first item was taken


class Listening(Run):
    """The `listen` of a turn."""

    def __init__(self, agent: "Agent", turn: Turn, after: Reply | None) -> None:
        super().__init__(agent, f"listen of turn {turn.number}")
        self.turn = turn
        self.after = after  # the reply that the turn interrupted


def current_thought() -> Thought:
    """The thought that this code runs in, however deep. Raises RuntimeError outside one."""
    thought = running_thought.get(None)
    if thought is None:
        raise RuntimeError("outside a thought")
    return thought


def committed() -> "Gate":
    """`await committed()`, inside a thought, waits until its turn is committed, or is cancelled with it (F23, F33).
    `async with committed():` besides keeps its block whole: a barge-in waits for the block's end, at most
    `effect_timeout`, and the next thought begins after it. Raises RuntimeError outside a thought: a gate for side
    effects fails closed."""
    return Gate(current_thought())


class Gate:
    def __init__(self, thought: Thought) -> None:
        self.thought = thought
        self.block: anyio.CancelScope | None = None
        self.outer: anyio.CancelScope | None = None  # the block that this one is inside of

    def __await__(self) -> Generator[Any, Any, None]:
        return self._wait().__await__()

    async def _wait(self) -> None:
        thought = self.thought
        if running_block.get() in thought.blocks:  # inside a block that has to stay whole
            return
        while thought.committed_at is None and thought.cut_at is None:
            await thought.changed.wait()
        if thought.cut_at is not None:
            await checkpoint()  # raises in the thought that is cut off, unless this is a task of somebody else's
            raise RuntimeError("the thought is void")

    async def __aenter__(self) -> None:
        await self._wait()
        self.block = anyio.CancelScope(shield=True)
        if self.thought.cut_at is not None:
            self.block.deadline = self.thought.cut_at + self.thought.agent.effect_timeout
        self.outer = running_block.get()
        running_block.set(self.block)
        self.block.__enter__()
        self.thought.blocks.append(self.block)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        assert self.block is not None
        running_block.set(self.outer)
        self.thought.blocks.remove(self.block)
        self.thought.changed.fire()
        cut_short = self.block.__exit__(kind, error, trace)
        if cut_short:
            await checkpoint()  # nobody takes it for whole
        return cut_short
