"""Pipecat: the frames of a `TurnGuard` on their way to the user aggregator, in an order that Pipecat keeps.

Rules of this file:
- Pipecat's processors take system frames before queued ones. A start that follows an end in one step, or a cancel that
  follows an eager end, arrives first, and the user hears both replies (F01, F24, F29). Such a frame waits until the
  aggregator has processed what was sent before it, and the model has begun what the aggregator asked of it. What comes
  behind it waits too.
- Where nothing is on its way a frame goes on in the step in which it came.
- An interruption drops what waits in a processor's queue, and the user's words with it: from the application, from a
  voice, from a turn's start. What leaves here with words is marked as Pipecat's `interruptible=False`.
- Nothing sleeps. PATIENCE ends the wait for a frame that never arrives because another processor keeps it.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from loguru import logger
from pipecat.frames.frames import (
    EagerTranscriptionFrame,
    Frame,
    InterruptionFrame,
    LLMContextFrame,
    LLMMessagesAppendFrame,
    ProposedUserStoppedSpeakingFrame,
    TranscriptionFrame,
)
from pipecat.processors.aggregators.llm_response_universal import LLMUserAggregator
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.services.llm_service import LLMService
from pipecat.turns.user_turn_processor import UserTurnProcessor

__all__ = ["PATIENCE", "Outbox"]

PATIENCE = 0.5  # seconds; Pipecat's ExternalUserTurnStopStrategy waits as long for a transcription after its stop
BOUND = 256  # frames; then the service waits

FOLLOWED = (EagerTranscriptionFrame, TranscriptionFrame, ProposedUserStoppedSpeakingFrame, LLMMessagesAppendFrame)


class Outbox:
    """What a processor sends downstream, and how far it has got.

    owner         the processor
    on_processed  is told the id of each frame that the aggregator has processed, in that step
    on_asked      is told when the aggregator asks the model"""

    def __init__(
        self, owner: FrameProcessor, *, on_processed: Callable[[int], None], on_asked: Callable[[], None]
    ) -> None:
        self.follows = False  # whether an aggregator was found
        self.is_empty = True  # nothing waits here
        self._owner = owner
        self._on_processed = on_processed
        self._on_asked = on_asked
        self._links: list[tuple[FrameProcessor, str, Any]] = []
        self._pending: dict[int, float] = {}  # frames by id that have not been processed, and when they were sent
        self._processed = asyncio.Event()
        self._waiting: deque[tuple[Frame, bool]] = deque()
        self._has_room = asyncio.Event()
        self._draining: asyncio.Task[None] | None = None

    def look_downstream(self) -> list[FrameProcessor]:
        """Finds the processor that takes the turns, and the models behind it; returns what stands before it. Pipecat
        calls the handlers as plain functions, in the step in which the frame is processed."""
        pipeline = self._owner.pipeline_worker.pipeline
        behind = [one for holder in _holders(self._owner, pipeline) for one in _behind(holder)]
        takers = [one for one in behind if isinstance(one, LLMUserAggregator | UserTurnProcessor)]
        if not takers:
            return behind
        self.follows = True
        self._link(takers[0], "on_after_process_frame", self._has_processed)
        models = [one for one in behind if isinstance(one, LLMService)]
        for aggregator in takers if models else ():
            self._link(aggregator, "on_before_push_frame", self._asks)
        for model in models:
            self._link(model, "on_before_process_frame", self._has_begun)
        return behind[: behind.index(takers[0])]

    def _link(self, processor: FrameProcessor, name: str, handler: Any) -> None:
        processor.add_event_handler(name, handler)
        self._links.append((processor, name, handler))

    def unlink(self) -> None:
        for processor, name, handler in self._links:
            processor.remove_event_handler(name, handler)
        self._links.clear()

    def _has_processed(self, taker: object, frame: Frame) -> None:
        if frame.id in self._pending:
            self._settle(frame.id)
            self._on_processed(frame.id)

    def _asks(self, aggregator: object, frame: Frame) -> None:
        if isinstance(frame, LLMContextFrame):
            self._pending[frame.id] = asyncio.get_running_loop().time()
            self._on_asked()

    def _has_begun(self, model: object, frame: Frame) -> None:
        if isinstance(frame, LLMContextFrame) and frame.id in self._pending:
            self._settle(frame.id)

    def _settle(self, frame_id: int) -> None:
        del self._pending[frame_id]
        if not self._pending:
            self._processed.set()

    def is_behind(self) -> bool:
        """Whether the pipeline has yet to process something that it was sent within PATIENCE."""
        if self._pending:
            oldest = asyncio.get_running_loop().time() - PATIENCE
            self._pending = {one: sent for one, sent in self._pending.items() if sent > oldest}
        return bool(self._pending)

    async def room(self) -> None:
        """Waits until it is no longer full. `send` does not wait for that: an answer of the machine's may be several
        frames, and what another task sends must not come between them."""
        while len(self._waiting) >= BOUND:
            self._has_room.clear()
            await self._has_room.wait()

    async def send(self, frame: Frame, waits: bool = False) -> None:
        """Hands a frame on: at once; with `waits` only after everything before it has been processed."""
        if self.is_empty and not (waits and self._pending and self.is_behind()):
            await self._hand_on(frame)
            return
        self._waiting.append((frame, waits))
        if self.is_empty:
            self.is_empty = False
            self._draining = self._owner.create_task(self._drain())

    async def _drain(self) -> None:
        try:
            while self._waiting:
                frame, waits = self._waiting.popleft()
                self._has_room.set()
                if waits and self.is_behind():
                    self._processed.clear()
                    try:
                        await asyncio.wait_for(self._processed.wait(), PATIENCE)
                    except TimeoutError:
                        self._pending.clear()
                try:
                    await self._hand_on(frame)
                except Exception as error:  # the frames behind it still go
                    logger.opt(exception=error).error(f"{self._owner}: {frame.name} could not be handed on")
        finally:
            self._draining, self.is_empty = None, True

    async def _hand_on(self, frame: Frame) -> None:
        if isinstance(frame, InterruptionFrame):
            await self._owner.broadcast_interruption()
            return
        if self.follows and isinstance(frame, FOLLOWED):
            frame.interruptible = False
            self._pending[frame.id] = asyncio.get_running_loop().time()
        await self._owner.push_frame(frame)

    async def close(self) -> None:
        draining, self._draining = self._draining, None
        if draining is not None:
            await self._owner.cancel_task(draining)
        self._waiting.clear()
        self.is_empty = True
        self._has_room.set()


def _holders(processor: FrameProcessor, within: FrameProcessor) -> list[FrameProcessor]:
    """The processor, and what holds it (pipelines, the branches of a parallel one), the innermost first."""
    if within is processor:
        return [processor]
    for one in within.processors:
        if holders := _holders(processor, one):
            return [*holders, within]
    return []


def _behind(processor: FrameProcessor) -> Iterator[FrameProcessor]:
    """The processors behind this one, those inside pipelines too."""
    following = processor.next
    while following is not None:
        waiting = [following]
        while waiting:
            one = waiting.pop(0)
            yield one
            waiting[:0] = one.processors
        following = following.next
