"""Policies, events and actions as plain JSON values, and back; with their words masked.

Rules of this file: what is made here says everything, so that a replay needs nothing else; a recording is data, so
nothing that it names is imported.
"""

from collections.abc import Callable, Mapping
from functools import partial, reduce
from operator import or_
from typing import Any
from unicodedata import category

import attrs
import msgspec

from inkturns.actions import Action, Report, ReportKind
from inkturns.errors import RecordingError
from inkturns.events import FROM_APPLICATION, FROM_SERVER, Event, ServerError, ServerEvent, UsePolicy
from inkturns.policy import Policy, Words, exact, normalized, words
from inkturns.wire import decode

__all__ = ["dump", "dump_event", "dump_policy", "encode", "load_actions", "load_event", "load_policy"]

FUNCTIONS = {f"{function.__module__}.{function.__qualname__}": function for function in (exact, normalized)}


def dump_policy(policy: Policy) -> dict[str, Any]:
    """A policy as JSON values: functions by import path, what `words` made as {"words": n, "always": […]}."""
    values = {field.name: getattr(policy, field.name) for field in attrs.fields(Policy)}
    return values | {"match": _named(policy.match), "interrupts": _named(policy.interrupts)}


def load_policy(values: object, changes: Mapping[str, Any] | None = None) -> Policy:
    """The policy again, with `changes` to its fields. Raises RecordingError, which names the field, for a function that
    is none of inkturns': a recording does not choose what is imported."""
    if not isinstance(values, dict):
        raise RecordingError("a policy is an object of its fields")
    changes = changes or {}
    fields = {name: _function(name, value) for name, value in values.items() if name not in changes}
    try:
        return Policy(**{**fields, **changes})
    except (TypeError, ValueError) as error:
        raise RecordingError(f"a policy that does not hold: {error}") from None


def _named(function: Callable[..., object] | None) -> object:
    if function is None:
        return None
    if type(function) is Words:
        return {"words": function.n, "always": list(function.always)}
    named = function if hasattr(function, "__qualname__") else type(function)
    path = f"{named.__module__}.{named.__qualname__}"
    return path if FUNCTIONS.get(path, function) is function else f"{path} (another)"  # functools.wraps lends its name


def _function(name: str, value: Any) -> Any:
    if name not in ("match", "interrupts") or value is None:
        return value
    if isinstance(value, dict):
        try:
            return words(value["words"], tuple(value["always"]))
        except (KeyError, TypeError, ValueError) as error:
            raise RecordingError(f"Policy.{name}: no `words` function: {error!r}") from None
    try:
        return FUNCTIONS[value]
    except (KeyError, TypeError):
        raise RecordingError(
            f"Policy.{name} is {value!r}, which no recording may import; say it with policy="
        ) from None


_EVENT: Any = reduce(or_, (kind for kind in FROM_SERVER + FROM_APPLICATION if kind is not UsePolicy))
_ACTION: Any = reduce(or_, (kind for kind in Action.__subclasses__() if kind is not Report))


def load_event(values: Any, changes: Mapping[str, Any] | None = None) -> Event:
    """An event of its JSON values. Raises RecordingError for what is none."""
    if isinstance(values, dict) and values.get("type") == "use_policy":
        return UsePolicy(load_policy(values.get("policy"), changes))
    return converted(values, _EVENT)  # type: ignore[no-any-return]


def load_actions(values: Any) -> tuple[Action, ...]:
    """A recorded "out" as actions. Raises RecordingError for what is none."""

    def load(value: Any) -> Action:
        if not (isinstance(value, dict) and value.get("type") == "Report"):
            return converted(value, _ACTION)  # type: ignore[no-any-return]
        event = None if value.get("event") is None else load_event(value["event"])
        return Report(converted(value.get("kind"), ReportKind), event, converted(value.get("detail"), str))

    return tuple(map(load, converted(values, list)))


def converted(values: Any, kind: Any) -> Any:
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise RecordingError(str(error)) from None


def _otherwise(value: Any) -> object:
    """What JSON has no word for."""
    if isinstance(value, float):  # numpy's, say
        return float(value)
    return _named(value) if callable(value) else repr(value)


encode = msgspec.json.Encoder(enc_hook=_otherwise).encode
dump = partial(msgspec.to_builtins, enc_hook=_otherwise)


def dump_event(event: Event) -> dict[str, Any]:
    if isinstance(event, UsePolicy):
        return {"type": "use_policy", "policy": dump_policy(event.policy)}
    return dump(event)  # type: ignore[no-any-return]


# -- masks: the words go, their shape stays

SAID_BY_MACHINES = {
    "type",
    "request_id",
    "turn_id",
    "kind",
    "error_code",
    "doc_url",
    "reason",
    "policy",
    "end",
    "detail",
    "agent",
    "outcome",
    "error",
}
NESTED = ("turn", "event", "settled")


def mask(text: str) -> str:
    """Letters and marks to x, digits to 0; spaces, punctuation and lengths stay."""
    return "".join(map(_masked_character, text))


def _masked_character(char: str) -> str:
    kind = category(char)
    if kind[0] in "LM" or kind in ("Cn", "Co", "Cs"):  # a letter, or what may be one elsewhere
        return "x"
    return "0" if kind[0] == "N" else char


def everywhere(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: everywhere(item, change) for key, item in value.items()}
    return [everywhere(item, change) for item in value] if isinstance(value, list) else value


def masked(values: dict[str, Any]) -> dict[str, Any]:
    """The JSON values of an action or an event, masked: ids, kinds and reasons stay, and so do names of members."""

    def of(name: str, value: Any) -> Any:
        if name in NESTED and isinstance(value, dict):
            return masked(value)
        return value if name in SAID_BY_MACHINES else everywhere(value, mask)

    return {name: of(name, value) for name, value in values.items()}


def masked_event(event: Event) -> dict[str, Any]:
    return masked(dump_event(event))


def masked_frame(text: str, event: ServerEvent) -> str | None:
    """The frame with its words masked; None where that would not decode to the masked event."""
    kept = {"type", "request_id", "turn_id"} | ({"error_code", "doc_url"} if isinstance(event, ServerError) else set())
    try:
        values = msgspec.json.decode(text)
        frame = encode({k: v if k in kept else everywhere(v, mask) for k, v in values.items()}).decode()
        return frame if encode(decode(frame)) == encode(masked_event(event)) else None
    except (ValueError, RecursionError):
        return None


def encodable(text: str) -> str:
    """Without lone surrogates, which UTF-8 cannot hold: only the application's own words can have them."""
    return text.encode("utf-8", "replace").decode()
