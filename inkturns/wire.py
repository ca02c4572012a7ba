"""Frames to events, commands to frames.

Rules of this file: JSON text of a known type and with good fields decodes in one step into its event. Every other frame
is read member by member, which repairs what `decode` documents, or says what is wrong. Whatever comes in, an event or a
DecodeError comes out. Nothing is kept between frames.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec

from inkturns.errors import DecodeError
from inkturns.events import (
    FROM_SERVER,
    Connected,
    ServerError,
    ServerEvent,
    TurnEagerEnd,
    TurnEnd,
    TurnResume,
    TurnStart,
    TurnUpdate,
    Unknown,
)
from inkturns.settings import TurnSettings, connect_query

__all__ = ["close_command", "config_command", "connect_query", "decode"]

Value = TypeVar("Value")

_KNOWN: dict[str, type[ServerEvent]] = {
    str(kind.__struct_config__.tag): kind for kind in FROM_SERVER if kind is not Unknown
}
_FIELDS = {"type"}.union(*(kind.__struct_fields__ for kind in _KNOWN.values()))

read_json: Callable[[Any], ServerEvent] = msgspec.json.Decoder(
    Connected | TurnStart | TurnUpdate | TurnEagerEnd | TurnResume | TurnEnd | ServerError
).decode
"""What `decode` tries first: JSON text whose type is known and whose fields are good. It raises, and not only msgspec's
errors, for every other frame."""

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_value = msgspec.json.Decoder().decode


def decode(frame: object) -> ServerEvent:
    """Reads one message of the server as an event: str, bytes, a mapping, or an object with these attributes (the
    Cartesia SDK's events).

    A missing or null transcript becomes "". A turn_id that is not a string becomes its JSON text. An unknown type
    becomes Unknown. Raises DecodeError, and nothing else, for a frame without a type, a known type with a bad field,
    and text that UTF-8 cannot hold (F09, F10, F11)."""
    try:
        return read_json(frame)
    except Exception:  # not only msgspec's own: RecursionError and the Unicode errors pass through it
        return carefully(frame, _read)


def _read(frame: object) -> ServerEvent:
    if isinstance(frame, str):
        return _event({**_members(str.__str__(frame))})
    if isinstance(frame, bytes | bytearray | memoryview):
        return _event({**_members(frame)})
    return _event(_foreign(frame))


def carefully(frame: object, read: Callable[[object], Value]) -> Value:
    """Returns `read(frame)`. Whatever that raises becomes a DecodeError, whose reason has none of the frame's words."""
    try:
        return read(frame)
    except DecodeError as error:
        reason = error.reason
    except UnicodeError:
        reason = "text is not valid UTF-8"
    except RecursionError:
        reason = "frame is nested too deeply"
    except msgspec.MsgspecError as error:
        reason = f"frame cannot be read: {error}"
    except Exception as error:  # what such values raise where msgspec meets them
        reason = f"frame cannot be read: {class_name(error)}"
    raise DecodeError(reason, _quote(frame)) from None


def _foreign(frame: object) -> dict[str, object]:
    """The members of a mapping or of an object. An object's known fields are read by attribute; where its type is not
    known, `to_dict()` gives the others. Such code may raise any exception."""
    try:
        if isinstance(frame, Mapping):
            return dict(frame)
        nothing = object()
        found = ((name, getattr(frame, name, nothing)) for name in _FIELDS)
        members = {name: value for name, value in found if value is not nothing}
        known = isinstance(tag := members.get("type"), str) and tag in _KNOWN
        if not known and callable(to_dict := getattr(frame, "to_dict", None)):
            return dict(to_dict()) | members
        return members
    except Exception as error:
        raise DecodeError(f"{class_name(frame)} object cannot be read: {class_name(error)}") from None


def _event(members: dict[str, object]) -> ServerEvent:
    """The event of these members. They are values, or JSON that is not unpacked yet: a member that the event does not
    have is never unpacked, however large it is."""
    if "type" not in members:
        raise DecodeError("frame has no `type`")
    tag = _unpacked(members.pop("type"))
    if not isinstance(tag, str):
        raise DecodeError(f"type: expected `str`, got `{class_name(tag)}`")
    if members.get("turn_id") is not None:
        members["turn_id"] = _as_text(members["turn_id"])
    if (kind := _KNOWN.get(tag)) is None:
        rest = _value(msgspec.json.encode(members))
        ids = {n: rest.pop(n) for n in ServerEvent.__struct_fields__ if isinstance(rest.get(n, 0), str | None)}
        return _checked(Unknown, {"kind": tag, "fields": rest, **ids})
    fields = {name: _field(tag, name, members[name]) for name in kind.__struct_fields__ if name in members}
    if fields.get("transcript", "") is None:
        del fields["transcript"]
    return _checked(kind, fields)


def _unpacked(value: object) -> object:
    return _value(value) if isinstance(value, msgspec.Raw) else value


def _field(tag: str, name: str, value: object) -> object:
    try:
        return _unpacked(value)
    except msgspec.ValidationError as error:  # a number that is too large
        raise DecodeError(f"{tag}: {name}: {error}") from None


def _as_text(value: object) -> str | None:
    """A turn_id as text: a string as it is, null as None, anything else as its JSON text."""
    text = value if isinstance(value, msgspec.Raw) else msgspec.json.encode(value)
    json = bytes(text).decode()
    return _value(json) if json.startswith(('"', "null")) else json


def _checked(kind: type[ServerEvent], fields: dict[str, object]) -> ServerEvent:
    try:
        event = msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        raise DecodeError(f"{kind.__struct_config__.tag}: {error}") from None
    msgspec.json.encode(event)  # raises for text that UTF-8 cannot hold, which no recording could hold either
    return event


def _quote(frame: object) -> str:
    if type(frame) is bytes or type(frame) is bytearray:
        return repr(bytes(frame[:100]))
    if type(frame) is str:
        return frame[:100].encode(errors="backslashreplace").decode()
    return f"<{class_name(frame)}>"


def class_name(value: object) -> str:
    """The name of a value's class. A metaclass cannot change it, nor raise."""
    return str(type.__dict__["__name__"].__get__(type(value)))


# -- commands: the client's text frames


def close_command() -> str:
    """The frame that asks the server to turn what it has buffered into events, and then to close the connection."""
    return '{"type":"close"}'


def config_command(settings: TurnSettings) -> str:
    """The frame that changes the turn settings during a session; it holds only what is set. The server does not
    acknowledge it."""
    return msgspec.json.encode({"type": "config", "turn": settings.given()}).decode()
