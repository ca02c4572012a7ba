"""What the benchmarks share: the list of figures with their bars, how two contenders are timed, the table at the end.

Rules of this directory:
- A figure is a ratio to something named, taken in one run, wherever it can be: a machine's speed cancels out.
- Two contenders run in turn, in many short batches. The figure is the lowest batch: whatever else the machine does can
  only slow a batch down. The spread, lowest to highest batch, says how quiet the machine was.
- A test fails only above the bar. The aim is where we would like to be, and is shown beside it.
- Each figure stands in FIGURES, which README.md repeats; a test compares the two.
"""

import gc
import os
import platform
import statistics
from collections.abc import Callable, Iterable, Sequence
from time import perf_counter
from typing import NamedTuple

import pytest

BATCHES, ROUNDS = 15, 21


class Figure(NamedTuple):
    """One row of the table. Without a unit it is a ratio; without a bar it is shown and not held."""

    what: str
    bar: float | None = None
    aim: float | None = None
    unit: str = ""


# Flux and manual: Ink 2's own frames became a tenth quicker, which alone moves these ratios. The bars are the same as
# before in terms of the hand-written loop: 1.75 and 1.5, times 0.85, through the 0.773 of now.
FIGURES = {
    "frame": Figure("a raw frame to a hook through `Turns.feed`, to a hand-written loop", 0.85, 0.75),
    "flux": Figure("a Flux frame through `Turns.feed`, to Ink 2's frames of the same turn", 1.92, 1.4),
    "manual": Figure("a chunk of Ink without turns, to Ink 2's frames of the same turn", 1.65, 1.4),
    "words": Figure("a word of an update of 10,000, to `json.loads` alone", 1.0),
    "machine": Figure("memory of a machine, new or after a turn", 400, None, "bytes"),
    "million": Figure("a thousand turns after a million, to a new machine's first", 1.1, 1.0),
    "late update": Figure("an update after 10,000 turns, to one after the first", 1.1, 1.0),
    "import": Figure("`import inkturns`, to `import cartesia`", 0.35, 0.28),
    "warm turn": Figure("a warm turn of an `Agent`, to a hand-written asyncio handler", 1.75, 1.4),
    "begin, asyncio": Figure("eager end fed to the first line of `think`, to `start_soon`, asyncio", 0.95, 0.8),
    "begin, trio": Figure("eager end fed to the first line of `think`, to `start_soon`, trio", 1.8, 1.5),
    "cancel, asyncio": Figure("resume fed to the cancellation in `think`, to `CancelScope.cancel`, asyncio", 0.75, 0.6),
    "cancel, trio": Figure("resume fed to the cancellation in `think`, to `CancelScope.cancel`, trio", 1.6, 1.4),
    "agents, CPU": Figure("1,000 agents at 5 frames a second: CPU, to hand-written", None, 1.3),
    "agents, p99": Figure("1,000 agents: p99 from a frame to its role, to hand-written", None, 2.0),
    "idle agent": Figure("memory of an agent in its call, beyond the task that reads its frames", 8.0, 6.0, "KiB"),
    "first item": Figure("first item after the end, off max(0, L - gap), in virtual time", 0.0, 0.0, "s"),
    "soak": Figure("memory that 200 calls keep after 100,000 turns, beyond what they keep at first", 16.0, 0.0, "KiB"),
    "spoken": Figure("`turn.end` on the socket to the first spoken item, beyond a bare client", 1.0, None, "ms"),
    "sound out": Figure("a chunk of sound through `Ink` onto the socket, to `await socket.send`", 1.3, 1.0),
    "frames in": Figure(
        "a frame on the socket through `Ink` to `Turns.feed`, to `async for` over the socket", 1.3, 1.0
    ),
    "call": Figure(
        "memory of an `Ink` in its call, beyond a bare connection that is read and sent to", 16.0, None, "KiB"
    ),
    "traced agent": Figure(
        "CPU of a turn of an instrumented agent with Ink's client, 5 frames a second, to one without", 1.1, 1.05
    ),
    "traced agent, sampled out": Figure("the same in a call that `sample` leaves out", 1.03, 1.0),
    "200 sessions, p99": Figure("200 sessions in real time against one emulator: lateness, p99", 50.0, 20.0, "ms"),
    "200 sessions, CPU": Figure("the emulator's CPU for them, to a bare server's that sends the same frames", 2.0, 1.5),
    "200 sessions, share": Figure("the emulator's share of a core for them", None, 40.0, "%"),
    "400 sessions, p99": Figure("400 sessions in real time against one emulator: lateness, p99", None, None, "ms"),
    "rows": Figure("the demo's call from its lines to rows, to `json.loads` of its lines", 1.0, 0.6),
    "rows, alone": Figure("CPU time of that: 0.4 is 2,500 calls a second a core", None, 0.4, "ms"),
    "figures": Figure("the rows of the demo's call into a `Fleet`, to `json.loads` of its lines", 0.3, 0.15),
    "fleet": Figure("100,000 recordings of the demo's call to figures, on two processes", 60.0, 45.0, "s"),
    "fleet, memory": Figure("memory of these processes together, at the most", 300.0, 150.0, "MB"),
    "help": Figure("CPU time of `inkturns report --help`, to that of the hello of Typer's tutorial", 1.5, 1.25),
}

Compare = Callable[..., float]
Hold = Callable[..., float]
SEEN = pytest.StashKey[dict[str, Sequence[float]]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[SEEN] = {}


@pytest.fixture
def figure(pytestconfig: pytest.Config) -> Hold:
    """figure(name, value or values of batches) puts the lowest into the table, and fails where it is above the bar."""

    def of(name: str, values: float | Iterable[float]) -> float:
        batches = [values] if isinstance(values, int | float) else list(values)
        pytestconfig.stash[SEEN][name] = batches
        seen, bar = min(batches), FIGURES[name].bar
        assert bar is None or seen <= bar, f"{FIGURES[name].what}: {seen:.3g}, the bar is {bar:g}"
        return seen

    return of


@pytest.fixture
def compare(figure: Hold, say: Callable[[str], None]) -> Compare:
    """compare(name, ours, theirs, per=1) times the two in turn: of each batch the median of the rounds' ratios. `per`
    is how many frames or turns a call has, for the line that says the times."""

    def of(name: str, ours: Callable[[], object], theirs: Callable[[], object], per: int = 1) -> float:
        seconds: dict[Callable[[], object], list[float]] = {ours: [], theirs: []}
        gc.collect()
        gc.freeze()  # a collection must not look through what pytest has on the heap
        for _ in range(BATCHES * ROUNDS):
            for contender, times in seconds.items():
                gc.collect()
                begin = perf_counter()
                contender()
                times.append(perf_counter() - begin)
        gc.unfreeze()
        ratios = [a / b for a, b in zip(seconds[ours], seconds[theirs], strict=True)]
        say("{:.3f} µs to {:.3f} µs".format(*(statistics.median(times) / per * 1e6 for times in seconds.values())))
        return figure(name, [statistics.median(ratios[at : at + ROUNDS]) for at in range(0, len(ratios), ROUNDS)])

    return of


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> Callable[[str], None]:
    """say(text) prints at once what the table has no room for."""

    def of(text: str) -> None:
        with capsys.disabled():
            print(f"\n{request.node.name}: {text}")

    return of


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    seen = config.stash[SEEN]
    if not seen:
        return
    rows = [("figure", "seen", "bar", "aim", "spread")]
    for name, batches in ((name, seen[name]) for name in FIGURES if name in seen):
        what, bar, aim, unit = FIGURES[name]
        low, high = min(batches), max(batches)
        held, wanted = ("" if it is None else f"{it:g}" for it in (bar, aim))
        spread = f"{low:.3g} to {high:.3g}" if len(batches) > 1 else ""
        rows.append((f"{name}: {what}", f"{low:.3g} {unit}".rstrip(), held, wanted, spread))
    title = f"figures on Python {platform.python_version()}, {os.cpu_count()} cores: a ratio where no unit is said"
    terminalreporter.section(title)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *rest in rows:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))]
        terminalreporter.write_line("  ".join(cells).rstrip())
