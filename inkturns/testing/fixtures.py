"""A pytest plugin: `pytest_plugins = ["inkturns.testing.fixtures"]` in a conftest.py.

Rules of this file: the fixture serves tests of any kind, so its emulator runs in a thread of its own, with its own
loop; the thread ends with the test.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from threading import Thread
from typing import Any

import pytest

from inkturns.testing.emulator import InkEmulator
from inkturns.testing.script import Script

__all__ = ["ink_emulator", "running"]


@contextmanager
def running(emulator: InkEmulator) -> Iterator[InkEmulator]:
    """Runs an emulator in a thread for as long as the block."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, name="InkEmulator", daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(emulator.__aenter__(), loop).result()
        try:
            yield emulator
        finally:
            asyncio.run_coroutine_threadsafe(emulator.__aexit__(None, None, None), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture
def ink_emulator() -> Iterator[Callable[..., InkEmulator]]:
    """`ink_emulator(script, speed=…)` gives an InkEmulator that is running, and does until the test is over. Takes what
    InkEmulator takes."""
    with ExitStack() as stack:

        def start(script: Script | Sequence[Script] | Callable[[int], Script], **options: Any) -> InkEmulator:
            return stack.enter_context(running(InkEmulator(script, **options)))

        yield start
