"""What all tests share: how long they look; and, for the async ones, virtual time on each backend, and a call."""

import inspect
import signal
from collections.abc import AsyncIterable
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, settings

from inkturns.actions import Report, Turn
from inkturns.agent import Agent, Settled, Thought
from inkturns.events import TurnEagerEnd, TurnEnd, TurnResume, TurnStart, TurnUpdate
from inkturns.testing import virtual

# Deterministic: a red run is red again. Sessions are drawn step by step, which Hypothesis takes for slowness.
settings.register_profile(
    "default", derandomize=True, deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("deep", settings.get_profile("default"), derandomize=False, max_examples=5000)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--deep", action="store_true", help="look longer: hours, for the exhaustive walk")


def pytest_configure(config: pytest.Config) -> None:
    # A shell that starts the tests with & has them ignore Ctrl-C, and the commands that they start inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    settings.load_profile("deep" if config.getoption("--deep") else "default")


@pytest.fixture(scope="session")
def deep(pytestconfig: pytest.Config) -> bool:
    return bool(pytestconfig.getoption("--deep"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if inspect.iscoroutinefunction(metafunc.function):
        metafunc.fixturenames.append("backend")
        metafunc.parametrize("backend", virtual.BACKENDS)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Runs an async test in virtual time; one that waits for what will not come fails after a day of it."""
    if not inspect.iscoroutinefunction(pyfuncitem.function):
        return None
    given = {name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.function).parameters}

    async def limited() -> None:
        with anyio.fail_after(86_400):
            await pyfuncitem.function(**given)

    virtual.run(limited, backend=str(pyfuncitem.callspec.params["backend"]))
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
        async def respond(turn: Turn | None, thought: Thought) -> None:
            await self.speak(thought)

        return agent

    async def speak(self, thought: AsyncIterable[object]) -> None:
        async for item in thought:
            self.see(f"{item}")

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
