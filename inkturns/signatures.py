"""What the user's functions must look like: checked when they are registered, not in the middle of a call.

Rules of this file: it looks at a function and never calls it; a refusal is a TypeError that names the hook or role,
what it was given, and the fix.

Type checkers refuse the same mistakes. A decorator is typed by the function that it takes,

    def on_start(self, hook: Callable[[Turn], Result]) -> Callable[[Turn], Result]: ...

and not by a TypeVar that is bound to a Callable: mypy and pyright infer a lambda's arguments only from the former.
"""

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar

__all__ = ["Result", "check_hook", "check_role"]

Result = TypeVar("Result")
"""What the user's function returns, whatever it is."""


def check_hook(usage: str, hook: object) -> None:
    """Raises TypeError for a hook that cannot be called as `usage` says (`on_cancel(turn, reason)`). Nobody awaits what
    a hook returns or iterates over it, so it may be neither async nor a generator."""
    _check_arguments(usage, hook)
    if _is(hook, inspect.iscoroutinefunction) or _is(hook, inspect.isasyncgenfunction):
        raise TypeError(f"{usage}: the hook must not be async, got {_named(hook)}; start a task inside it instead")
    if _is(hook, inspect.isgeneratorfunction):
        raise TypeError(f"{usage}: the hook must not be a generator, got {_named(hook)}; take the `yield` out")


def check_role(usage: str, role: object, *, may_stream: bool = False) -> None:
    """Raises TypeError for a role that cannot be called as `usage` says: `respond(turn, thought)`. It may be async, and
    an async generator where it `may_stream`. It may never be a plain generator, whose body would not run (F58)."""
    _check_arguments(usage, role)
    if _is(role, inspect.isgeneratorfunction):
        fix = "write `async def`" if may_stream else "take the `yield` out"
        raise TypeError(f"{usage}: the role must not be a generator, got {_named(role)}; {fix}")
    if not may_stream and _is(role, inspect.isasyncgenfunction):
        raise TypeError(f"{usage}: the role must not be an async generator, got {_named(role)}; take the `yield` out")


def _check_arguments(usage: str, function: object) -> None:
    if not callable(function):
        raise TypeError(f"{usage} must be a function, got {function!r}")
    try:
        signature = inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):  # some that are written in C have none
        return
    count = usage.count(",") + 1
    try:
        signature.bind(*range(count))
    except TypeError:
        arguments = "1 argument" if count == 1 else f"{count} arguments"
        raise TypeError(f"{usage} must be a function of {arguments}, got {_named(function)}{signature}") from None


def _is(function: object, kind: Callable[[object], bool]) -> bool:
    return any(kind(layer) for layer in _layers(function))


def _layers(function: object) -> Iterator[object]:
    """The function, what a partial or a static method wraps, and the method that calls an object."""
    while isinstance(function, partial | staticmethod):
        function = function.func if isinstance(function, partial) else function.__func__
    yield function
    yield getattr(function, "__call__", None)  # noqa: B004 (an object's own)


def _named(function: object) -> str:
    return getattr(function, "__name__", None) or repr(function)
