"""Policies, events and actions as plain JSON values, and back.

Rules of this file: what is made here says everything, so that a replay needs nothing else; a recording is data, so
nothing that it names is imported.
"""

from collections.abc import Callable, Mapping
from functools import partial, reduce
from operator import or_
from typing import Any

import attrs
import msgspec

from inkturns.actions import Action, Report, ReportKind
from inkturns.errors import RecordingError
from inkturns.events import FROM_APPLICATION, FROM_SERVER, Event, UsePolicy
from inkturns.policy import Policy, min_words, same_text, same_words

__all__ = [
    "converted",
    "dump",
    "dump_event",
    "dump_policy",
    "encode",
    "encode_all",
    "everywhere",
    "load_actions",
    "load_event",
    "load_policy",
]

FUNCTIONS = {f"{function.__module__}.{function.__qualname__}": function for function in (same_text, same_words)}
FUNCTION_FIELDS = ("match", "speculate", "interrupts")


def dump_policy(policy: Policy) -> dict[str, Any]:
    """A policy as JSON values: functions by import path, `min_words` as {"min_words": n, "or_any": […]}."""
    values = {field.name: getattr(policy, field.name) for field in attrs.fields(Policy)}
    return {name: _named(value) if callable(value) else value for name, value in values.items()}


def load_policy(values: object, changes: Mapping[str, Any] | None = None) -> Policy:
    """The policy again, with `changes` to its fields. Raises RecordingError, which names the field, for a function that
    is none of inkturns': a recording does not choose what is imported."""
    if not isinstance(values, dict):
        raise RecordingError("a policy must be a JSON object of its fields")
    changes = changes or {}
    fields = {name: _function(name, value) for name, value in values.items() if name not in changes}
    try:
        return Policy(**{**fields, **changes})
    except (TypeError, ValueError) as error:
        raise RecordingError(f"the policy is refused: {error}") from None


def _named(function: Callable[..., object]) -> object:
    if type(function) is min_words:
        return {"min_words": function.n, "or_any": list(function.or_any)}
    named = function if hasattr(function, "__qualname__") else type(function)
    path = f"{named.__module__}.{named.__qualname__}"
    return path if FUNCTIONS.get(path, function) is function else f"{path} (another)"  # functools.wraps lends its name


def _function(name: str, value: Any) -> Any:
    if name not in FUNCTION_FIELDS or value is None or isinstance(value, bool):
        return value
    if isinstance(value, dict) and name != "match":
        try:
            return min_words(value["min_words"], tuple(value["or_any"]))
        except (KeyError, TypeError, ValueError) as error:
            raise RecordingError(f"Policy.{name}: not the fields of `min_words`: {error!r}") from None
    try:
        return FUNCTIONS[value]
    except (KeyError, TypeError):
        raise RecordingError(
            f"Policy.{name} is {value!r}, which no recording may import; give it anew: --policy {name}=…, or policy= "
            "in Python"
        ) from None


_EVENT: Any = reduce(or_, (kind for kind in FROM_SERVER + FROM_APPLICATION if kind is not UsePolicy))
_ACTION: Any = reduce(or_, (kind for kind in Action.__subclasses__() if kind is not Report))


def load_event(values: object, changes: Mapping[str, Any] | None = None) -> Event:
    """Makes an event from its JSON values. Raises RecordingError if they are not an event."""
    if isinstance(values, dict) and values.get("type") == "use_policy":
        return UsePolicy(load_policy(values.get("policy"), changes))
    return converted(values, _EVENT)  # type: ignore[no-any-return]


def load_actions(values: object) -> tuple[Action, ...]:
    """Makes actions from a recorded "out". Raises RecordingError if a value is not an action."""

    def load(value: object) -> Action:
        if not (isinstance(value, dict) and value.get("type") == "Report"):
            return converted(value, _ACTION)  # type: ignore[no-any-return]
        event = None if value.get("event") is None else load_event(value["event"])
        return Report(converted(value.get("kind"), ReportKind), event, converted(value.get("detail"), str))

    return tuple(map(load, converted(values, list)))


def converted(values: object, kind: Any) -> Any:
    """Reads JSON values as this type. Raises RecordingError where they do not fit it."""
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise RecordingError(str(error)) from None


def _otherwise(value: object) -> object:
    """Makes a JSON value of one that has none: functions by import path, others by repr."""
    if isinstance(value, float):  # numpy's, say
        return float(value)
    return _named(value) if callable(value) else repr(value)


encode = msgspec.json.Encoder(enc_hook=_otherwise).encode
dump = partial(msgspec.to_builtins, enc_hook=_otherwise)


def dump_event(event: Event) -> dict[str, Any]:
    """An event as JSON values."""
    if isinstance(event, UsePolicy):
        return {"type": "use_policy", "policy": dump_policy(event.policy)}
    return dump(event)  # type: ignore[no-any-return]


def encode_all(values: object) -> bytes:
    """JSON of anything that JSON can hold. A lone surrogate, which UTF-8 cannot hold, becomes "?": only the
    application's own words can have one."""
    try:
        return encode(values)
    except UnicodeEncodeError:
        return encode(everywhere(dump(values), lambda text: text.encode("utf-8", "replace").decode()))


def everywhere(value: object, change: Callable[[str], str]) -> Any:
    """JSON values with `change` made to each text in them, but not to the names of members."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: everywhere(item, change) for key, item in value.items()}
    return [everywhere(item, change) for item in value] if isinstance(value, list) else value
