"""Other senders' messages to inkturns' events. Each adapter is a source: `Turns(source=Flux())`.

Rules of this package: an adapter translates and decides nothing; what is out of contract is the machine's to repair and
to report. It is pure but for what it must remember of the open turn, so there is one per call. It takes from a message
the few fields it needs and passes over the rest, and knows a message by its `type`, never by its class (F09). It raises
DecodeError for a frame that it cannot read and nothing else. A sender's package is imported only where it must be, and
no adapter imports another, nor is one imported here.
"""

from collections.abc import Callable, Mapping
from functools import reduce
from operator import or_
from typing import Any

import msgspec

from inkturns.events import ServerEvent, Unknown
from inkturns.wire import carefully

__all__ = ["readers", "unknown"]


def readers(*kinds: type[msgspec.Struct]) -> tuple[Callable[[Any], Any], Callable[[object], Any]]:
    """Two functions that give a frame as one of these Structs, tagged with their `type`; for speed, as in `decode`:

        try:
            message = straight(frame)  # JSON that is well formed and of these kinds; any other frame raises something
        except Exception:
            message = the_long_way(frame)

    The second takes str, bytes, a mapping, or an object with these attributes (an SDK's). A message of another type
    gives Unknown. It raises DecodeError, and nothing else, for a frame without a type, a known type with a bad field,
    or text that UTF-8 cannot hold."""
    any_kind: Any = reduce(or_, kinds)
    known = {kind.__struct_config__.tag for kind in kinds}
    fields = {"type", *(name for kind in kinds for name in kind.__struct_fields__)}

    def the_long_way(frame: object) -> object:
        message = _parsed(frame)
        tag = message.get("type") if isinstance(message, Mapping) else getattr(message, "type", None)
        if isinstance(tag, str) and tag not in known:
            return _unknown(tag, message)
        if hasattr(message, "type"):  # an object; msgspec would take an attribute that raises for one that is not there
            message = {name: getattr(message, name) for name in fields if hasattr(message, name)}
        read = msgspec.convert(message, any_kind)
        msgspec.json.encode(read)  # raises for text that UTF-8 cannot hold, which no recording could either
        return read

    return msgspec.json.Decoder(any_kind).decode, lambda frame: carefully(frame, the_long_way)


def unknown(kind: str, frame: object) -> Unknown:
    """A frame of a kind that nobody knows, with all that it says. Raises DecodeError where JSON cannot hold that."""
    return carefully(frame, lambda frame: _unknown(kind, _parsed(frame)))


def _parsed(frame: object) -> object:
    """A frame's members, where it is text; else itself, a mapping or an object."""
    if isinstance(frame, str):
        return msgspec.json.decode(str.__str__(frame))
    return msgspec.json.decode(frame) if isinstance(frame, bytes | bytearray | memoryview) else frame


def _unknown(kind: str, message: object) -> Unknown:
    fields = msgspec.json.decode(msgspec.json.encode(message, enc_hook=_members), type=dict[str, Any])
    fields.pop("type", None)
    ids = {
        name: fields.pop(name) for name in ServerEvent.__struct_fields__ if isinstance(fields.get(name, 0), str | None)
    }
    found = Unknown(kind=kind, fields=fields, **ids)
    msgspec.json.encode(found)
    return found


def _members(value: Any) -> dict[str, Any]:
    """What JSON has no word for: a mapping, or an object, of pydantic with the fields that its class does not know."""
    if isinstance(value, Mapping):
        return dict(value)
    return {**vars(value), **(getattr(value, "__pydantic_extra__", None) or {})}
