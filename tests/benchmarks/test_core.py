"""The core's figures. Run: pytest tests/benchmarks"""

import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from time import perf_counter

from inkturns import TurnMachine, Turns
from inkturns.events import TurnEagerEnd, TurnEnd, TurnResume, TurnStart, TurnUpdate

WORDS = ["Hi", "I", "need", "to", "cancel", "my", "subscription", "please", "because", "it", "got", "too", "expensive"]
TURNS = 300

Compare = Callable[..., float]
Hold = Callable[..., float]


def frame(kind: str, transcript: str | None = None) -> str:
    message = {"type": kind, "request_id": "2ff8af53-4d38-479d-8287-58940f01c701"}
    return json.dumps(message if transcript is None else message | {"transcript": transcript})


def said(words: int) -> str:
    return " ".join(WORDS[:words])


TURN = [
    frame("turn.start"),
    *(frame("turn.update", said(n)) for n in range(1, 9)),
    frame("turn.eager_end", said(8)),
    frame("turn.resume"),
    *(frame("turn.update", said(n)) for n in range(9, 13)),
    frame("turn.eager_end", said(12)),
    frame("turn.end", said(12)),
]
STREAM = TURN * TURNS


def hand_written() -> None:
    """json.loads and an if-chain that keeps a state and calls a callback: what a user writes today."""
    state, text = "idle", ""
    heard: list[object] = []
    call = heard.append
    for raw in STREAM:
        message = json.loads(raw)
        kind = message["type"]
        if kind == "turn.update":
            if state == "speaking":
                text = message["transcript"]
                call(("update", text))
        elif kind == "turn.start":
            state = "speaking"
            call(("listen",))
        elif kind == "turn.eager_end":
            state = "eager"
            call(("think", message["transcript"]))
        elif kind == "turn.resume":
            state = "speaking"
            call(("cancel",))
        elif kind == "turn.end":
            state = "idle"
            call(("respond", message["transcript"]))
    assert len(heard) == len(STREAM)


def through_turns() -> Callable[[], None]:
    """Raw frame to hook, a hook on each of the five events."""
    turns = Turns()
    heard: list[object] = []
    for on in (turns.on_start, turns.on_update, turns.on_eager_end, turns.on_resume, turns.on_end):
        on(heard.append)

    def run() -> None:
        feed = turns.feed
        for raw in STREAM:
            feed(raw)
        assert len(heard) == len(STREAM)
        heard.clear()

    return run


def test_feed_against_hand_written(compare: Compare) -> None:
    """To hooks on the five events, both with the same decoding of the same text frames."""
    compare("frame", through_turns(), hand_written, per=len(STREAM))


def test_memory_of_an_idle_machine(figure: Hold, say: Callable[[str], None]) -> None:
    """Beyond what all machines share: new, and after a turn."""

    def after_a_turn() -> TurnMachine:
        machine = TurnMachine()
        for event in (TurnStart(), TurnUpdate("yes"), TurnEnd("yes")):
            machine.receive(event)
        return machine

    sizes = []
    for make in (TurnMachine, after_a_turn):
        make()
        tracemalloc.start()
        machines = [make() for _ in range(1000)]
        size = tracemalloc.get_traced_memory()[0] / len(machines)
        tracemalloc.stop()
        say(f"{size:.0f} bytes, {make.__name__}")
        sizes.append(size)
    figure("machine", max(sizes))


def test_a_million_turns(compare: Compare, say: Callable[[str], None]) -> None:
    """Flat: a thousand turns take as long after a million as on a new machine, and keep no more memory."""
    turn = (
        TurnStart(request_id="r", turn_id="1"),
        TurnUpdate("book a", request_id="r", turn_id="1"),
        TurnEagerEnd("book a", request_id="r", turn_id="1"),
        TurnResume(request_id="r", turn_id="1"),
        TurnEnd("book a table", request_id="r", turn_id="1"),
    )

    def thousand(machine: TurnMachine) -> None:
        for _ in range(1000):
            for event in turn:
                machine.receive(event)

    def size(machine: TurnMachine) -> int:
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        thousand(machine)
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        return grown

    machine = TurnMachine()
    thousand(machine)
    first_size = size(machine)
    for _ in range(1000):
        thousand(machine)
    compare("million", lambda: thousand(machine), lambda: thousand(TurnMachine()), per=5000)
    last_size = size(machine)
    say(f"bytes kept by a thousand turns: {first_size} at first, {last_size} in the end")
    assert machine.turn is None
    assert last_size <= first_size + 1024


def test_update_after_many_turns(compare: Compare) -> None:
    """An update costs the same after ten thousand turns as after one."""

    def updates_after(turns: int) -> Callable[[], object]:
        machine = TurnMachine()
        for number in range(turns):
            for event in (TurnStart(turn_id=str(number)), TurnEnd("yes", turn_id=str(number))):
                machine.receive(event)
        machine.receive(TurnStart(turn_id="last"))
        events = [TurnUpdate(said(n), turn_id="last") for n in range(1, 13)] * 300
        return lambda: [machine.receive(event) for event in events]

    compare("late update", updates_after(10_000), updates_after(1), per=3600)


def test_update_of_many_words(figure: Hold, say: Callable[[str], None]) -> None:
    """From 10 to 10,000 words, an update's cost grows no faster than that of json.loads, in seconds a word."""

    def frames(length: int) -> list[str]:
        text = "word " * length
        return [frame("turn.update", text + "word " * more) for more in range(50)]

    def seconds(call: Callable[[str], object], some: list[str]) -> float:
        times = []
        for _ in range(25):
            begin = perf_counter()
            for raw in some:
                call(raw)
            times.append(perf_counter() - begin)
        return min(times) / len(some)

    turns = Turns()
    turns.feed(frame("turn.start"))
    costs = {
        words: (seconds(turns.feed, frames(words)), seconds(json.loads, frames(words)))
        for words in (10, 100, 1000, 10_000)
    }
    for words, (ours, theirs) in costs.items():
        say(f"{words} words: {ours * 1e6:.2f} µs; json.loads {theirs * 1e6:.2f} µs")
    ours, theirs = (long - short for long, short in zip(costs[10_000], costs[10], strict=True))
    figure("words", ours / theirs)


def printed_by(code: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    ).stdout


def test_import(figure: Hold, say: Callable[[str], None]) -> None:
    """Against the vendor's SDK; and `import inkturns` brings neither asyncio nor anyio."""

    def seconds(module: str) -> float:
        code = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
        return float(printed_by(code))

    for module in ("inkturns", "cartesia"):
        seconds(module)  # the first writes byte code
    pairs = [(seconds("inkturns"), seconds("cartesia")) for _ in range(9)]
    ours, theirs = (min(times) * 1000 for times in zip(*pairs, strict=True))  # what else runs here can only add
    say(f"{ours:.0f} ms to {theirs:.0f} ms")
    code = "import sys, inkturns; print(sorted({'asyncio', 'anyio'} & set(sys.modules)))"
    assert printed_by(code) == "[]\n"
    figure("import", ours / theirs)
