"""Reports: from recordings to figures, and how soon the command is there."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import process_time

import pytest

from inkturns.demo.show import recording
from inkturns.report import Fleet, turns_of

pytestmark = pytest.mark.usefixtures("only_new_garbage")  # not what other benchmarks have left on the heap
Hold = Callable[..., float]
CALLS, DIFFERENT = 100_000, 100
HELLO = """
import typer
app = typer.Typer()
@app.command()
def hello(name: str):
    print(f"Hello {name}")
@app.command()
def goodbye(name: str, formal: bool = False):
    print(f"Bye {name}!")
app(prog_name="hello")
"""
FLEET = """
import resource, sys
from time import perf_counter
from inkturns.report import analyse
if __name__ == "__main__":
    begin = perf_counter()
    fleet = analyse(sys.argv[1:], jobs=2)
    figures, intervals = fleet.figures(), fleet.intervals()
    seconds = perf_counter() - begin
    most = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(figures["calls"], fleet.unread, seconds, (most[0] + 2 * most[1]) / 1000)
"""


def test_rows_and_figures(figure: Hold, compare: Hold, say: Callable[[str], None]) -> None:
    lines, times = list(recording()), 20
    rows = turns_of(lines)
    assert len(rows) == 6

    def decoded() -> None:
        for _ in range(times):
            for line in lines:
                json.loads(line)

    def made() -> None:
        for _ in range(times):
            turns_of(lines)

    def added() -> None:
        for _ in range(times):
            Fleet().add(rows)

    compare("rows", made, decoded, per=times)
    compare("figures", added, decoded, per=times)
    seen = figure("rows, alone", milliseconds(made, times))
    say(f"{len(lines)} lines, {sum(map(len, lines)):,} bytes, {1000 / seen:,.0f} calls a second a core")


def milliseconds(work: Callable[[], object], times: int) -> list[float]:
    """CPU time for one of `times` pieces of work, in each of 50 batches."""
    found = []
    for _ in range(50):
        begin = process_time()
        work()
        found.append((process_time() - begin) / times * 1000)
    return found


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    """100,000 names of a hundred recordings: what is read is as much, and takes no room."""
    for n in range(DIFFERENT):
        first = tmp_path / f"{n}.jsonl"
        first.write_bytes(b"".join(recording()).replace(b'"policy":', b'"call":"%d","policy":' % n, 1))
        for again in range(1, CALLS // DIFFERENT):
            os.link(first, tmp_path / f"{n}-{again}.jsonl")
    return tmp_path


def test_a_hundred_thousand_calls(calls: Path, figure: Hold, say: Callable[[str], None]) -> None:
    done = subprocess.run([sys.executable, "-c", FLEET, str(calls)], capture_output=True, text=True, check=True)
    counted, unread, seconds, memory = map(float, done.stdout.split())
    assert (counted, unread) == (CALLS, 0)
    say(f"{CALLS / seconds:,.0f} calls a second")
    figure("fleet", seconds)
    figure("fleet, memory", memory)


def test_help(figure: Hold) -> None:
    ours, theirs = (
        [sys.executable, "-m", "inkturns", "report", "--help"],
        [sys.executable, "-c", HELLO, "hello", "--help"],
    )
    times = [(_cpu(ours), _cpu(theirs)) for _ in range(10)]
    figure("help", min(one for one, _ in times) / min(other for _, other in times))


def _cpu(command: list[str]) -> float:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return used.ru_utime + used.ru_stime
