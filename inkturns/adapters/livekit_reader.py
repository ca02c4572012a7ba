"""LiveKit: a node's items, each when it is asked for.

Rules of this file: it knows no turns. A node that somebody may have to stop waiting for is read in one task, from its
first item to its end, and closed there: a timeout or a task group that it enters in one step belongs to the task.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import attrs

__all__ = ["Reader", "is_cancelled"]


@attrs.define(eq=False)
class Reader:
    """The items of a node: by `anext(reader.items)`, or, from the first `ask` on, in a task."""

    items: AsyncIterator[Any]
    ahead: asyncio.Future[Any] | None = attrs.field(default=None, init=False)  # the item that was asked for
    task: asyncio.Task[None] | None = attrs.field(default=None, init=False)
    _asked: asyncio.Event = attrs.field(factory=asyncio.Event, init=False)

    def ask(self) -> asyncio.Future[Any]:
        """The next item, the same one until it is taken."""
        if self.ahead is None:
            self.ahead = asyncio.get_running_loop().create_future()
            self._asked.set()
            if self.task is None:
                self.task = asyncio.ensure_future(self._read())
        return self.ahead

    def take(self) -> Any:
        """The item that has come. Raises what the node raised: StopAsyncIteration at its end."""
        assert self.ahead is not None
        ahead, self.ahead = self.ahead, None
        return ahead.result()

    async def close(self) -> tuple[Any, ...]:
        """Cancels the node where it is waited for, and closes it. Returns the item, if any, that came and was not
        taken: words may be in it."""
        if self.task is None:
            await self._close()
        else:
            self.task.cancel()
            await asyncio.wait({self.task})
            self.task.result()
        ahead = self.ahead
        if ahead is None or not ahead.done() or ahead.exception() is not None:
            return ()
        return (ahead.result(),)

    async def _read(self) -> None:
        while True:
            try:
                await self._asked.wait()
                self._asked.clear()
                item = await anext(self.items)
                assert self.ahead is not None
                self.ahead.set_result(item)
                _raise_if_cancelled()  # where the node has not heeded it
            except asyncio.CancelledError as error:
                if is_cancelled():
                    break
                self._fail(error)
                return
            except BaseException as error:
                self._fail(error)
                return
        await self._close()

    def _fail(self, error: BaseException) -> None:
        """Whatever it is: who waits for the item would wait for ever."""
        assert self.ahead is not None
        if isinstance(error, StopIteration):  # the only one that no future takes
            error = RuntimeError("the stt_node raised StopIteration")
        self.ahead.set_exception(error)

    async def _close(self) -> None:
        if (close := getattr(self.items, "aclose", None)) is not None:
            await close()  # nobody else does


def is_cancelled() -> bool:
    """Whether somebody cancels the current task. A CancelledError without that is a failure (F55)."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _raise_if_cancelled() -> None:
    if is_cancelled():
        raise asyncio.CancelledError
