"""What the user's functions must look like. The hooks' own tests are in test_turns.py."""

import functools
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from inkturns.signatures import check_role


def plain(a: object, b: object) -> None: ...


async def coroutine(a: object, b: object) -> None: ...


def generator(a: object, b: object) -> Iterator[object]:
    yield a


async def stream(a: object, b: object) -> AsyncIterator[object]:
    yield a


class Role:
    def __call__(self, a: object, b: object) -> Iterator[object]:
        yield a


@pytest.mark.parametrize("role", [plain, coroutine, functools.partial(coroutine), print])
def test_a_role_may_be_sync_or_async(role: Callable[..., object]) -> None:
    check_role("respond(turn, thought)" if role is not print else "listen(turn)", role)


@pytest.mark.parametrize("role", [generator, stream, Role(), functools.partial(stream)])
def test_f58_a_role_that_is_a_generator_is_refused(role: Callable[..., object]) -> None:
    with pytest.raises(TypeError, match=r"respond\(turn, thought\): .* generator, got .*; take the `yield` out"):
        check_role("respond(turn, thought)", role)


def test_f58_a_role_that_streams_is_an_async_generator() -> None:
    check_role("think(turn, more)", stream, may_stream=True)
    with pytest.raises(TypeError, match=r"think\(turn, more\): .* generator, got generator; write `async def`"):
        check_role("think(turn, more)", generator, may_stream=True)


@pytest.mark.parametrize("role", [None, 5, "respond"])
def test_a_role_is_a_function(role: object) -> None:
    with pytest.raises(TypeError, match=rf"listen\(turn\) must be a function, got {role!r}"):
        check_role("listen(turn)", role)


def test_a_wrong_number_of_arguments_is_refused() -> None:
    with pytest.raises(TypeError, match=r"listen\(turn\) must be a function of 1 argument, got plain\("):
        check_role("listen(turn)", plain)
    with pytest.raises(TypeError, match=r"respond\(a, b, c\) must be a function of 3 arguments, got coroutine\("):
        check_role("respond(a, b, c)", coroutine)
