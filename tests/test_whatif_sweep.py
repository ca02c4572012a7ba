"""The sweep: which policies no other beats, and the one to paste."""

from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inkturns.policy import AfterResume, AfterStall, Policy, min_words, same_text, same_words
from inkturns.report.question import Price, Question
from inkturns.report.sweep import GRID, Point, Sweep, as_python, as_typed, best, frontier, imports, policies, sweep
from inkturns.report.whatif import Named, compare
from inkturns.turn import Turn
from tests.what_if_calls import independent, past, recorded

# By hand: b gains more than a for more; c gains less than b for more; d gains as much as b for more money alone.
A = Point({"max_thoughts": 1}, gain=0.1, extra_calls=0.2, cost=9.0)
B = Point({"max_thoughts": 2}, gain=0.3, extra_calls=0.4, cost=2.0)
C = Point({"think_after": 0.1}, gain=0.2, extra_calls=0.5, cost=1.0)
D = Point({"think_after": 0.2}, gain=0.3, extra_calls=0.4, cost=3.0)
NOTHING = Point({"speculate": False}, gain=0.0, extra_calls=0.0, cost=0.0)
UNKNOWN = Point({"think_after": 0.3}, gain=0.9, extra_calls=0.9)


def test_the_frontier_has_what_no_other_beats() -> None:
    assert frontier([D, C, B, A, NOTHING]) == [NOTHING, A, D]  # D came before B and comes to the same
    assert frontier([C, A, B, D, NOTHING], in_money=True) == [NOTHING, C, B]
    assert frontier([UNKNOWN], in_money=True) == []  # nobody knows what it costs


def test_of_policies_that_come_to_the_same_the_plainest_is_taken() -> None:
    plain = Point({"think_after": 0.0, "max_thoughts": 2}, gain=0.3, extra_calls=0.4)
    odd = Point({"think_after": 0.0, "max_thoughts": 2, "match": same_text}, gain=0.3, extra_calls=0.4)
    assert frontier([odd, plain]) == [plain]


def test_the_best_gains_most_within_what_is_accepted() -> None:
    some = [A, B, C, D, NOTHING]
    assert [best(some, most) for most in (0, 0.1, 0.2, 0.39, 0.4, 9)] == [NOTHING, NOTHING, A, A, B, B]
    assert best(some, 1.5, in_money=True) == C
    assert best([A], 0.1) is None
    assert best([UNKNOWN], 1, in_money=True) is None


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12), st.integers(0, 5))
def test_nothing_beats_a_point_of_the_frontier(some: list[tuple[int, int]], most: int) -> None:
    points = [Point({}, gain, waste) for gain, waste in some]
    found = frontier(points)
    for one in found:
        assert not any(
            (other.gain >= one.gain and other.extra_calls < one.extra_calls)
            or (other.gain > one.gain and other.extra_calls <= one.extra_calls)
            for other in points
        )
    for other in points:  # and each point is one of it, or is matched by one
        assert any(one.gain >= other.gain and one.extra_calls <= other.extra_calls for one in found)
    chosen = best(points, most)
    within = [one.gain for one in points if one.extra_calls <= most]
    assert (chosen is None) == (not within)
    if chosen is not None:
        assert chosen.gain == max(within)


def test_the_grid_holds_each_policy_once_and_the_one_that_never_thinks_ahead() -> None:
    found = list(policies({}))
    size = 1
    for values in GRID.values():
        size *= len(values)
    assert len(found) == size + 1 == len({as_python(changes) for changes in found})
    assert as_python(found[0]) == "Policy(speculate=False)"
    for changes in found:
        Policy(**changes)
    held = list(policies({"speculate": min_words(7), "think_after": 0.3}))
    assert all(changes["think_after"] == 0.3 and changes["speculate"] == min_words(7) for changes in held)
    assert len(held) == 12
    assert not any("match" in changes for changes in policies({}, redacted=True))


def is_long(turn: Turn) -> bool:
    return len(turn.transcript) > 9


long_or_short = partial(is_long)  # it has no name of its own


@pytest.mark.parametrize(
    ("changes", "line", "names", "typed"),
    [
        (
            {"max_thoughts": 2, "think_after": 0.12},
            "Policy(think_after=0.12, max_thoughts=2)",
            "Policy",
            "think_after=0.12, max_thoughts=2",
        ),
        ({"max_thoughts": 3, "match": same_words, "speculate": True}, "Policy()", "Policy", ""),
        ({"speculate": False}, "Policy(speculate=False)", "Policy", "speculate=False"),
        (
            {"match": same_text, "after_resume": AfterResume.KEEP, "speculate": min_words(3, or_any=("yes",))},
            "Policy(speculate=min_words(3, or_any=('yes',)), match=same_text, after_resume=AfterResume.KEEP)",
            "AfterResume, Policy, min_words, same_text",
            "speculate=min_words(3, or_any=('yes',)), match=same_text, after_resume=keep",
        ),
    ],
)
def test_a_policy_is_a_line_of_python_that_means_it(changes: dict[str, Any], line: str, names: str, typed: str) -> None:
    assert as_python(changes) == line
    assert imports(line) == f"from inkturns.policy import {names}"
    exec(imports(line), imported := dict[str, object]())
    assert eval(line, imported) == Policy(**changes)
    assert as_typed(changes) == typed


def nested() -> Callable[[Turn], bool]:
    return lambda turn: True


def test_a_function_has_the_name_by_which_a_module_holds_it() -> None:
    line = as_python({"speculate": is_long, "interrupts": long_or_short})
    assert line == f"Policy(speculate={__name__}.is_long, interrupts={__name__}.long_or_short)"
    assert imports(line) == f"import {__name__}\nfrom inkturns.policy import Policy"
    exec(imports(line), imported := dict[str, object]())
    assert eval(line, imported) == Policy(speculate=is_long, interrupts=long_or_short)


def test_a_function_that_no_module_holds_stands_as_it_is() -> None:
    assert as_python({"speculate": nested()}).startswith("Policy(speculate=<function nested.<locals>.<lambda> at ")


# -- on calls of simulated callers


PLAIN = {"match": same_words, "after_resume": AfterResume.CANCEL, "speculate": True}


@cache
def lines(seed: int) -> list[bytes]:
    return recorded(seed, Policy(), independent("sweep"))


def calls(n: int, change: Callable[[bytes], bytes] = lambda line: line) -> Callable[[], Iterable[Named]]:
    found = [(f"{seed}.jsonl", past([change(line) for line in lines(seed)])) for seed in range(n)]
    return lambda: iter(found)


def test_the_recorded_policy_comes_to_what_was_recorded() -> None:
    found = sweep(calls(4), PLAIN)
    assert (found.tried, found.few, found.calls, len(found.points)) == (15, 4, 4, 15)
    (same,) = (point for point in found.points if as_python(point.changes) == "Policy()")
    assert same.gain == pytest.approx(found.recorded.gain)
    assert (same.extra_calls, same.turns_ahead) == (found.recorded.extra_calls, found.recorded.turns_ahead)
    assert same.gain > 0


def without_the_second(line: bytes) -> bytes:
    """What became of the second turn's thoughts is not known, so it is drawn."""
    return b"" if b'"agent":' in line and b'"turn":2' in line else with_usage(line)


@pytest.mark.parametrize("change", [lambda line: line, without_the_second])
@pytest.mark.parametrize("fixed", [{}, {"stall_timeout": 0.4, "after_stall": AfterStall.END}])
def test_each_policy_comes_to_what_what_if_says_of_it(
    change: Callable[[bytes], bytes], fixed: dict[str, object]
) -> None:
    question = Question(prices={"*": Price(1, 2)})
    found = sweep(calls(4, change), PLAIN | {"max_thoughts": 3} | fixed, question=question)
    assert len(found.points) == 5
    for point in found.points:
        (one,) = compare(calls(4, change), [point.changes], question)
        other = one.figures()[1]
        assert one.gain == pytest.approx(point.gain)
        assert other["extra_calls_per_turn"] == point.extra_calls
        assert other["turns_ahead"] == point.turns_ahead
        assert (point.cost or 0) == pytest.approx(1000 * other["wasted_cost_per_turn"])


def test_more_waiting_wastes_less_and_gains_less() -> None:
    points = sweep(calls(4), PLAIN | {"max_thoughts": 3}).points
    gains, wastes = [point.gain for point in points], [point.extra_calls for point in points]
    assert gains == sorted(gains, reverse=True)
    assert wastes == sorted(wastes, reverse=True)
    assert gains[0] > 2 * gains[-1]


def test_of_many_calls_few_decide_which_policies_are_tried_on_all() -> None:
    told: list[tuple[int, int]] = []
    found = sweep(calls(6), PLAIN, few=2, progress=lambda done, of: told.append((done, of)))
    assert (found.tried, found.few, found.calls) == (15, 2, 6)
    assert 1 < len(found.points) < 15
    assert [done for done, _ in told] == list(range(1, 2 * 15 + 6 * len(found.points) + 1))
    assert told[-1][0] == told[-1][1]
    whole = sweep(calls(6), PLAIN)
    assert best(found.points, 0.3) == best(whole.points, 0.3)


def test_prices_make_gain_against_money() -> None:
    """Nobody told what the calls used, so nobody knows what they cost, but where none is wasted."""
    found = sweep(calls(3), PLAIN, question=Question(prices={"*": Price(1, 1)}))
    assert {point.cost for point in found.points if point.extra_calls} == {None}
    told = sweep(calls(3, with_usage), PLAIN, question=Question(prices={"*": Price(1, 2)}))
    for point in told.points:  # of 300 tokens in and 100 out: 500 / 1,000,000 each
        assert point.cost is not None
        assert point.cost == pytest.approx(point.extra_calls * 0.5)


USAGE = b'"usage":{"input_tokens":300,"output_tokens":100,"cached_tokens":0,"cost":0.0}'


def with_usage(line: bytes) -> bytes:
    return line.replace(b'"usage":null', USAGE)


def test_redacted_calls_are_not_asked_what_depends_on_words() -> None:
    redacted = [("a", past(recorded(1, Policy(), independent("sweep"), redact=True)))]
    found = sweep(lambda: iter(redacted), {"think_after": 0.0, "max_thoughts": 1})
    assert found.redacted
    assert found.points
    assert not any("match" in point.changes for point in found.points)
    assert found.not_known()[-1] == "match: it depends on words, and calls are redacted"
    refused: Sweep = sweep(lambda: iter(redacted), {"match": same_text})
    assert (refused.calls, list(refused.refused.values())) == (0, [1])
    assert [point.gain for point in refused.points] == [0] * len(refused.points)


def test_a_call_whose_policy_cannot_be_made_is_left_out_and_counted() -> None:
    def other(line: bytes) -> bytes:
        return line.replace(b'"interrupts":null', b'"interrupts":"my_agent.stops"')

    some: list[Any] = [*calls(1)(), *calls(1, other)()]
    found = sweep(lambda: iter(some), PLAIN)
    assert found.calls == 1
    ((reason, n),) = found.refused.items()
    assert found.not_known()[-1] == f"1 calls: {reason}"
    assert "Policy.interrupts is 'my_agent.stops', which no recording may import" in reason
    assert n == 1
    assert sweep(lambda: iter(some), PLAIN | {"interrupts": None}).calls == 2


def test_a_latency_stands_in_where_no_model_was_measured() -> None:
    def watched(line: bytes) -> bytes:
        return b"" if b'"agent":' in line else line

    assert {point.gain for point in sweep(calls(3, watched), PLAIN).points} == {0.0}
    assert max(point.gain for point in sweep(calls(3, watched), PLAIN, question=Question(latency=(0.5,))).points) > 0


def test_the_line_to_paste_keeps_what_the_recorded_policies_have_besides() -> None:
    def stops(line: bytes) -> bytes:
        return line.replace(b'"interrupts":null', b'"interrupts":{"min_words":2,"or_any":["stop"]}')

    same = sweep(calls(2, stops), PLAIN | {"max_thoughts": 1})
    assert same.python(same.points[0]) == "Policy(max_thoughts=1, interrupts=min_words(2, or_any=('stop',)))"
    assert not any("interrupts" in sentence for sentence in same.not_known())
    some = [*calls(1, stops)(), *calls(1)()]
    differing = sweep(lambda: iter(some), PLAIN | {"max_thoughts": 1})
    assert differing.python(differing.points[0]) == "Policy(max_thoughts=1)"
    assert "interrupts: the recorded policies differ there, so the line leaves it out" in differing.not_known()


def test_as_json_has_the_frontier_and_the_best() -> None:
    found = sweep(calls(3), PLAIN)
    said = found.as_json(0.6)
    assert [one["extra_calls_per_turn"] for one in said["frontier"]] == sorted(
        one["extra_calls_per_turn"] for one in said["frontier"]
    )
    assert said["best"] == [one for one in said["frontier"] if one["extra_calls_per_turn"] <= 0.6][-1]
    assert set(said["best"]) == {"policy", *said["grades"]}
    assert (said["calls"], said["tried"], said["recorded"]["policy"]) == (3, 15, None)
    assert said["best"]["policy"].startswith("Policy(")
    assert found.as_json(-1)["best"] is None
    assert found.as_json()["best"] is None
    few = sweep(calls(3), PLAIN, few=1)
    assert f"what {15 - len(few.points)} policies come to on all calls: on 1 others" in few.not_known()[1]
