"""Virtual time."""

from collections.abc import Awaitable, Callable

import anyio
import pytest

from inkturns.testing.virtual_time import BACKENDS, run


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_day_is_over_at_once(backend: str) -> None:
    async def day() -> float:
        began = anyio.current_time()
        await anyio.sleep(86_400)
        return anyio.current_time() - began

    assert run(day, backend=backend) == 86_400


async def for_an_event() -> None:
    await anyio.Event().wait()


@pytest.mark.parametrize("wait", [anyio.sleep_forever, for_an_event])
def test_what_waits_for_nothing_ends_in_an_error(wait: Callable[[], Awaitable[None]]) -> None:
    with pytest.raises(RuntimeError, match="nothing is due"):
        run(wait)
