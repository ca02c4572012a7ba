"""When Ink's client tries again."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from inkturns.ink.backoff import LONGEST, Backoff, Limiter, retry_after


def longest(low: float, high: float) -> float:
    assert low == 0
    return high


def test_the_pauses_grow_from_a_tenth_of_a_second_to_five() -> None:
    backoff = Backoff(None, longest)
    pauses = [backoff.pause() for _ in range(30)]
    assert pauses[:7] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0]
    assert set(pauses[6:]) == {LONGEST}


def test_full_jitter_spreads_the_clients_over_the_whole_pause() -> None:
    pauses = []
    for _ in range(1000):
        backoff = Backoff(None)
        for _ in range(8):
            pause = backoff.pause()
        pauses.append(pause)
    assert all(0 <= pause <= 5 for pause in pauses)
    for part in range(5):
        assert sum(part <= pause < part + 1 for pause in pauses) > 120


def test_f61_a_connection_that_lived_sets_it_back_and_no_other() -> None:
    backoff = Backoff(30, longest)
    for _ in range(5):
        backoff.pause()
    backoff.outage = 12
    backoff.over(9.9, accepted=True)
    assert (backoff.left, backoff.pause()) == (18, 3.2)
    backoff.over(10, accepted=False)  # nobody spoke: it was outage too
    assert (backoff.left, backoff.pause()) == (8, 5.0)
    backoff.over(10, accepted=True)
    assert (backoff.left, backoff.pause()) == (30, 0.1)


def test_how_much_outage_is_left() -> None:
    assert Backoff(None, outage=1e9).left is None
    assert Backoff(30, outage=1e9).left == 0


@pytest.fixture
def clock() -> Callable[[], float]:
    return lambda: 7.0


def test_a_limiter_gives_each_its_own_place(clock: Callable[[], float]) -> None:
    limiter = Limiter(100, clock)
    assert [round(limiter.wait(), 6) for _ in range(4)] == [0, 0.01, 0.02, 0.03]


def test_a_place_that_nobody_took_is_no_debt() -> None:
    time = 0.0
    limiter = Limiter(10, lambda: time)
    assert limiter.wait() == 0
    time = 5.0
    assert [round(limiter.wait(), 6) for _ in range(2)] == [0, 0.1]


def test_no_place_is_given_twice_to_threads(clock: Callable[[], float]) -> None:
    limiter = Limiter(1000, clock)
    with ThreadPoolExecutor(8) as threads:
        places = list(threads.map(lambda _: round(limiter.wait() * 1000), range(4000)))
    assert sorted(places) == list(range(4000))


NOON = datetime(2026, 9, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7),
        (" 120 ", 120),
        ("0", 0),
        ("Tue, 01 Sep 2026 12:00:30 GMT", 30),
        ("Tue, 01 Sep 2026 12:00:30 -0000", 30),
        ("Tue, 01 Sep 2026 11:00:00 GMT", 0),
        ("soon", 0),
        ("-5", 0),
        ("Tue, 01 Sep 99999999999 12:00:30 GMT", 0),
        ("Tue, 01 Sep 2026 12:00:30 +9999999999", 0),
        ("1e9", 0),
        ("", 0),
    ],
)
def test_retry_after(value: str, seconds: float) -> None:
    assert retry_after(value, NOON) == seconds


def test_retry_after_counts_from_now() -> None:
    date = (datetime.now(UTC) + timedelta(seconds=60)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    assert 50 < retry_after(date) <= 60
