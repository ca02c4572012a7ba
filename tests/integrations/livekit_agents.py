"""A whole LiveKit agent in virtual time: its own session and pipeline, with an ear, a mind and a voice that are fakes.

The ear says what a test has it say; the mind answers with the user's words, and remembers what it was asked; the voice
speaks for two seconds, and knows what it was stopped in."""

import asyncio
import math
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, cast

import aiohttp
import anyio
import attrs
from livekit import rtc
from livekit.agents import DEFAULT_API_CONNECT_OPTIONS, Agent, AgentSession, APIConnectOptions, ModelSettings, llm, stt
from livekit.agents.stt import SpeechEvent
from livekit.agents.types import NOT_GIVEN, NotGivenOr
from livekit.agents.voice.io import AudioInput, AudioOutput, AudioOutputCapabilities
from livekit.plugins import cartesia

from inkturns import Turns
from inkturns.adapters.livekit import guarded
from inkturns.testing import virtual_time
from inkturns.testing.emulator import InkEmulator, Script

RATE = 16000
SPEAKS = 2.0  # seconds a reply
AGREED: dict[str, Any] = {  # what `guarded` asks of a session
    "turn_detection": "stt",
    "endpointing": {"min_delay": 0.0},
    "preemptive_generation": {"max_speech_duration": 3600.0},
}
Said = list[tuple[float, SpeechEvent | Exception]]


class Ear(stt.STT[Any]):
    """It hears what it is told to, each after so many seconds, a list a stream; an exception ends its stream."""

    def __init__(self, *said: Said) -> None:
        super().__init__(capabilities=stt.STTCapabilities(streaming=True, interim_results=True))
        self.said = list(said)

    async def _recognize_impl(self, *_: Any, **__: Any) -> SpeechEvent:
        raise NotImplementedError

    def stream(
        self,
        *,
        language: NotGivenOr[str] = NOT_GIVEN,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
    ) -> stt.RecognizeStream:
        return _Hearing(stt=self, conn_options=conn_options)


class _Hearing(stt.RecognizeStream):
    async def _run(self) -> None:
        ear = cast(Ear, self._stt)
        for gap, event in ear.said.pop(0) if ear.said else []:
            if gap:
                await asyncio.sleep(gap)
            if isinstance(event, Exception):
                raise event
            self._event_ch.send_nowait(event)
        async for _ in self._input_ch:
            pass


class Mind(llm.LLM[Any]):
    """It answers what it is asked with the same words, and remembers when it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[float, str | None]] = []

    def chat(self, *, chat_ctx: llm.ChatContext, tools: Any = None, **options: Any) -> llm.LLMStream:
        words = cast(llm.ChatMessage, chat_ctx.items[-1]).text_content
        self.asked.append((round(asyncio.get_running_loop().time(), 3), words))
        return Thinking(self, chat_ctx=chat_ctx, tools=tools or [], conn_options=DEFAULT_API_CONNECT_OPTIONS)


class Thinking(llm.LLMStream):
    async def _run(self) -> None:
        await asyncio.sleep(0.1)
        words = cast(llm.ChatMessage, self._chat_ctx.items[-1]).text_content
        self._event_ch.send_nowait(
            llm.ChatChunk(id="1", delta=llm.ChoiceDelta(role="assistant", content=f"You say: {words}"))
        )


class Silence(AudioInput):
    def __init__(self) -> None:
        super().__init__(label="silence")

    async def __anext__(self) -> rtc.AudioFrame:
        await asyncio.get_running_loop().create_future()
        raise StopAsyncIteration


class Speaker(AudioOutput):
    """It plays in real time, which is virtual."""

    def __init__(self) -> None:
        super().__init__(label="speaker", capabilities=AudioOutputCapabilities(pause=False), sample_rate=RATE)
        self.stopped: list[float] = []  # how much was heard of what was stopped
        self._began = self._length = 0.0
        self._over: asyncio.TimerHandle | None = None

    async def capture_frame(self, frame: rtc.AudioFrame) -> None:
        await super().capture_frame(frame)
        if not self._length:
            self._began = asyncio.get_running_loop().time()
            self.on_playback_started(created_at=time.time())
        self._length += frame.duration

    def flush(self) -> None:
        super().flush()
        if self._length and self._over is None:
            loop = asyncio.get_running_loop()
            self._over = loop.call_later(self._began + self._length - loop.time(), self._finish, False)

    def clear_buffer(self) -> None:
        if self._length:
            self.stopped.append(round(asyncio.get_running_loop().time() - self._began, 3))
            self._finish(True)

    def _finish(self, interrupted: bool) -> None:
        if self._over is not None:
            self._over.cancel()
        played = min(self._length, asyncio.get_running_loop().time() - self._began)
        self._over, self._length = None, 0.0
        self.on_playback_finished(playback_position=played, interrupted=interrupted)


Node = Callable[[Agent, Any], Any]  # (agent, the default node) -> the node


class Receptionist(Agent):
    def __init__(self, node: Node) -> None:
        super().__init__(instructions="Repeat.")
        self.node = node

    def stt_node(self, audio: AsyncIterable[rtc.AudioFrame], model_settings: ModelSettings) -> Any:
        return self.node(self, super().stt_node(audio, model_settings))

    async def tts_node(self, text: AsyncIterable[str], model_settings: ModelSettings) -> AsyncIterator[rtc.AudioFrame]:
        async for _ in text:
            pass
        samples = int(RATE * SPEAKS)
        yield rtc.AudioFrame(bytes(2 * samples), RATE, 1, samples)


@attrs.define
class Seen:
    """What the world saw of a session."""

    asked: list[tuple[float, str | None]]  # the mind
    said: list[tuple[float, str, str]] = attrs.field(factory=list)  # what stands in the conversation: when, who, what
    states: list[tuple[float, str, str]] = attrs.field(factory=list)
    heard: list[tuple[float, str, bool]] = attrs.field(factory=list)  # user_input_transcribed
    stopped: list[float] = attrs.field(factory=list)
    left: list[str] = attrs.field(factory=list)  # tasks that were still there at the end

    @property
    def questions(self) -> list[str | None]:
        return [words for _, words in self.asked]

    @property
    def answers(self) -> list[str]:
        return [words for _, who, words in self.said if who == "assistant"]


def unguarded(agent: Agent, node: Any) -> Any:
    return node


def by(turns: Turns, *, session: bool = True) -> Node:
    return lambda agent, node: guarded(node, turns, agent.session if session else None)


async def session_with(
    ear: stt.STT[Any], node: Node, seen: Seen, mind: Mind, seconds: float, handling: Any, audio: AudioInput
) -> None:
    """A session of so many seconds; `seen` is filled."""
    loop = asyncio.get_running_loop()
    session: AgentSession[None] = AgentSession(
        stt=ear, llm=mind, vad=None, turn_handling=handling, aec_warmup_duration=None, user_away_timeout=None
    )

    def at() -> float:
        return round(loop.time(), 3)

    def heard(event: Any) -> None:
        seen.heard.append((at(), event.transcript, event.is_final))

    def changed(event: Any) -> None:
        seen.states.append((at(), event.type.split("_")[0], str(event.new_state)))

    def added(event: Any) -> None:
        if isinstance(event.item, llm.ChatMessage):
            seen.said.append((at(), event.item.role, event.item.text_content or ""))

    session.on("user_input_transcribed", heard)
    session.on("user_state_changed", changed)
    session.on("agent_state_changed", changed)
    session.on("conversation_item_added", added)
    speaker = Speaker()
    session.input.audio, session.output.audio = audio, speaker
    await session.start(Receptionist(node))
    await asyncio.sleep(seconds)
    await session.aclose()
    seen.stopped = speaker.stopped


def called(*said: Said, node: Node = unguarded, seconds: float = 8.0, handling: dict[str, Any] = AGREED) -> Seen:
    """A session whose ear says this, as the world sees it."""
    mind = Mind()
    seen = Seen(mind.asked)

    async def call() -> None:
        before = asyncio.all_tasks()
        await session_with(Ear(*said), node, seen, mind, seconds, handling, Silence())
        for _ in range(10):
            await asyncio.sleep(0)
        seen.left = [task.get_name() for task in asyncio.all_tasks() - before]

    virtual_time.run(call)
    return seen


class _Patient(virtual_time.VirtualLoop):
    patience = 0.0005


class _Quiet(AudioInput):
    """Silence in real time, which is virtual; the emulator counts it."""

    def __init__(self, step: float = 0.2) -> None:
        super().__init__(label="quiet")
        self.step = step

    async def __anext__(self) -> rtc.AudioFrame:
        await asyncio.sleep(self.step)
        samples = int(RATE * self.step)
        return rtc.AudioFrame(bytes(2 * samples), RATE, 1, samples)


Server = Callable[[], AbstractAsyncContextManager[Any]]  # what it gives, the ear is made with


def called_over_a_socket(
    server: Server, ear: Callable[[Any, aiohttp.ClientSession], stt.STT[Any]], node: Node = unguarded, *, seconds: float
) -> Seen:
    """A session with the real plugin of a speech service, connected to this server."""
    mind = Mind()
    seen = Seen(mind.asked)

    async def call() -> None:
        before = asyncio.all_tasks()
        async with server() as listening, aiohttp.ClientSession() as http:
            await session_with(ear(listening, http), node, seen, mind, seconds, AGREED, _Quiet())
        for _ in range(10):
            await asyncio.sleep(0)
        seen.left = [task.get_name() for task in asyncio.all_tasks() - before]

    anyio.run(call, backend_options={"loop_factory": _Patient})
    return seen


def called_by_ink(*scripts: Script, node: Node = unguarded, seconds: float | None = None) -> Seen:
    """With Cartesia's plugin, connected to the emulator, a script a connection. The emulator's clock is the sound that
    it is sent, so that equal scripts give equal sessions."""

    def ear(emulator: InkEmulator, http: aiohttp.ClientSession) -> stt.STT[Any]:
        base = emulator.base_url.replace("ws://", "http://")
        return cartesia.STT(api_key="none", base_url=base, http_session=http, audio_chunk_duration_ms=200)

    def server() -> InkEmulator:
        return InkEmulator(scripts, speed=math.inf, idle_timeout=None)

    seconds = sum(script.seconds for script in scripts) + 4.0 if seconds is None else seconds
    return called_over_a_socket(server, ear, node, seconds=seconds)
