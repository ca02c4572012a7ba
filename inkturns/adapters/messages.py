"""Reads other senders' messages: JSON text, mappings and SDK objects, into Structs that are tagged with their `type`.

Rules of this file: it knows no sender. Whatever comes in, a message, an Unknown or a DecodeError comes out.
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
    """Makes two functions that read a frame as one of these Structs. The first is fast and the second is complete:

        try:
            message = read_json(frame)  # well-formed JSON of these kinds; any other frame raises something
        except Exception:
            message = read_any(frame)

    The second takes str, bytes, a mapping, or an object with these attributes (an SDK's). A message of another type
    becomes Unknown. It raises DecodeError, and nothing else, for a frame without a type, a known type with a bad field,
    or text that UTF-8 cannot hold."""
    any_kind: Any = reduce(or_, kinds)
    known = {kind.__struct_config__.tag for kind in kinds}
    fields = {"type", *(name for kind in kinds for name in kind.__struct_fields__)}

    def read(frame: object) -> object:
        message = _parsed(frame)
        tag = message.get("type") if isinstance(message, Mapping) else getattr(message, "type", None)
        if isinstance(tag, str) and tag not in known:
            return _unknown(tag, message)
        if hasattr(message, "type"):  # an object; msgspec would treat an attribute that raises as a missing one
            message = {name: getattr(message, name) for name in fields if hasattr(message, name)}
        converted = msgspec.convert(message, any_kind)
        msgspec.json.encode(converted)  # raises for text that UTF-8 cannot hold, which no recording could hold either
        return converted

    return msgspec.json.Decoder(any_kind).decode, lambda frame: carefully(frame, read)


def unknown(kind: str, frame: object) -> Unknown:
    """A frame of a kind that nobody knows, with all its fields. Raises DecodeError where JSON cannot hold them."""
    return carefully(frame, lambda frame: _unknown(kind, _parsed(frame)))


def _parsed(frame: object) -> object:
    """The members of a text frame; any other frame, a mapping or an object, as it is."""
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
    """The members of a value that JSON cannot say: a mapping, or an object. Pydantic keeps fields that its class does
    not know apart."""
    if isinstance(value, Mapping):
        return dict(value)
    return {**vars(value), **(getattr(value, "__pydantic_extra__", None) or {})}
