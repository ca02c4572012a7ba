"""What all tests share: how much they try, virtual time for the async ones on each backend, and a call.

How much is tried: `pytest` tries a sample of everything, in about a minute. `--full` tries all of it: every session of
the exhaustive walk, every mutant, every seed of the storms. `--deep` is `--full` with numbers that take hours. A test
that the sample leaves out is marked `full`; one that only counts higher asks the fixtures `full` and `deep`.
"""

import gc
import inspect
import json
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import anyio
import pytest
from hypothesis import HealthCheck, settings

from inkturns.actions import Report, Turn
from inkturns.agent import Agent, Settled, Thought
from inkturns.events import TurnEagerEnd, TurnEnd, TurnResume, TurnStart, TurnUpdate
from inkturns.testing import virtual_time

# Deterministic: a run that failed fails again. Sessions are drawn step by step; Hypothesis calls that slow.
settings.register_profile(
    "full", derandomize=True, deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("quick", settings.get_profile("full"), max_examples=10)
settings.register_profile("deep", settings.get_profile("full"), derandomize=False, max_examples=5000)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="try everything, and not a sample: minutes")
    parser.addoption("--deep", action="store_true", help="try more than everything: hours for the exhaustive walk")


def pytest_configure(config: pytest.Config) -> None:
    # A shell that starts the tests with & has them ignore Ctrl-C, and the commands that they start inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "full: runs with --full or --deep only; others of its kind always run")
    settings.load_profile("deep" if is_deep(config) else "full" if is_full(config) else "quick")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not is_full(config):
        left_out = [item for item in items if item.get_closest_marker("full")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def is_deep(config: pytest.Config) -> bool:
    return bool(config.getoption("--deep"))


def is_full(config: pytest.Config) -> bool:
    return bool(config.getoption("--full")) or is_deep(config)


@pytest.fixture(scope="session")
def full(pytestconfig: pytest.Config) -> bool:
    return is_full(pytestconfig)


@pytest.fixture(scope="session")
def deep(pytestconfig: pytest.Config) -> bool:
    return is_deep(pytestconfig)


@pytest.fixture
def only_new_garbage() -> Iterator[None]:
    """A collection looks at what the test made, and not at thousands of collected tests, which takes half a second."""
    gc.freeze()
    yield
    gc.unfreeze()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if inspect.iscoroutinefunction(metafunc.function):
        metafunc.fixturenames.append("backend")
        metafunc.parametrize("backend", virtual_time.BACKENDS)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Runs an async test in virtual time; one that waits for what will not come fails after a day of it."""
    if not inspect.iscoroutinefunction(pyfuncitem.function):
        return None
    given = {name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.function).parameters}

    async def limited() -> None:
        with anyio.fail_after(86_400):
            await pyfuncitem.function(**given)

    virtual_time.run(limited, backend=str(pyfuncitem.callspec.params["backend"]))
    return True


class Call:
    """What the world saw of an agent: `seen` in order, with the times; what the user says to it."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, str]] = []
        self.settled: list[Settled] = []
        self.reports: list[Report] = []
        self._agent: Agent | None = None

    def agent(self, **options: Any) -> Agent:
        self._agent = agent = Agent(**options)
        agent.on_settled(self.settled.append)
        agent.on_report(self.reports.append)
        return agent

    def speaks(self, **options: Any) -> Agent:
        """An agent whose `respond` says each item as it comes."""
        agent = self.agent(**options)

        @agent.respond
        async def respond(turn: Turn | None, thought: Thought[Any]) -> None:
            await self.speak(thought)

        return agent

    async def speak(self, thought: AsyncIterable[object]) -> None:
        async for item in thought:
            self.see(f"{item}")

    @staticmethod
    async def stubborn(seconds: float) -> None:
        """Does not let itself be cancelled."""
        until = anyio.current_time() + seconds
        with anyio.CancelScope(shield=True):  # trio's cancellation comes again at once
            while anyio.current_time() < until:
                with suppress(anyio.get_cancelled_exc_class()):
                    await anyio.sleep(until - anyio.current_time())

    def see(self, what: str) -> None:
        self.seen.append((round(anyio.current_time(), 3), what))

    @property
    def said(self) -> list[str]:
        return [what for _, what in self.seen]

    # -- the user

    def feed(self, item: object) -> None:
        assert self._agent is not None
        self._agent.feed(item)

    def start(self) -> None:
        self.feed(TurnStart())

    def update(self, text: str) -> None:
        self.feed(TurnUpdate(transcript=text))

    def eager(self, text: str) -> None:
        self.feed(TurnEagerEnd(transcript=text))

    def resume(self) -> None:
        self.feed(TurnResume())

    def end(self, text: str) -> None:
        self.feed(TurnEnd(transcript=text))

    def turn(self, text: str) -> None:
        """A whole turn, in one step."""
        self.start()
        self.end(text)

    def guess(self, text: str) -> None:
        """A turn up to its eager end."""
        self.start()
        self.eager(text)


@pytest.fixture
def call() -> Call:
    return Call()


def _flagged_by_mypy(path: Path) -> set[int]:
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-error-summary", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stderr == ""
    found = re.findall(r"^(.+?):(\d+): error: ", done.stdout, re.MULTILINE)
    assert {Path(where).name for where, _ in found} <= {path.name}, done.stdout
    return {int(number) for _, number in found}


def _flagged_by_pyright(path: Path) -> set[int]:
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    found = [each for each in json.loads(done.stdout)["generalDiagnostics"] if each["severity"] == "error"]
    return {each["range"]["start"]["line"] + 1 for each in found}


@pytest.fixture(params=[_flagged_by_mypy, _flagged_by_pyright], ids=["mypy", "pyright"])
def flagged(request: pytest.FixtureRequest) -> Callable[[Path], set[int]]:
    """flagged(path) gives the lines of a file that a type checker refuses."""
    return cast(Callable[[Path], set[int]], request.param)
