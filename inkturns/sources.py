"""Sources: whatever reads another sender's frames as events.

Rules of this file: a source is the user's code and reads what came over the wire, so its events are checked before the
machine sees them.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Protocol

import msgspec

from inkturns.errors import DecodeError
from inkturns.events import FROM_APPLICATION, FROM_SERVER, Event, TurnEagerEnd, TurnEnd, TurnUpdate

__all__ = ["EVENTS", "Source", "reader"]

EVENTS: frozenset[type] = frozenset(FROM_SERVER + FROM_APPLICATION)
WITH_TEXT = frozenset((TurnUpdate, TurnEagerEnd, TurnEnd))

_encode = msgspec.json.Encoder().encode


class Source(Protocol):
    """Reads another sender's frames as events; one per call.

    A source with `checks_fields = True` promises that its events' fields are of the right types and that their text is
    valid UTF-8, since msgspec has read them. The events of any other source are checked one by one."""

    def events(self, frame: Any) -> tuple[Event, ...]:
        """The events that a frame says, often one or none. Raises DecodeError for a frame that it cannot read."""


def reader(source: Source) -> Callable[[object], Sequence[Event]]:
    """Makes a function that reads a frame by this source and checks the events' fields. Raises what the source raises,
    and some exception for a field of the wrong type."""
    if getattr(source, "checks_fields", False) is True:
        return source.events

    def read(frame: object) -> Sequence[Event]:
        events = tuple(source.events(frame))
        for event in events:
            _check(event)
        return events

    return read


def _check(event: Any) -> None:
    """Raises for a field of the wrong type: making an event does not check them."""
    kind: Any = type(event)
    if kind in WITH_TEXT:  # the fast way for most: fields of ASCII
        text, turn_id, request_id = event.transcript, event.turn_id, event.request_id
        if (
            (type(text) is str and text.isascii())
            and (turn_id is None or (type(turn_id) is str and turn_id.isascii()))
            and (request_id is None or (type(request_id) is str and request_id.isascii()))
        ):
            return
    if kind not in EVENTS:
        raise DecodeError(f"the source returned a {kind.__name__} instead of an event")
    if kind in FROM_SERVER:
        _decoder(kind)(_encode(event))


@cache  # made when needed: eight of them would be a tenth of the package's import
def _decoder(kind: Any) -> Callable[[bytes], Event]:
    return msgspec.json.Decoder(kind).decode
