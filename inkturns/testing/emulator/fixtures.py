"""A pytest plugin: `pytest_plugins = ["inkturns.testing.emulator.fixtures"]` in a conftest.py.

Rules of this file: the fixture serves sync and async tests, so its emulator has a thread and a loop for itself. The
thread ends with the test.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from threading import Thread
from typing import Any

import pytest

from inkturns.testing.emulator.script import Script
from inkturns.testing.emulator.server import InkEmulator

__all__ = ["ink_emulator", "running"]


@contextmanager
def running(emulator: InkEmulator) -> Iterator[InkEmulator]:
    """Runs an emulator in a thread until the block ends."""
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
    """`ink_emulator(script, speed=…)` starts an InkEmulator, which runs until the test is over. It takes the arguments
    of InkEmulator."""
    with ExitStack() as stack:

        def start(script: Script | Sequence[Script] | Callable[[int], Script], **options: Any) -> InkEmulator:
            return stack.enter_context(running(InkEmulator(script, **options)))

        yield start
