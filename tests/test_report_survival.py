"""Kaplan-Meier, computed on paper; and against the truth, where most thoughts are cancelled."""

from math import exp, inf, log
from random import Random
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inkturns.report.survival import ENOUGH, NEVER, Latencies, Survival, stratum_of

# Six thoughts: first items after 1, 2, 2 and 5 s; cancelled after 2 and 3 s without one.
#   at 1: 6 wait, 1 comes:  5/6
#   at 2: 5 wait, 2 come:   5/6 * 3/5 = 1/2   (the one that is cancelled at 2 is still waited for)
#   at 5: 1 waits, 1 comes: 1/2 * 0/1 = 0
SIX = [(1.0, True), (2.0, True), (2.0, True), (2.0, False), (3.0, False), (5.0, True)]


def test_the_shares_are_those_on_paper() -> None:
    survival = Survival(SIX)
    assert survival.times == [1.0, 2.0, 5.0]
    assert survival.shares == pytest.approx([5 / 6, 1 / 2, 0.0])
    assert [survival.share(time) for time in (0.5, 1.0, 1.9, 2.0, 4.9, 5.0, 9.0)] == pytest.approx(
        [1, 5 / 6, 5 / 6, 1 / 2, 1 / 2, 0, 0]
    )


def test_quantiles_are_the_times_by_which_so_much_has_come() -> None:
    survival = Survival(SIX)
    assert [survival.quantile(part) for part in (0.1, 1 / 6, 0.2, 0.5, 0.51, 0.9)] == [1, 1, 2, 2, 5, 5]


def test_beyond_the_last_first_item_nothing_is_known() -> None:
    # 1 s: 4 wait, 1 comes: 3/4. The others are cancelled: nobody knows where the other three quarters are.
    survival = Survival([(1.0, True), (2.0, False), (2.0, False), (3.0, False)])
    assert survival.quantile(0.25) == 1.0
    assert survival.quantile(0.5) is None
    assert survival.later(NEVER, 0.7) == inf
    assert survival.last == 1.0
    assert Survival([]).quantile(0.5) is None
    assert Survival([]).last == 0.0


def test_a_draw_that_waits_on_is_of_what_is_left() -> None:
    # Of those that had not come by 1.5 s, 5/6 of all, 2/5 come at 2 s and 3/5 at 5 s.
    survival = Survival(SIX)
    assert survival.later(1.5, 0.61) == 2.0
    assert survival.later(1.5, 0.59) == 5.0
    assert survival.later(5.0, 0.5) == inf
    assert Survival([(0.0, True)]).later(NEVER, 0.5) == 0.0  # a value needs no time


@given(st.lists(st.floats(0, 10), min_size=1), st.floats(0.001, 0.999))
def test_without_cancelled_thoughts_it_is_the_share_of_the_samples(times: list[float], part: float) -> None:
    survival = Survival((time, True) for time in times)
    for time in times:
        assert survival.share(time) == pytest.approx(sum(one > time for one in times) / len(times))
    found = survival.quantile(part)
    assert found is not None
    assert sum(one <= found for one in times) / len(times) >= part - 1e-9


MIDDLE = 0.5  # seconds: the median of the model


def drawn(random: Random, n: int, slower: float = 1.0) -> list[float]:
    return [MIDDLE * slower * exp(random.gauss(0, 0.5)) for _ in range(n)]


def test_where_60_percent_are_cancelled_it_finds_the_median_and_the_naive_one_does_not() -> None:
    naive, estimated, cancelled = [], [], []
    for seed in range(20):
        random = Random(f"cancelled {seed}")
        samples = []
        for first_item in drawn(random, 400):
            gap = MIDDLE * 0.8 * exp(random.gauss(0, 0.7))  # until the user goes on: does not depend on the model
            samples.append((min(first_item, gap), first_item <= gap))
        cancelled.append(1 - sum(seen for _, seen in samples) / len(samples))
        naive.append(median(time for time, seen in samples if seen))
        found = Survival(samples).quantile(0.5)
        assert found is not None
        estimated.append(found)
    assert median(cancelled) == pytest.approx(0.6, abs=0.05)
    assert median(estimated) == pytest.approx(MIDDLE, rel=0.05)
    assert median(naive) < MIDDLE * 0.8
    assert all(abs(found - MIDDLE) < abs(one - MIDDLE) for found, one in zip(estimated, naive, strict=True))


SHORT, LONG = "yes please", "I would like to book a table for four on Friday evening if you have one"


def test_where_long_words_are_slow_and_cancelled_more_strata_are_nearer_to_the_truth() -> None:
    """Long words take the model three times as long, and are said with pauses: their thoughts are cancelled early."""
    errors: dict[str, list[float]] = {"stratified": [], "unstratified": [], "naive": []}
    for seed in range(20):
        random = Random(f"long {seed}")
        latencies, all_true = Latencies(), []
        samples = []
        for words, slower, until in ((SHORT, 1.0, 2.0), (LONG, 3.0, 0.8)):
            for first_item in drawn(random, 400, slower):
                gap = random.expovariate(1 / until)
                samples.append((min(first_item, gap), first_item <= gap))
                latencies.add(stratum_of("", None, words), *samples[-1][:1], seen=samples[-1][1])
                all_true.append(first_item)
        truth = median(all_true)
        mixed = [
            latencies.of(stratum_of("", None, words)).later(NEVER, random.random())
            for words in (SHORT, LONG)
            for _ in range(400)
        ]
        estimates = {
            "stratified": median(mixed),
            "unstratified": Survival(samples).quantile(0.5) or inf,
            "naive": median(time for time, seen in samples if seen),
        }
        for name, value in estimates.items():
            errors[name].append(abs(log(value / truth)))
    typical = {name: median(values) for name, values in errors.items()}
    assert typical["stratified"] < typical["unstratified"] / 1.5 < typical["naive"]


def test_a_stratum_with_few_first_items_is_taken_with_its_neighbours() -> None:
    latencies = Latencies()
    assert not latencies.known
    assert latencies.of(stratum_of("a", "gpt", "yes")).times == []
    for _ in range(ENOUGH):
        latencies.add(stratum_of("a", "gpt", SHORT), 1.0, seen=True)
    for _ in range(ENOUGH - 1):
        latencies.add(stratum_of("a", "gpt", LONG), 2.0, seen=True)
    latencies.add(stratum_of("a", "gpt", LONG), 3.0, seen=False)
    assert latencies.known
    assert latencies.of(stratum_of("a", "gpt", SHORT)).times == [1.0]
    assert latencies.of(stratum_of("a", "gpt", LONG)).times == [1.0, 2.0]  # all of that model
    assert latencies.of(stratum_of("b", None, SHORT)).times == [1.0, 2.0]  # all that there are
    latencies.add(stratum_of("a", "gpt", LONG), 2.0, seen=True)
    assert latencies.of(stratum_of("a", "gpt", LONG)).times == [2.0]


def test_words_are_alike_by_about_their_number() -> None:
    numbers = [stratum_of("a", "gpt", "w " * n)[2] for n in (1, 2, 3, 4, 7, 8, 15, 16)]
    assert numbers == ["1", "2", "2", "3", "3", "4", "4", "5"]
