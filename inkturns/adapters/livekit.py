"""LiveKit: an agent's speech events to events, and its `stt_node` watched.

Rules of this file: it imports nothing of LiveKit, since a speech event is known by its `type` and never by its class
(F09); it reads what goes by and touches none of it; what a hook raises is logged, for an agent's ears are no place to
raise it.

What the plugins send, and what it is taken for:

    START_OF_SPEECH        TurnStart
    INTERIM_TRANSCRIPT     TurnUpdate; after an eager end, and with its text again, TurnResume (see below)
    PREFLIGHT_TRANSCRIPT   TurnEagerEnd
    FINAL_TRANSCRIPT       TurnEnd: it has the text, and an end is one event with its text (F29)
    END_OF_SPEECH          nothing, it comes right after; TurnEnd with the last text where no FINAL_TRANSCRIPT came:
                           Flux's plugin sends none for a turn without words, Cartesia's none for one that had none
                           yet when the socket dropped
    RECOGNITION_USAGE      nothing
    an STTError            ServerError: LiveKit emits these beside the stream, `stt.on("error", turns.feed)`

So it is for senders that say where turns end, and whose texts are a turn's so far: Ink 2 and Flux, by their plugins or
by LiveKit's gateway. One that finalizes piece by piece gives a turn a piece.
"""

import logging
from asyncio import CancelledError
from collections.abc import AsyncGenerator, AsyncIterable, Coroutine
from typing import Any, TypeVar, overload

import attrs

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
from inkturns.hooks import Turns
from inkturns.wire import _name

__all__ = ["LiveKit", "watched"]

Item = TypeVar("Item")

SPOKEN: dict[str, type[TurnUpdate | TurnEagerEnd | TurnEnd]] = {
    "interim_transcript": TurnUpdate,
    "preflight_transcript": TurnEagerEnd,
    "final_transcript": TurnEnd,
}

_log = logging.getLogger(__name__)


@attrs.define(eq=False)
class LiveKit:
    """A source: `Turns(source=LiveKit())` is fed `SpeechEvent`s, and `STTError`s. One per call.

    No event has a `request_id` or a `turn_id`: LiveKit tells no turn's, and a connection's only from its first text on,
    which is later than its first turn."""

    _text: str | None = attrs.field(init=False, default=None)  # the open turn's; None: none is open
    _eager: bool = attrs.field(init=False, default=False)  # it had an eager end, and no resume since
    _request_id: str = attrs.field(init=False, default="")  # of the connection that its texts came by

    def events(self, frame: Any) -> tuple[Event, ...]:
        """The events that one of LiveKit's says. Raises DecodeError, and nothing else, for what is none, for one whose
        first alternative or its text is missing or of another type, and for text that UTF-8 cannot hold; nothing is
        changed by it then (F10)."""
        try:
            kind = frame.type
            spoken = SPOKEN.get(kind)
            return self._unspoken(kind, frame) if spoken is None else self._spoken(spoken, frame)
        except DecodeError:
            raise
        except UnicodeError:
            reason = "a speech event's text is one that UTF-8 can hold"
        except Exception as error:  # of an object's own code, or for want of a field
            reason = f"no speech event: {_name(error)}"
        raise DecodeError(reason) from None

    def _spoken(self, make: type[TurnUpdate | TurnEagerEnd | TurnEnd], frame: Any) -> tuple[Event, ...]:
        said = frame.alternatives[0]
        text, request_id = _text(said.text, "text"), frame.request_id
        is_new = request_id != self._request_id
        # CHOICE: the same text again, after an eager end, is a resume where it comes without `words`. Cartesia's plugin
        # has none for Ink 2, passes unchanged updates over, and for turn.resume, which has no text, sends the last one
        # again: so nothing is lost. Flux's plugin, and the gateway, which give words, send unchanged text whenever they
        # like, also between an eager end and its end, and to take that for a resume would throw away nearly every
        # thought; there the text tells, when it moves.
        again = self._eager and make is TurnUpdate and text == self._text and not is_new
        if again and getattr(said, "words", None) is None:
            self._eager = False
            return (TurnResume(),)
        cut = False
        if is_new:
            request_id = _text(request_id, "request_id")
            # A turn never spans connections. Flux's plugin goes on after a reconnection as if nothing had been: the
            # next start is swallowed, since the old turn still counts as being spoken (F34).
            cut = bool(request_id and self._request_id)  # the latter only while a turn is open
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
                title, message = _name(frame.error), _text(str(frame.error), "error")
                return (ServerError(status_code=http, title=title, message=message),)
            case _:
                return (Unknown(kind=_text(kind, "type"), fields={}),)  # what else it has is no JSON

    def _over(self) -> None:
        self._text, self._eager, self._request_id = None, False, ""


def _text(value: object, name: str) -> str:
    """A plain str: LiveKit's own may be of a class of their own. Raises UnicodeError where UTF-8 cannot hold it."""
    if type(value) is str and value.isascii():
        return value
    if not isinstance(value, str):
        raise DecodeError(f"a speech event's {name}: expected `str`, got `{_name(value)}`")
    plain = str.__str__(value)
    plain.encode()
    return plain


@overload
def watched(node: AsyncIterable[Item], turns: Turns) -> AsyncGenerator[Item, None]: ...
@overload
def watched(
    node: Coroutine[Any, Any, AsyncIterable[Item]], turns: Turns
) -> Coroutine[Any, Any, AsyncIterable[Item]]: ...
@overload
def watched(node: Coroutine[Any, Any, None], turns: Turns) -> Coroutine[Any, Any, None]: ...
@overload
def watched(node: None, turns: Turns) -> None: ...
def watched(node: Any, turns: Turns) -> Any:
    """What an agent's `stt_node` returns, with `turns` fed all that goes by, each before it goes on:

        def stt_node(self, audio, model_settings):
            return watched(super().stt_node(audio, model_settings), turns)

    `node` is whatever LiveKit allows there: an async iterable, a coroutine that gives one, or None; the like is
    returned, and says the same things in the same order, in the same step of the loop. Closing it closes `node`;
    cancellation and what `node` raises go through. However it is over, `turns` is fed Disconnected then: LiveKit asks
    for a new node after an error that its plugin gives up on, and when another agent takes over. (It keeps its stream
    over a hand-over only between agents that have the default `stt_node`, so none that has this.)

    CHOICE: what a hook raises is logged, as an error with its traceback, by the logger `inkturns.adapters.livekit`, and
    goes no further: raised here it would end the agent's hearing, for good."""
    if isinstance(node, Coroutine):
        return _awaited(node, turns)
    if isinstance(node, AsyncIterable):
        return _passed_on(node, turns)
    return node


async def _awaited(node: Coroutine[Any, Any, Any], turns: Turns) -> Any:
    return watched(await node, turns)


async def _passed_on(node: AsyncIterable[Item], turns: Turns) -> AsyncGenerator[Item, None]:
    items = aiter(node)
    try:
        async for item in items:
            _tell(turns, item)
            yield item
    except GeneratorExit:  # closed: `async for` leaves what it iterates over open
        if (close := getattr(items, "aclose", None)) is not None:
            await close()
        raise
    finally:
        _tell(turns, Disconnected("the stt_node is over"))


def _tell(turns: Turns, item: object) -> None:
    try:
        turns.feed(item)
    except (Exception, CancelledError):  # the latter a hook's, of a future that it asked: `feed` awaits nothing
        _log.exception("a hook raised; the speech goes on")
