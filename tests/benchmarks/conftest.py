"""What the benchmarks share: speed is a ratio, taken in one run, in turns, against something named."""

import gc
import statistics
from collections.abc import Callable
from time import perf_counter

import pytest

Compare = Callable[..., float]


@pytest.fixture
def compare(benchmark: object, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> Compare:
    """compare(ours, theirs, rounds) gives the median of the rounds' ratios of time, ours to theirs, and prints it: of
    fifteen such medians the lowest, since a shared machine has bad seconds, that slow one of them down more."""

    def of(ours: Callable[[], object], theirs: Callable[[], object], rounds: int = 21, per: int = 1) -> float:
        seconds: dict[Callable[[], object], list[float]] = {ours: [], theirs: []}
        gc.collect()
        gc.freeze()  # what pytest has on the heap is not to be looked through by either
        for _ in range(15 * rounds):
            for contender, times in seconds.items():
                gc.collect()
                begin = perf_counter()
                contender()
                times.append(perf_counter() - begin)
        gc.unfreeze()
        ratios = [a / b for a, b in zip(seconds[ours], seconds[theirs], strict=True)]
        ratio = min(statistics.median(ratios[at : at + rounds]) for at in range(0, len(ratios), rounds))
        ours_us, theirs_us = (statistics.median(times) / per * 1e6 for times in seconds.values())
        benchmark.extra_info.update(ratio=ratio, theirs_us=theirs_us)  # type: ignore[attr-defined]
        benchmark.pedantic(ours, rounds=3)  # type: ignore[attr-defined]
        with capsys.disabled():
            print(f"\n{request.node.name}: {ratio:.2f} ({ours_us:.3f} µs to {theirs_us:.3f} µs)")
        return ratio

    return of


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> Callable[[str], None]:
    """say(text) prints a figure, whatever is captured."""

    def of(text: str) -> None:
        with capsys.disabled():
            print(f"\n{request.node.name}: {text}")

    return of
