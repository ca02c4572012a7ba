"""Fleets: figures that were computed on paper, and the same figures however the calls are split."""

import json
import math
import random
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import inkturns.report
from inkturns.report import Fleet, ThoughtRow, TurnRow
from inkturns.report.bootstrap import GROUPS, drawn
from inkturns.report.fleet import COUNTS, RATIOS, TIMES, Sums, bucket, quantiles
from tests.test_report_rows import ROWS


def fleet(*recordings: list[TurnRow]) -> Fleet:
    made = Fleet()
    for rows in recordings:
        made.add(rows)
    return made


def of_one(value: float) -> dict[str, Any]:
    return {name: pytest.approx(value, rel=0.01) for name in ("p50", "p90", "p95", "p99")}


def turn(number: int = 1, **fields: Any) -> TurnRow:
    given: dict[str, Any] = {"number": number, "end": "server", "answered": True, "length": 5}
    return TurnRow(**given | fields)


def ahead(saved: float, **fields: Any) -> TurnRow:
    """A turn whose reply was thought ahead."""
    thought = ThoughtRow(number=1, speculative=True, outcome="adopted")
    return turn(thoughts=(thought,), saved=saved, **fields)


# -- figures


def test_the_figures_of_one_call_are_what_is_computed_on_paper() -> None:
    figures = fleet(ROWS).figures()
    assert figures == {
        "calls": 1,
        "turns": 3,  # 1, 2 and 4
        "abandoned": {"empty": 1},  # 3
        "eager_ends": 4,  # 2 + 2
        "resumes": 1,
        "thoughts": 6,  # 2 + 1 + 3
        "adopted": 3,
        "cancelled": {"resumed": 1, "superseded": 1},
        "failed": 1,
        "finished_unused": 1,  # the first of turn 4
        "unused": 3,  # 6 - 3
        "turns_ahead": pytest.approx(1 / 3),  # turn 1 of three
        "hit_rate": 0.25,  # of the speculative ones, two of turn 1 and two of turn 4
        "waste_ratio": 0.5,  # 3 of 6
        "extra_calls_per_turn": 1.0,  # 3 for 3 turns
        "adopted_inexact": 1,  # "book it" for "book it."
        "wasted_tokens": 165,  # 105 + 60
        "wasted_cost": 0.0015,  # 0.001 + 0.0005
        "wasted_cost_per_turn": 0.0005,  # for 3 turns
        "usage_known": 0.5,  # of three of six
        "peak_calls": 1,
        "gap": of_one(0.5),
        "head_start": {  # 0.5, 0, 0
            "p50": 0.0,
            **{name: pytest.approx(0.5, rel=0.01) for name in ("p90", "p95", "p99")},
        },
        "first_item": {  # 0.25, 0.375, 0.375: the second of three, and the third
            name: pytest.approx(0.375, rel=0.01) for name in ("p50", "p90", "p95", "p99")
        },
        "saved": {"p50": 0.0, **{name: pytest.approx(0.375, rel=0.01) for name in ("p90", "p95", "p99")}},
        "saved_ahead": of_one(0.375),  # of turn 1: min(0.5, 0.375)
        "end_to_first_item": {"p50": 0.0, **{name: pytest.approx(0.375, rel=0.01) for name in ("p90", "p95", "p99")}},
        "end_to_first_item_without": of_one(0.375),
        "end_to_first_sound": {  # 0.25, 0.5
            "p50": pytest.approx(0.25, rel=0.01),
            **{name: pytest.approx(0.5, rel=0.01) for name in ("p90", "p95", "p99")},
        },
        "false_end_rate": 0.0,
        "interrupts": 1,  # of the reply to turn 2
        "backchannels": 0,
        "forced": 0,
        "stalled": 0,
        "lost": 0,
        "reports": {"stuck_task": 1},
    }
    assert set(figures) >= {*COUNTS, *RATIOS, *TIMES}


def test_of_nothing_counts_are_0_and_the_rest_is_not_known() -> None:
    figures = Fleet().figures()
    assert {name: figures[name] for name in COUNTS} == dict.fromkeys(COUNTS, 0)
    assert {name: figures[name] for name in (*RATIOS, *TIMES)} == dict.fromkeys((*RATIOS, *TIMES))
    assert Fleet().intervals() == dict.fromkeys((*RATIOS, *TIMES))


def test_each_end_is_counted_by_its_name() -> None:
    ends = ("forced", "stalled", "lost", "backchannel", "lost", "superseded")
    rows = [turn(n, end=end, answered=end in ("forced", "stalled")) for n, end in enumerate(ends)]
    figures = fleet(rows).figures()
    assert {name: figures[name] for name in ("turns", "forced", "stalled", "lost", "backchannels")} == {
        "turns": 2,
        "forced": 1,
        "stalled": 1,
        "lost": 2,
        "backchannels": 1,
    }
    assert figures["abandoned"] == {"backchannel": 1, "lost": 2, "superseded": 1}


def test_a_thought_that_never_ran_cost_nothing() -> None:
    never = ThoughtRow(number=1, speculative=True, outcome="cancelled", reason="resumed", ran=False)
    figures = fleet([turn(thoughts=(never,))]).figures()
    assert (figures["thoughts"], figures["unused"], figures["cancelled"]) == (0, 0, {"resumed": 1})
    assert (figures["waste_ratio"], figures["hit_rate"]) == (None, 0.0)


def test_a_turn_that_goes_on_after_its_end_counts_against_all_turns() -> None:
    rows = [turn(1), turn(2, false_end=True), turn(3), turn(4)]
    assert fleet(rows).figures()["false_end_rate"] == 0.25


def test_calls_are_told_apart_by_where_they_begin() -> None:
    rows = [turn(1, begins=1), turn(2, begins=1), turn(1, begins=9)]
    assert fleet(rows, [turn(1, begins=1)], []).figures()["calls"] == 3


def test_the_most_calls_at_once_is_the_most_of_any_call() -> None:
    made = fleet([turn(peak_calls=2)], [turn(peak_calls=5), turn(2)]) + fleet([turn(peak_calls=3)])
    assert made.figures()["peak_calls"] == 5


def test_figures_are_json() -> None:
    made = fleet(ROWS, [ahead(0.25)])
    assert json.loads(json.dumps(made.figures())) == made.figures()
    assert json.loads(json.dumps(made.intervals())) == made.intervals()
    assert "true" not in json.dumps(made.figures())


README = (Path(inkturns.report.__file__).parent / "README.md").read_text(encoding="utf-8")


def test_the_readme_names_every_figure_and_no_other() -> None:
    named = re.findall(r"^\| (`.*?) \|", README[README.index("## The figures") :], re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", " ".join(named))) == sorted(Fleet().figures())


# -- quantiles


@given(st.lists(st.floats(1e-8, 1e8), min_size=1, max_size=200))
def test_quantiles_are_within_a_percent_of_the_nearest_rank(values: list[float]) -> None:
    buckets: dict[int, int] = {}
    for value in values:
        buckets[bucket(value)] = buckets.get(bucket(value), 0) + 1
    found = quantiles(buckets)
    assert found is not None
    for name, share in (("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99)):
        exact = sorted(values)[math.ceil(share * len(values)) - 1]
        assert found[name] == pytest.approx(exact, rel=0.00501)


def test_no_time_is_0() -> None:
    assert quantiles({bucket(0.0): 2, bucket(1e-300): 1}) == dict.fromkeys(("p50", "p90", "p95", "p99"), 0.0)
    assert quantiles({}) is None
    assert quantiles({3: 0}) is None


# -- however they are split


rows = st.builds(
    turn,
    st.integers(1, 9),
    begins=st.integers(0, 2),
    answered=st.booleans(),
    end=st.sampled_from(("server", "lost", "forced", "empty")),
    eager_ends=st.integers(0, 3),
    saved=st.none() | st.floats(0, 5),
    gap=st.none() | st.floats(0, 5),
    reports=st.dictionaries(st.sampled_from(("late", "foreign")), st.integers(1, 3)),
    peak_calls=st.none() | st.integers(1, 3),
    thoughts=st.lists(
        st.builds(
            ThoughtRow,
            number=st.integers(1, 3),
            speculative=st.booleans(),
            outcome=st.sampled_from(("adopted", "cancelled", "failed")),
            reason=st.none() | st.sampled_from(("resumed", "moved")),
            ran=st.none() | st.booleans(),
            usage=st.booleans(),
            tokens=st.integers(0, 999),
            cost=st.floats(0, 1),
        ),
        max_size=3,
    ).map(tuple),
)
recordings = st.lists(st.lists(rows, max_size=4), max_size=8)


@given(recordings, recordings, recordings)
def test_adding_fleets_is_associative_and_commutative(
    a: list[list[TurnRow]], b: list[list[TurnRow]], c: list[list[TurnRow]]
) -> None:
    one, two, three = fleet(*a), fleet(*b), fleet(*c)
    assert one + (two + three) == (one + two) + three
    assert one + two == two + one
    assert one + Fleet() == one
    assert (one, two, three) == (fleet(*a), fleet(*b), fleet(*c))  # adding changes neither


@given(recordings, st.randoms(use_true_random=False))
def test_any_split_in_any_order_gives_the_same_figures(calls: list[list[TurnRow]], chance: random.Random) -> None:
    parts = [Fleet() for _ in range(3)]
    for call in chance.sample(calls, len(calls)):
        chance.choice(parts).add(call)
    chance.shuffle(parts)
    together = parts[0] + parts[1] + parts[2]
    assert msgspec.json.encode(together.figures()) == msgspec.json.encode(fleet(*calls).figures())
    assert together == fleet(*calls)


def test_its_size_does_not_grow_with_the_number_of_calls() -> None:
    made = fleet(*([ahead(0.01 * n, call=str(n))] for n in range(3000)))
    assert made.figures()["calls"] == 3000
    assert len(made._groups) == GROUPS


# -- arms, clusters, the worst


def test_arms_are_told_apart_by_a_label_the_policy_the_settings_or_the_source() -> None:
    rows = [
        turn(labels={"arm": "b"}, policy={"think_after": 0.1, "match": "inkturns.policy.same_text"}, call="1"),
        turn(labels={"arm": "a"}, settings={"end_threshold": 0.5}, source="Flux", call="2"),
        turn(call="3"),
    ]
    arms = {
        "arm": ["(none)", "a", "b"],
        "policy": ["default", "match=same_text, think_after=0.1"],
        "settings": ["default", "end_threshold=0.5"],
        "source": ["Flux", "unknown"],
    }
    for by, names in arms.items():
        made = Fleet(by)
        for row in rows:
            made.add([row])
        assert list(made.arms()) == names
        assert sum(arm.figures()["calls"] for arm in made.arms().values()) == made.figures()["calls"] == 3
    assert list(fleet([turn()]).arms()) == [""]


def test_fleets_add_up_where_they_tell_arms_apart_alike() -> None:
    with pytest.raises(ValueError, match="got 'a', None and 'b', 'c'"):
        Fleet("a") + Fleet("b", "c")


def test_what_is_unread_adds_up() -> None:
    one, two = Fleet(), Fleet()
    one.unread, one.faults, one.left_out, two.unread = 1, 2, 3, 4
    both = one + two
    assert (both.unread, both.faults, both.left_out) == (5, 2, 3)


def test_calls_of_a_cluster_are_no_independent_evidence() -> None:
    """200 calls of 10 customers, each all ahead or not at all: as wide as for 10 calls."""
    plain, clustered = Fleet(), Fleet(cluster="customer")
    for n in range(200):
        made = msgspec.structs.replace(
            ahead(1.0) if n % 10 < 5 else turn(), call=str(n), labels={"customer": str(n % 10)}
        )
        plain.add([made])
        clustered.add([made])
    narrow, wide = plain.intervals()["turns_ahead"], clustered.intervals()["turns_ahead"]
    assert wide[1] - wide[0] > 2.5 * (narrow[1] - narrow[0])


def test_the_ten_worst_calls_are_kept_and_of_equals_the_first() -> None:
    made = Fleet()
    for n in (*range(9), 12, 11, 10, 9, 0):
        made.add([turn(reports={"late": min(n, 11)}, call=str(n))], f"{n:02}.jsonl")
    assert [(-one.low, one.file) for one in made.worst()["reports"]] == [
        (11, "11.jsonl"),
        (11, "12.jsonl"),
        *((n, f"{n:02}.jsonl") for n in range(10, 2, -1)),
    ]


@given(recordings, st.randoms(use_true_random=False))
def test_the_worst_are_the_same_in_any_order(calls: list[list[TurnRow]], chance: random.Random) -> None:
    parts = [Fleet() for _ in range(3)]
    named = [(call, f"{n}.jsonl") for n, call in enumerate(calls * 3)]
    everything = Fleet()
    for call, name in named:
        everything.add(call, name)
    for call, name in chance.sample(named, len(named)):
        chance.choice(parts).add(call, name)
    assert (parts[2] + (parts[0] + parts[1])).worst() == everything.worst()
    assert all(len(kept) <= 10 for kept in everything.worst().values())


def test_net_is_what_seconds_are_worth_less_what_thoughts_cost() -> None:
    """Two turns save 0.5 s and 0.25 s; one unused thought cost 0.1: at 1.0 a second (0.75 - 0.1) / 2 = 0.325."""
    wasted = ThoughtRow(number=1, speculative=True, outcome="cancelled", reason="resumed", cost=0.1)
    one, two = ahead(0.5, call="a"), turn(thoughts=(wasted,), saved=0.25, call="c")
    of_one = fleet([one, two]).net_per_turn(1.0)  # rows of one call
    assert of_one is not None
    assert of_one[0] == pytest.approx(0.325)
    assert of_one[1] is None
    net = fleet([one], [two]).net_per_turn(1.0)
    assert net is not None
    assert net[1] is not None
    assert net[1] == [pytest.approx(0.15), pytest.approx(0.5)]  # where the second alone is drawn, or the first
    assert Fleet().net_per_turn(1.0) is None


# -- intervals


def test_intervals_hold_what_is_known_of_how_calls_differ() -> None:
    """Of 400 calls with a turn each, half are ahead: the share of 0.5 has a standard error of sqrt(0.25 / 400) = 0.025,
    so its interval is about 0.45 to 0.55."""
    calls = [[ahead(1.0, call=str(n)) if n % 2 else turn(call=str(n), saved=0.0)] for n in range(400)]
    intervals = fleet(*calls).intervals()
    least, most = intervals["turns_ahead"]
    assert 0.43 < least < 0.47
    assert 0.53 < most < 0.57
    assert intervals["hit_rate"] == [1.0, 1.0]
    assert intervals["waste_ratio"] == [0.0, 0.0]
    assert intervals["usage_known"] == [0.0, 0.0]
    assert intervals["gap"] is None
    assert intervals["saved"]["p90"] == [pytest.approx(1.0, rel=0.01)] * 2
    assert intervals["saved"]["p50"][0] == 0.0  # half of them: it may be either
    assert intervals["saved"]["p50"][1] == pytest.approx(1.0, rel=0.01)


def test_turns_of_one_call_are_no_independent_evidence() -> None:
    """20 calls of 20 turns, each all ahead or not at all: sqrt(0.25 / 20) = 0.11, as wide as for 20 turns."""
    calls = [[ahead(1.0, call=str(n)) if n % 2 else turn(call=str(n))] * 20 for n in range(20)]
    least, most = fleet(*calls).intervals()["turns_ahead"]
    assert 0.3 < most - least < 0.6


def test_what_is_not_known_has_no_interval() -> None:
    intervals = fleet([turn(call="a")], [turn(call="c")]).intervals()  # "a" and "b" fall into one group
    assert intervals["turns_ahead"] == [0.0, 0.0]
    assert {intervals[name] for name in ("hit_rate", "waste_ratio", *TIMES)} == {None}


def test_the_draws_are_the_same_in_each_process() -> None:
    before = drawn()
    drawn.cache_clear()
    assert drawn() == before


def test_one_call_has_no_interval() -> None:
    assert fleet(ROWS).intervals() == dict.fromkeys((*RATIOS, *TIMES))


@pytest.mark.full
def test_the_95_percent_interval_holds_the_truth_in_about_95_of_100_cases() -> None:
    chance = random.Random(7)
    held = 0
    for case in range(100):
        calls = [
            [ahead(1.0, call=f"{case} {n}") if chance.random() < 0.3 else turn(call=f"{case} {n}")] for n in range(80)
        ]
        least, most = fleet(*calls).intervals()["turns_ahead"]
        held += least <= 0.3 <= most
    assert held >= 88  # 95 less three standard deviations of 2.2


def test_sums_are_added_in_place() -> None:
    sums = Sums()
    sums += Sums()
    assert sums == Sums()
