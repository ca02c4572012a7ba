"""Frames to events, commands to frames.

Rules of this file: a frame that is well formed decodes in one step, straight into its event; any other goes the long
way, which mends it as the design says or says what is wrong with it. Whatever comes in, an event or a DecodeError comes
out. Nothing is kept between frames.
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

_straight: Callable[[Any], ServerEvent] = msgspec.json.Decoder(
    Connected | TurnStart | TurnUpdate | TurnEagerEnd | TurnResume | TurnEnd | ServerError
).decode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_value = msgspec.json.Decoder().decode


def decode(frame: object) -> ServerEvent:
    """One message of the server's as an event: str, bytes, a mapping, or an object with these attributes (the Cartesia
    SDK's events).

    A missing or null transcript is "", a turn_id that is no string is its JSON text, a type that is not known gives
    Unknown. Raises DecodeError, and nothing else, for a frame without a type, a known type with a bad field, or text
    that UTF-8 cannot hold (F09, F10, F11)."""
    try:
        return _straight(frame)
    except Exception:  # not only msgspec's own: it lets RecursionError and the Unicode errors through
        return _the_long_way(frame)


def _the_long_way(frame: object) -> ServerEvent:
    return carefully(frame, _read)


def _read(frame: object) -> ServerEvent:
    if isinstance(frame, str):
        return _event(_members(str.__str__(frame)))
    if isinstance(frame, bytes | bytearray | memoryview):
        return _event(_members(frame))
    return _event(_foreign(frame))


def carefully(frame: object, read: Callable[[object], Value]) -> Value:
    """`read(frame)`, where it raises nothing but DecodeError, whatever the frame is."""
    try:
        return read(frame)
    except DecodeError as error:
        reason = error.reason
    except UnicodeError:
        reason = "a frame is text that UTF-8 can hold"
    except RecursionError:
        reason = "a frame that is nested too deeply"
    except msgspec.MsgspecError as error:
        reason = f"no frame: {error}"
    except Exception as error:  # what such values raise where msgspec meets them
        reason = f"no frame: {_name(error)}"
    raise DecodeError(reason, _quote(frame)) from None


def _foreign(frame: object) -> dict[str, Any]:
    """The members of a mapping, or of an object: by attribute, and what an unknown type has beyond, from `to_dict()`.
    Their code may raise whatever it likes."""
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
        raise DecodeError(f"a {_name(frame)} that cannot be read: {_name(error)}") from None


def _event(members: dict[str, Any]) -> ServerEvent:
    """The event of these members: values, or JSON that is not unpacked yet, so that what nobody asks for costs nothing,
    whatever its size."""
    if "type" not in members:
        raise DecodeError("a frame has a `type`")
    tag = _unpacked(members.pop("type"))
    if not isinstance(tag, str):
        raise DecodeError(f"type: expected `str`, got `{_name(tag)}`")
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


def _unpacked(value: Any) -> Any:
    return _value(value) if isinstance(value, msgspec.Raw) else value


def _field(tag: str, name: str, value: Any) -> Any:
    try:
        return _unpacked(value)
    except msgspec.ValidationError as error:  # a number that is too large
        raise DecodeError(f"{tag}: {name}: {error}") from None


def _as_text(value: Any) -> str | None:
    """A turn_id: a string is itself, null none, anything else its JSON text."""
    text = value if isinstance(value, msgspec.Raw) else msgspec.json.encode(value)
    json = bytes(text).decode()
    return _value(json) if json.startswith(('"', "null")) else json


def _checked(kind: type[ServerEvent], fields: dict[str, Any]) -> ServerEvent:
    try:
        event = msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        raise DecodeError(f"{kind.__struct_config__.tag}: {error}") from None
    msgspec.json.encode(event)  # raises for text that UTF-8 cannot hold, which no recording could either
    return event


def _quote(frame: object) -> str:
    if type(frame) is bytes or type(frame) is bytearray:
        return repr(bytes(frame[:100]))
    if type(frame) is str:
        return frame[:100].encode(errors="backslashreplace").decode()
    return f"<{_name(frame)}>"


def _name(value: object) -> str:
    """The name of a value's class, whatever its metaclass makes of that."""
    return str(type.__dict__["__name__"].__get__(type(value)))


# -- commands: the client's text frames


def close_command() -> str:
    """Flush what is buffered into events, then close: the server does both."""
    return '{"type":"close"}'


def config_command(settings: TurnSettings) -> str:
    """New turn settings in mid-session: only what is set. The server does not acknowledge it."""
    return msgspec.json.encode({"type": "config", "turn": settings.given()}).decode()
