"""Thought: one attempt at a reply; Reply: a thought that is spoken; committed(): what waits for its commit.

Rules of this file:
- A thought that is cut gives nothing from that step of the loop on, and a reply that is cut gets nothing.
- Every change wakes whoever waits, and they look again.
- No cancel scope of ours is open between two items of a stream: the stream may have one of its own open there.
"""

import inspect
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Mapping
from contextvars import ContextVar
from types import AsyncGeneratorType, TracebackType
from typing import Any, Generic, Self, TypeVar

from anyio.lowlevel import checkpoint

from inkturns.actions import CancelReason, Turn
from inkturns.history import History, Spoken
from inkturns.outcomes import ReplyOutcome, Usage
from inkturns.tasks import Job, Jobs

__all__ = ["Gate", "Reply", "Speech", "Thought", "committed", "current_thought"]

Item = TypeVar("Item")
running_thought: ContextVar["Thought[Any] | None"] = ContextVar("inkturns_thought", default=None)
running_reply: ContextVar["Reply | None"] = ContextVar("inkturns_reply", default=None)
running_block: ContextVar["Gate | None"] = ContextVar("inkturns_block", default=None)


class Thought(Job, Generic[Item]):
    """One attempt at a reply: speculative until its turn ends. `async for` takes its items as they are made, once each;
    `await` takes all that are left, as a list, or the value, where `think` made no stream. Either may be cancelled and
    taken up again. An error of `think` is raised where its items end."""

    __slots__ = (
        *("_all", "_buffer_size", "_is_full", "_is_stream", "_items", "_jobs", "_notes_when", "_wants_all", "began"),
        *("committed_at", "error", "finished", "first_item", "made", "notes", "number", "over", "reason", "reply"),
        *("speculative", "spoken", "turn", "used"),
    )

    def __init__(
        self,
        jobs: Jobs,
        turn: Turn,
        number: int,
        *,
        speculative: bool,
        spoken: Spoken,
        buffer_size: int,
        notes_when: "Callable[[Thought[Any], str], None] | None",
    ) -> None:
        super().__init__(jobs, f"thought {number} of turn {turn.number}")
        self.turn = turn
        self.number = number
        self.speculative = speculative
        self.spoken = spoken
        self.committed_at: float | None = None
        self.began: float | None = None
        self.first_item: float | None = None
        self.finished: float | None = None
        self.made = 0
        self.notes: dict[str, object] = {}
        self.used: Usage | None = None
        self.error: Exception | None = None
        self.reason: CancelReason | None = None
        self.reply: Reply | None = None
        self.over = False  # no more items come
        self._jobs = jobs
        self._buffer_size = buffer_size
        self._notes_when = notes_when
        self._items: deque[Item] = deque()
        self._is_stream = False
        self._is_full = False  # its stream waits for room
        self._wants_all = False  # somebody waits for all of it
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
        """Seconds of the head start that its first item needed: what thinking ahead really gained. 0.0 where nothing
        was gained; None before both are known."""
        if self.head_start is None or self.first_item is None or self.began is None:
            return None
        return min(self.head_start, self.first_item - self.began)

    def note(self, **facts: object) -> None:
        """Keeps facts with the thought, the model's name say. They come back in its Settled; the latest counts."""
        self.notes |= facts

    def usage(
        self, *, input_tokens: int = 0, output_tokens: int = 0, cached_tokens: int = 0, cost: float = 0.0
    ) -> None:
        """Adds what a model call used to the thought's sum, which comes back in its Settled."""
        before = self.used or Usage()
        self.used = Usage(
            input_tokens=before.input_tokens + input_tokens,
            output_tokens=before.output_tokens + output_tokens,
            cached_tokens=before.cached_tokens + cached_tokens,
            cost=before.cost + cost,
        )

    def record(self, message: Mapping[str, object]) -> None:
        """Puts a message into the history, where the reply is now: the call of a tool, its result (F46). It is dropped
        with a cancelled thought, and stays where the turn was committed, though the reply is interrupted. Raises
        TypeError where the message is no mapping."""
        self.spoken.record(message)

    def heard(self, text: str) -> None:
        """For `respond`: how far the reply was heard, where that is less than what was taken from the thought. The
        reply is audible then. Raises RuntimeError before the turn is committed."""
        self._committed("heard").hears(text)

    def sounding(self) -> None:
        """For `respond`: the reply is audible from now on. Raises RuntimeError before the turn is committed."""
        self._committed("audible").sounds()

    def _committed(self, what: str) -> "Reply":
        if self.reply is None:
            raise RuntimeError(f"a thought is not {what} before its turn is committed; call this in `respond`")
        return self.reply

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        while True:
            reply = self.reply
            if reply is None or reply.cut_at is not None or reply.gone:
                await checkpoint()  # raises in the reply that is cut, unless it has shielded itself
                raise StopAsyncIteration
            if self._items:
                if self._is_full:
                    self.changed.fire()
                item = self._items.popleft()
                if reply.takes(item):
                    return item
            elif not self.over:
                await self.changed.wait()
            elif self.error is not None:
                raise self.error
            else:
                raise StopAsyncIteration

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._value().__await__()

    async def _value(self) -> Any:
        self._wants_all = True
        self.changed.fire()
        try:
            while not (self._is_deaf() or self.over):
                await self.changed.wait()
        finally:
            self._wants_all = False
        reply, items = self.reply, list[Item]()
        while reply is not None and self._items and self.error is None and not self._is_deaf():
            items.append(self._items.popleft())
            reply.takes(items[-1])
        if self._is_deaf():
            await checkpoint()
            raise RuntimeError("the reply was interrupted")
        if self.error is not None:
            raise self.error
        if items:
            self._all = items if self._is_stream else items[0]
        return [] if self._is_stream and self._all is None else self._all

    def _is_deaf(self) -> bool:
        return self.reply is None or self.reply.gone or self.reply.cut_at is not None

    # -- what the agent does with it

    def begins(self) -> None:
        """Its task has begun."""
        self.began = self._jobs.now()
        if self._notes_when is not None:
            self._notes_when(self, "began")

    async def make(self, result: Any) -> None:
        """Makes its items of what `think` returned: an awaitable is awaited, a stream runs ahead, anything else is the
        value. Raises TypeError for a value that was meant to be something else (F58)."""
        if type(result) is not AsyncGeneratorType and inspect.isawaitable(result):
            result = await result
        if hasattr(result, "__aiter__"):
            self._is_stream = True
            if not await self._run_ahead(result.__aiter__()):
                return
        else:
            check_value(result)
            self._put(result)
        self.finished = self._jobs.now()
        if self._notes_when is not None:
            self._notes_when(self, "finished")

    def is_value(self, value: Item) -> None:
        """Makes it one value, without a task."""
        self.began = self.first_item = self.finished = self._jobs.now()
        self.made, self.over = 1, True
        self._items.append(value)

    def _put(self, item: Item) -> None:
        self.made += 1
        if self.first_item is None:
            self.first_item = self._jobs.now()
            if self._notes_when is not None:
                self._notes_when(self, "first")
        if self.cut_at is None:
            self._items.append(item)
            self.changed.fire()

    async def _run_ahead(self, stream: AsyncIterator[Item]) -> bool:
        """Whether the stream came to its end. One task iterates and closes it. An error that is raised in the wait for
        room belongs to the stream (a timeout around its `yield`, say), and is thrown in there."""
        thrown: BaseException | None = None
        throw = getattr(stream, "athrow", None)
        try:
            while self.cut_at is None or thrown is not None or self.has_block:
                try:
                    item = await (anext(stream) if thrown is None or throw is None else throw(thrown))
                except StopAsyncIteration:
                    return True
                thrown = None
                self._put(item)
                if len(self._items) < self._buffer_size:
                    continue
                try:
                    while len(self._items) >= self._buffer_size and self.cut_at is None and not self._wants_all:
                        self._is_full = True
                        await self.changed.wait()
                except BaseException as error:
                    if throw is None:
                        raise
                    thrown = error
                finally:
                    self._is_full = False
            return False
        finally:
            close = getattr(stream, "aclose", None)
            if close is not None:
                await close()

    def belongs_to(self, jobs: Jobs) -> bool:
        return self._jobs is jobs

    def begins_block(self) -> None:
        self._jobs.begins_block(self)

    def ends_block(self) -> None:
        self._jobs.ends_block(self)


def check_value(value: object) -> None:
    """Raises TypeError for a value that cannot be what was meant as a reply (F58)."""
    if inspect.isgenerator(value):
        raise TypeError(f"a reply must not be a generator, got {value!r}; write `async def` and `yield` in it")
    if inspect.iscoroutine(value):
        value.close()
        raise TypeError(f"a reply must not be a coroutine, got {value!r}; await it inside")
    if inspect.iscoroutinefunction(value) or inspect.isasyncgenfunction(value):
        raise TypeError(f"a reply must not be an async function, got {value!r}; call it")
    if inspect.isroutine(value):
        raise TypeError(f"a reply must not be a function, got {value!r}; call it")


class Reply(Job):
    """A committed thought, or what the application says, being spoken."""

    __slots__ = (
        *("_history", "_is_told", "_jobs", "_sounds", "_text_of", "_words_of", "first_item", "over_at"),
        *("outcome", "sounded_at", "source", "spoken", "thought", "turn"),
    )

    def __init__(
        self,
        jobs: Jobs,
        thought: Thought[Any],
        history: History,
        *,
        is_told: bool,
        text_of: Callable[[Any], str] | None,
        words_of: Callable[[Any], str],
        sounds: "Callable[[Reply], None]",
    ) -> None:
        turn = thought.turn
        super().__init__(jobs, f"reply to turn {turn.number}" if turn.number else "reply that the application began")
        self.turn = turn
        self.thought = thought  # until it is gone
        self.spoken = thought.spoken
        self.source: Any = None  # what `say` was given, where it is no value
        self.first_item: float | None = None
        self.sounded_at: float | None = None
        self.over_at: float | None = None
        self.outcome: ReplyOutcome | None = None
        self._jobs = jobs
        self._history = history
        self._is_told = is_told  # `respond` says when it is audible
        self._text_of = text_of
        self._words_of = words_of
        self._sounds = sounds

    def takes(self, item: object) -> bool:
        """`respond` takes an item. False where it must not get it: reading its words has interrupted the reply."""
        text = item if type(item) is str and self._text_of is None else self._words_of(item)
        if self.cut_at is not None:
            return False
        if self.first_item is None:
            self.first_item = self._jobs.now()
        if text:
            self.spoken.took(text)
        if self.sounded_at is None and not self._is_told:
            self.sounds()
        return True

    def sounds(self) -> None:
        """It is audible. After a cut this comes too late, and changes nothing."""
        if self.sounded_at is not None or self.cut_at is not None or self.gone:
            return
        self._sounds(self)  # first: it raises in another thread
        self.sounded_at = self._jobs.now()
        self.spoken.sounds()
        self._history.commit(self.spoken)

    def hears(self, text: str) -> None:
        """So far it was heard. Counts after a cut too, when `respond` cleans up."""
        self.spoken.heard(text)
        if text:
            self.sounds()
            self._history.commit(self.spoken)

    def closes_source(self) -> None:
        """Closes a coroutine, which warns where it is never awaited. Closing one that has ended does nothing."""
        if inspect.iscoroutine(self.source):
            self.source.close()

    def is_awaited_in_vain(self) -> bool:
        """Whether this code runs inside the `respond` that has to end before this reply does."""
        speaking = running_reply.get()
        if speaking is None or speaking._jobs is not self._jobs or speaking.gone or speaking.cut_at is not None:
            return False
        return speaking is self or not self.begun


class Speech:
    """What `say` returns. `await` it for its ReplyOutcome, as often as needed; cancelling the wait stops nothing.
    Awaited inside the `respond` behind which it waits it raises RuntimeError."""

    __slots__ = ("_reply",)

    def __init__(self, reply: Reply) -> None:
        self._reply = reply

    @property
    def outcome(self) -> ReplyOutcome | None:
        """None before it is over."""
        return self._reply.outcome

    def __await__(self) -> Generator[Any, Any, ReplyOutcome]:
        return self._over().__await__()

    async def _over(self) -> ReplyOutcome:
        reply = self._reply
        if reply.outcome is None and reply.is_awaited_in_vain():
            raise RuntimeError("a `say` that waits for this `respond` to end cannot be awaited inside it")
        while reply.outcome is None:
            await reply.changed.wait()
        return reply.outcome


# -- what waits for the commit


def current_thought() -> Thought[Any]:
    """The thought that this code runs in, however deep: of the innermost agent. Raises RuntimeError outside one."""
    thought = running_thought.get()
    if thought is None:
        raise RuntimeError("outside a thought; call this in `think`, or in what it calls")
    return thought


def is_inside_a_thought_of(jobs: Jobs) -> bool:
    """Whether this code runs inside a thought that is one of these jobs, and is not gone."""
    thought = running_thought.get()
    return thought is not None and thought.belongs_to(jobs) and not thought.gone


def committed() -> "Gate":
    """`await committed()`, inside a thought, waits until its turn is committed, or is cancelled with it (F23, F33).
    `async with committed():` besides keeps its block whole: a barge-in waits for the block's end, at most
    `committed_block_timeout`, and the next thought begins after it. A cancellation from elsewhere, a timeout around the
    block say, breaks it. Raises RuntimeError outside a thought: a gate for side effects fails closed."""
    return Gate(current_thought())


class Gate:
    __slots__ = ("_open", "_outer", "_thought")

    def __init__(self, thought: Thought[Any]) -> None:
        self._thought = thought
        self._open = 0  # blocks: several tasks may use one gate
        self._outer: Gate | None = None  # the block that this one is inside of

    def __await__(self) -> Generator[Any, Any, None]:
        return self._wait().__await__()

    async def _wait(self) -> None:
        thought, block = self._thought, running_block.get()
        if block is not None and block.is_open_for(thought):  # inside a block that has to stay whole
            return
        while thought.committed_at is None and thought.cut_at is None and thought.reason is None:
            await thought.changed.wait()
        if thought.cut_at is not None or thought.reason is not None:
            await checkpoint()  # raises in the thought that is cut, unless this is another task
            raise RuntimeError("the thought is cancelled")

    def is_open_for(self, thought: Thought[Any]) -> bool:
        return self._thought is thought and self._open > 0

    async def __aenter__(self) -> None:
        await self._wait()
        self._outer = running_block.get()
        running_block.set(self)
        self._open += 1
        self._thought.begins_block()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        running_block.set(self._outer)
        self._open -= 1
        self._thought.ends_block()
        if error is None and self._thought.cut_at is not None and not self._thought.has_block:
            await checkpoint()  # the cut, which the block has withheld
