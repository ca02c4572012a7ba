"""`--policy KEY=VALUE`: fields of a Policy, read from the command line.

Rules of this file: the fields, what they take and their defaults are read off Policy, so a new field needs nothing
here; a function is named by its path, and that path is typed by a person, never read from a recording.
"""

import ast
import importlib
import re
import sys
from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import attrs

from inkturns.policy import Policy, min_words, same_text, same_words

__all__ = ["described", "read_policy"]

FLAGS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
FUNCTIONS: dict[str, Any] = {"same_words": same_words, "same_text": same_text}
MIN_WORDS = re.compile(r"min_words\(\s*(\d+)\s*((?:,[^,()=]+)*)\)")


def _kinds(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


TYPES = get_type_hints(Policy)
FIELDS = {field.name: _kinds(TYPES[field.name]) for field in attrs.fields(Policy)}


def read_policy(pairs: Iterable[str]) -> dict[str, Any]:
    """The fields that `key=value` pairs give. Raises ValueError, which names the pair, for a bad one."""
    changes: dict[str, Any] = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        key, value = key.strip().replace("-", "_"), value.strip()
        try:
            if key not in FIELDS:
                raise ValueError(f"Policy has no field {key!r}; it has {', '.join(FIELDS)}")
            if key in changes:
                raise ValueError(f"Policy.{key} is given twice")
            changes[key] = _read(FIELDS[key], value)
            Policy(**{key: changes[key]})
        except (TypeError, ValueError) as error:
            raise ValueError(f"--policy {pair}: {error}") from None
    return changes


def described() -> str:
    """The fields, for the help text."""
    return f"Fields: {', '.join(FIELDS)}. A value that a field does not take is refused with what it takes"


def _read(kinds: tuple[Any, ...], value: str) -> Any:
    low = value.lower()
    for kind in kinds:
        if kind is NoneType and low == "none":
            return None
        if kind is bool and low in FLAGS:
            return FLAGS[low]
        if _is_enum(kind) and low in list(kind):
            return kind(low)
        if kind in (int, float):
            try:
                return kind(value)
            except ValueError:
                continue
        if get_origin(kind) is Callable and ("." in value or "(" in value or value in FUNCTIONS):
            return _function(value)
    raise ValueError(f"must be {_expected(kinds)}, got {value!r}")


def _expected(kinds: tuple[Any, ...]) -> str:
    return " or ".join(name for kind in kinds for name in _names(kind))


def _names(kind: Any) -> list[str]:
    if _is_enum(kind):
        return list(kind)
    plain = {bool: ["true", "false"], NoneType: ["none"], int: ["a whole number"], float: ["a number"]}
    if kind in plain:
        return plain[kind]
    texts, _ = get_args(kind)
    return [*(FUNCTIONS if len(texts) == 2 else ["min_words(N, WORD, ...)"]), "package.function"]


def _is_enum(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, StrEnum)


def _function(value: str) -> Any:
    if made := MIN_WORDS.fullmatch(value):
        return min_words(int(made[1]), tuple(word.strip().strip("'\"") for word in made[2].split(",")[1:]))
    if value.startswith("min_words(") and value.endswith(")"):
        return _min_words(value)
    return FUNCTIONS.get(value) or _imported(value)


def _min_words(value: str) -> min_words:
    """As Python, and so the command itself, writes it: `min_words(2, or_any=('no', 'hold on'))`."""
    try:
        match ast.parse(value, mode="eval").body:
            case ast.Call(ast.Name(), given, named):
                names = {str(one.arg): ast.literal_eval(one.value) for one in named}
                return min_words(*map(ast.literal_eval, given), **names)
            case _:
                raise SyntaxError
    except (SyntaxError, TypeError, ValueError) as error:
        if str(error).startswith("min_words: "):
            raise
        raise ValueError(
            f"must be min_words(2), or min_words(2, stop, no), or as Python writes it, got {value!r}"
        ) from None


def _imported(path: str) -> Any:
    module, _, name = path.rpartition(".")
    if not module or "(" in path:
        raise ValueError(f"must be a function, as package.function or min_words(2), got {path!r}")
    sys.path.insert(0, str(Path.cwd()))  # as `python -m` would
    try:
        return getattr(importlib.import_module(module), name)
    except Exception as error:  # whatever the module's own code raises
        raise ValueError(f"cannot import {path}: {error}") from None
    finally:
        sys.path.pop(0)
