"""LiveKit: an agent's speech events as events, and its `stt_node` watched or guarded.

Rules of this file: it imports nothing of LiveKit, since a speech event is known by its `type` and never by its class
(F09). `watched` changes nothing of what passes; `guarded` hands on what the machine says, by livekit_guard.py. What a
hook raises is logged: raised, it would end the agent's hearing.

What the plugins send, and the events that it becomes:

    START_OF_SPEECH        TurnStart
    INTERIM_TRANSCRIPT     TurnUpdate; after an eager end, and with its text again, TurnResume (see below)
    PREFLIGHT_TRANSCRIPT   TurnEagerEnd
    FINAL_TRANSCRIPT       TurnEnd: it has the text, and an end is one event with its text (F29)
    END_OF_SPEECH          nothing, since it comes right after; TurnEnd with the last text where no FINAL_TRANSCRIPT
                           came: Flux's plugin sends none for a turn without words, Cartesia's none for a turn that had
                           no words yet when the socket dropped
    RECOGNITION_USAGE      nothing
    an STTError            ServerError: LiveKit emits these beside the stream, `stt.on("error", turns.feed)`

So it is for senders that say where turns end and send the whole text of a turn so far: Ink 2 and Flux, through their
plugins or LiveKit's gateway. With a sender that finalizes piece by piece, each piece is a turn.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Coroutine
from typing import Any, NoReturn, TypeVar, overload
from weakref import WeakKeyDictionary

import attrs

from inkturns.adapters.livekit_guard import STEPS, Guard, Session, Speech
from inkturns.adapters.livekit_limits import refuse_contradictions
from inkturns.adapters.livekit_reader import Reader, is_cancelled
from inkturns.errors import DecodeError
from inkturns.events import (
    Disconnected,
    Event,
    ServerError,
    TurnEagerEnd,
    TurnEnd,
    TurnResume,
    TurnStart,
    TurnUpdate,
    Unknown,
)
from inkturns.turns import Turns
from inkturns.wire import class_name

__all__ = ["LiveKit", "guarded", "watched"]

Item = TypeVar("Item")
Awaited = Coroutine[Any, Any, Item]

SPOKEN: dict[str, type[TurnUpdate | TurnEagerEnd | TurnEnd]] = {
    "interim_transcript": TurnUpdate,
    "preflight_transcript": TurnEagerEnd,
    "final_transcript": TurnEnd,
}

_log = logging.getLogger(__name__)
_guards: WeakKeyDictionary[Turns, Guard] = WeakKeyDictionary()


@attrs.define(eq=False)
class LiveKit:
    """The source for LiveKit's `SpeechEvent`s and `STTError`s; one per call.

    No event has a `request_id` or a `turn_id`: LiveKit does not tell the turn's, and it tells the connection's only
    from the first text on, which is later than the first turn's start."""

    _text: str | None = attrs.field(init=False, default=None)  # the open turn's; None: none is open
    _eager: bool = attrs.field(init=False, default=False)  # it had an eager end, and no resume since
    _request_id: str = attrs.field(init=False, default="")  # of the connection that its texts came by

    def events(self, frame: Any) -> tuple[Event, ...]:
        """The events of a speech event. Raises DecodeError, and nothing else, for any other object, for a speech event
        whose text is missing or not a str, and for text that is not valid UTF-8; it has changed nothing then (F10)."""
        try:
            kind = frame.type
            spoken = SPOKEN.get(kind)
            return self._unspoken(kind, frame) if spoken is None else self._spoken(spoken, frame)
        except DecodeError:
            raise
        except UnicodeError:
            reason = "text is not valid UTF-8"
        except Exception as error:  # of an object's own code, or for want of a field
            reason = f"speech event cannot be read: {class_name(error)}"
        raise DecodeError(reason) from None

    def _spoken(self, make: type[TurnUpdate | TurnEagerEnd | TurnEnd], frame: Any) -> tuple[Event, ...]:
        said = frame.alternatives[0]
        text, request_id = _text(said.text, "text"), frame.request_id
        is_new = request_id != self._request_id
        # CHOICE: the same text again, after an eager end, is a resume where it comes without `words`. Cartesia's plugin
        # gives no words for Ink 2, leaves unchanged updates out, and sends the last text again for turn.resume, which
        # has no text: so nothing is lost. Flux's plugin and the gateway give words, and send unchanged text at any
        # time, also between an eager end and its end. Taking that for a resume would throw away nearly every thought;
        # there the text tells, when it moves.
        again = self._eager and make is TurnUpdate and text == self._text and not is_new
        if again and getattr(said, "words", None) is None:
            self._eager = False
            return (TurnResume(),)
        cut = False
        if is_new:
            request_id = _text(request_id, "request_id")
            # A turn never spans connections. Flux's plugin goes on after a reconnection as if nothing had happened: it
            # swallows the next start, since for it the old turn is still being spoken (F34).
            cut = bool(request_id and self._request_id)  # it is set only while a turn is open
            if cut:
                self._over()
            self._request_id = request_id or self._request_id
        if make is TurnEnd:
            self._over()
        else:
            self._text, self._eager = text, self._eager or make is TurnEagerEnd
        return (Disconnected(), TurnStart(), make(text)) if cut else (make(text),)

    def _unspoken(self, kind: object, frame: Any) -> tuple[Event, ...]:
        match kind:
            case "start_of_speech":
                self._over()
                self._text = ""
                return (TurnStart(),)
            case "end_of_speech":
                text = self._text
                self._over()
                return () if text is None else (TurnEnd(transcript=text),)
            case "recognition_usage":
                return ()
            case "stt_error":
                code = getattr(frame.error, "status_code", None)
                http = code if type(code) is int and 100 <= code < 600 else None  # not -1, nor a WebSocket's close code
                title, message = class_name(frame.error), _text(str(frame.error), "error")
                return (ServerError(status_code=http, title=title, message=message),)
            case _:
                return (Unknown(kind=_text(kind, "type"), fields={}),)  # its other fields may not be JSON

    def _over(self) -> None:
        self._text, self._eager, self._request_id = None, False, ""


def _text(value: object, name: str) -> str:
    """The value as a plain str: LiveKit's may be of a subclass. Raises UnicodeError where UTF-8 cannot hold it."""
    if type(value) is str and value.isascii():
        return value
    if not isinstance(value, str):
        raise DecodeError(f"speech event's {name}: expected `str`, got `{class_name(value)}`")
    plain = str.__str__(value)
    plain.encode()
    return plain


@overload
def watched(node: AsyncIterable[Item], turns: Turns) -> AsyncGenerator[Item, None]: ...
@overload
def watched(node: Awaited[AsyncIterable[Item]], turns: Turns) -> Awaited[AsyncIterable[Item]]: ...
@overload
def watched(node: Awaited[None], turns: Turns) -> Awaited[None]: ...
@overload
def watched(node: None, turns: Turns) -> None: ...
def watched(node: object, turns: Turns) -> object:
    """Feeds `turns` everything that an agent's `stt_node` returns, each item before it goes on:

        def stt_node(self, audio, model_settings):
            return watched(super().stt_node(audio, model_settings), turns)

    `node` is what LiveKit allows there: an async iterable, a coroutine that gives one, or None. The same kind is
    returned, with the same items in the same order, each in the same step of the loop. Closing it closes `node`;
    cancellation and what `node` raises pass through. At the end, however it comes, `turns` is fed Disconnected: LiveKit
    asks for a new node after an error on which its plugin gives up, and when another agent takes over. (It keeps the
    stream over a hand-over only between agents with the default `stt_node`, so never with this one.)

    CHOICE: what a hook raises is logged as an error with its traceback, by the logger `inkturns.adapters.livekit`, and
    is not raised: it would end the agent's hearing for good."""
    return _through(node, lambda items: _passed_on(items, turns))


def _through(node: object, passed_on: Callable[[AsyncIterable[Speech]], AsyncIterable[Speech]]) -> object:
    if isinstance(node, Coroutine):
        return _awaited(node, passed_on)
    return passed_on(node) if isinstance(node, AsyncIterable) else node


async def _awaited(
    node: Awaited[object], passed_on: Callable[[AsyncIterable[Speech]], AsyncIterable[Speech]]
) -> object:
    return _through(await node, passed_on)


async def _passed_on(node: AsyncIterable[Item], turns: Turns) -> AsyncGenerator[Item, None]:
    items = aiter(node)
    try:
        async for item in items:
            _tell(turns, item)
            yield item
    except GeneratorExit:  # closed: `async for` does not close what it iterates over
        if (close := getattr(items, "aclose", None)) is not None:
            await close()
        raise
    finally:
        _tell(turns, Disconnected("the stt_node is over"))


def _tell(turns: Turns, item: object) -> None:
    try:
        turns.feed(item)
    except Exception:
        _log.exception("a hook raised; the speech goes on")


@overload
def guarded(node: AsyncIterable[Item], turns: Turns, session: Session = None) -> AsyncGenerator[Item, None]: ...
@overload
def guarded(
    node: Awaited[AsyncIterable[Item]], turns: Turns, session: Session = None
) -> Awaited[AsyncIterable[Item]]: ...
@overload
def guarded(node: Awaited[None], turns: Turns, session: Session = None) -> Awaited[None]: ...
@overload
def guarded(node: None, turns: Turns, session: Session = None) -> None: ...
def guarded(node: object, turns: Turns, session: Session = None) -> object:
    """Hands on what `turns` makes of an agent's `stt_node`, so that LiveKit hears lawful turns and the Policy decides:

        def stt_node(self, audio, model_settings):
            return guarded(super().stt_node(audio, model_settings), self.turns, self.session)

    `node` is what LiveKit allows there, as for `watched`. Use one Turns for the whole call, with `source=LiveKit()` or
    none; without a clock it is given the loop's time. With a lawful sender and the default Policy the same events go
    on, in the same order and the same step, except for repeats that say nothing new. The session must have
    `turn_detection="stt"`; with `session` given, ValueError names all of its options that contradict the Policy.

    With `session`, the machine is told when the agent speaks, and a resume without new words cancels the generation by
    `session.interrupt()`, where nothing is spoken or queued. LiveKit has no speech event for such a resume: without
    `session`, the Policy is used with `after_resume=AfterResume.KEEP`, and a recording says so.

    An exception of the node that is no APIError goes on as an APIConnectionError, upon which LiveKit opens a new node
    (F10); the turn in progress is abandoned as lost. What hooks raise is logged, as by `watched`.
    `inkturns/adapters/README.md` says what this mends of LiveKit and what it cannot."""
    try:
        guard = _guard_of(turns)
        if session is not None:
            refuse_contradictions(turns.machine.policy, session)
    except Exception:
        if isinstance(node, Coroutine):
            node.close()  # it is awaited by nobody
        raise
    if isinstance(node, Coroutine):
        node = _as_api_errors(node)
    return _through(node, lambda items: _handed_on(items, turns, guard, session))


def _guard_of(turns: Turns) -> Guard:
    """One guard a Turns: it knows what LiveKit has been told, which outlives a node."""
    if not isinstance(turns, Turns):
        raise TypeError(f"guarded: turns must be a Turns, as in Turns(Policy(max_thoughts=2)), got {turns!r}")
    if (guard := _guards.get(turns)) is None:
        source = turns.source
        if source is not None and not isinstance(source, LiveKit):
            raise TypeError(f"guarded: the source of turns must be LiveKit() or None, got {source!r}")
        _guards[turns] = guard = Guard(source or LiveKit(), turns.recorder)
        guard.watch(turns)
    return guard


async def _handed_on(
    node: AsyncIterable[Speech], turns: Turns, guard: Guard, session: Session
) -> AsyncGenerator[Any, None]:
    failure: BaseException | None = None
    is_over = False
    try:
        items = aiter(node)
    except Exception as error:
        _raise_as_api_error(error)
    reader = Reader(items)
    leave = guard.begin(turns, session, reader)
    try:
        while True:
            try:
                if guard.may_wait or reader.task is not None:
                    item = await guard.wait(turns, reader)
                else:
                    item = await anext(items)
            except StopAsyncIteration:
                break
            except asyncio.CancelledError as error:
                if is_cancelled():
                    raise
                failure = error
                break
            except Exception as error:
                failure = error
                break
            for event in guard.take(turns, item):
                if event is not STEPS:
                    yield event
                else:
                    await guard.step()
        is_over = True
        for event in guard.end(turns, reader, is_heard=True):
            yield event
        if failure is not None:
            _raise_as_api_error(failure)
    finally:
        leave()
        if not is_over:  # closed or cancelled: LiveKit hears no more
            try:
                for item in await reader.close():
                    if guard.node is reader:
                        guard.take(turns, item)
            finally:
                guard.end(turns, reader, is_heard=False)


async def _as_api_errors(node: Awaitable[object]) -> object:
    try:
        return await node
    except asyncio.CancelledError as failure:
        if is_cancelled():
            raise
        _raise_as_api_error(failure)
    except Exception as failure:
        _raise_as_api_error(failure)


def _raise_as_api_error(failure: BaseException) -> NoReturn:
    """LiveKit opens a new node after an APIError; after anything else it is deaf for the rest of the session (F10)."""
    from livekit.agents import APIConnectionError, APIError

    if isinstance(failure, APIError):
        raise failure
    raise APIConnectionError(f"the stt_node raised {type(failure).__name__}") from failure
