"""What-if: calls that were computed on paper; and against another policy's own runs, on the same simulated callers."""

import random
from collections import Counter
from typing import Any

import attrs
import pytest
from hypothesis import given

from inkturns.actions import EndReason
from inkturns.errors import RecordingError
from inkturns.events import (
    ContextChanged,
    Disconnected,
    EndNow,
    Event,
    ReplyDone,
    ReplyStarted,
    StopReply,
    ThoughtFailed,
    Tick,
    TurnEagerEnd,
    TurnEnd,
    TurnResume,
    TurnStart,
    TurnUpdate,
    UsePolicy,
)
from inkturns.policy import AfterResume, AfterStall, Policy, min_words, same_text
from inkturns.report import Fleet, Question, TurnRow
from inkturns.report.calls import calls_of
from inkturns.report.otherwise import Otherwise, otherwise
from inkturns.report.past import PastCall, past_of
from inkturns.report.survival import Latencies
from inkturns.report.typical import Gathered
from inkturns.report.whatif import GRADES, Changes, Comparison, compare, refusal
from inkturns.testing.strategies import hostile_sessions, policies
from tests.recorded import Recorded
from tests.what_if_calls import independent, past, recorded

Seen = list[tuple[int, bool, str, str | None]]


def thoughts(row: TurnRow) -> Seen:
    return [(one.number, one.speculative, one.outcome, one.reason) for one in row.thoughts]


def settled(call: Recorded, turn: int, thought: int, outcome: str, *times: float | None, **more: Any) -> None:
    """What an Agent notes: when it began, had its first item, was finished, was cancelled."""
    names = ("began", "first_item", "finished", "cancelled_at")
    facts = {"thought": thought, "outcome": outcome, **dict(zip(names, times, strict=True)), **more}
    known = [time for time in times if time is not None]
    call.note(max(known, default=0.0), "settled", turn, settled=facts)


def one_turn(policy: Policy | None = None, **about: Any) -> Recorded:
    """Two guesses: "book" is cancelled after 0.25 s without an item; "book it" is adopted, with L = 0.375 s; its reply
    is heard for 1 s."""
    call = Recorded(policy, call="7f3a", **about)
    call.at(0.0, TurnStart()).at(1.0, TurnEagerEnd("book")).at(1.25, TurnResume())
    settled(call, 1, 1, "cancelled", 1.0, None, None, 1.25)
    call.at(2.0, TurnEagerEnd("book it")).at(2.5, TurnEnd("book it."))
    call.at(2.5, ReplyStarted(1))
    settled(call, 1, 2, "adopted", 2.0, 2.375, 2.75, None)
    call.at(3.5, ReplyDone(1))
    call.note(3.5, "replied", 1, replied={"first_item": 2.5})
    return call


def one_turn_until(t: float, policy: Policy) -> Recorded:
    """The same, up to when its reply is heard."""
    call = Recorded(policy)
    call.at(0.0, TurnStart()).at(2.0, TurnEagerEnd("book it")).at(t, TurnEnd("book it."))
    settled(call, 1, 1, "adopted", 2.0, 2.375, 2.75, None)
    return call.at(t, ReplyStarted(1)).note(t, "replied", 1, replied={"first_item": t})


def other(call: Recorded, **changes: Any) -> Otherwise:
    one = past(call.lines)
    latencies, gathered = Latencies(), Gathered()
    one.tell(latencies)
    gathered.add(one)
    return otherwise(one, changes, latencies, gathered.typical())


# -- on paper


def test_the_same_policy_gives_the_same_rows() -> None:
    one = past(one_turn().lines)
    assert other(one_turn()).rows == one.rows
    assert thoughts(one.rows[0]) == [(1, True, "cancelled", "resumed"), (2, True, "adopted", None)]


def test_waiting_to_think_saves_the_wrong_guess_and_costs_the_wait() -> None:
    # think_after 0.25: the resume at 1.25 comes first (what is due at the same time is not yet late: 1.0 + 0.25 = 1.25
    # is thought first, and cancelled at once); so 0.26. "book it" is thought at 2.26, L = 0.375: ready at 2.635.
    (row,) = other(one_turn(), think_after=0.26).rows
    assert thoughts(row) == [(1, True, "adopted", None)]
    assert row.head_start == pytest.approx(0.24)
    assert row.first_item == pytest.approx(0.375)
    assert row.saved == pytest.approx(0.24)
    assert row.end_to_first_item == pytest.approx(0.135)  # 2.635 - 2.5
    assert row.end_to_first_item_without == pytest.approx(0.375)
    assert row.end_to_first_sound == pytest.approx(0.135)
    assert row.gap == pytest.approx(0.5)


def test_thinking_at_the_end_alone_takes_a_drawn_time() -> None:
    # "book it." was never thought on; of what was (0.25 s: censored; 0.375 s), Kaplan-Meier draws 0.375 s.
    came = other(one_turn(), speculate=False)
    (row,) = came.rows
    assert thoughts(row) == [(1, False, "adopted", None)]
    assert (row.saved, row.head_start, row.gap) == (0.0, 0.0, None)
    assert row.end_to_first_item == pytest.approx(0.375)
    assert (came.thoughts, came.drawn) == (1, 1)


def test_another_match_or_fewer_thoughts() -> None:
    (row,) = other(one_turn(), match=same_text).rows
    assert thoughts(row) == [
        (1, True, "cancelled", "resumed"),
        (2, True, "cancelled", "mismatched"),
        (3, False, "adopted", None),
    ]
    (row,) = other(one_turn(), max_thoughts=1).rows
    assert thoughts(row) == [(1, True, "cancelled", "resumed"), (2, False, "adopted", None)]
    (row,) = other(one_turn(), speculate=min_words(2)).rows
    assert thoughts(row) == [(1, True, "adopted", None)]


def test_a_thought_that_was_cancelled_takes_longer_than_it_had() -> None:
    call = Recorded()
    for n, (began, first) in enumerate([(0.0, 0.2), (10.0, 0.3), (20.0, 0.7)], 1):  # what the model is known to take
        call.at(began, TurnStart()).at(began + 1, TurnEnd(f"word {n}"))
        settled(call, n, 1, "adopted", began + 1, began + 1 + first, began + 2, None)
        call.at(began + 3, ReplyStarted(n)).at(began + 4, ReplyDone(n))
    call.at(30.0, TurnStart()).at(31.0, TurnEagerEnd("go")).at(31.5, TurnResume())
    settled(call, 4, 1, "cancelled", 31.0, None, None, 31.5)
    call.at(32.0, TurnEnd("go"))
    settled(call, 4, 2, "adopted", 32.0, 32.7, None, 33.0)
    call.at(33.0, TurnStart()).at(34.0, Disconnected())
    row = other(call, after_resume=AfterResume.KEEP).rows[3]
    assert thoughts(row) == [(1, True, "adopted", None)]
    assert row.thoughts[0].first_item == pytest.approx(0.7)  # of 0.2, 0.3, 0.7 and 0.7 s, these alone are longer
    assert row.saved == pytest.approx(0.7)


def test_beyond_the_last_first_item_the_figure_is_none() -> None:
    call = one_turn()
    call.at(10.0, TurnStart()).at(11.0, TurnEnd("wait"))
    settled(call, 2, 1, "adopted", 11.0, None, None, 12.0)  # cut after 1 s: nobody has seen so long a wait end
    call.at(12.0, TurnStart()).at(12.5, TurnEnd())
    one = past(call.lines)
    (compared,) = compare(lambda: [("x", one)], [{}])
    _, figures = compared.figures()
    assert figures["first_item"]["p50"] == pytest.approx(0.375, rel=0.01)
    assert figures["first_item"]["p90"] is None
    assert figures["saved"]["p90"] == pytest.approx(0.375, rel=0.01)  # it began at the end: 0, whatever it took
    row = other(call).rows[1]
    assert (row.first_item, row.end_to_first_item, row.saved) == (float("inf"), float("inf"), 0.0)


def test_a_wait_that_is_longer_than_what_was_seen_of_it_leaves_saved_unknown() -> None:
    call = Recorded()
    call.at(0.0, TurnStart()).at(1.0, TurnEagerEnd("a b")).at(9.0, TurnEnd("a b"))
    settled(call, 1, 1, "adopted", 1.0, 1.5, 2.0, None)
    call.at(9.0, ReplyStarted(1)).at(9.5, ReplyDone(1))
    call.at(20.0, TurnStart()).at(21.0, TurnEagerEnd("c d")).at(23.0, TurnEnd("c d"))
    settled(call, 2, 1, "adopted", 21.0, None, None, 24.0)
    call.at(24.0, TurnStart()).at(24.5, TurnEnd())
    rows = other(call).rows
    assert rows[1].saved == 2.0  # it had not come for 3 s, and 2 s of them were before the end
    rows = other(call, think_after=0.1).rows
    assert rows[1].saved == pytest.approx(1.9)


def test_usage_is_its_own_and_else_a_typical_one() -> None:
    used = {"input_tokens": 100, "output_tokens": 20, "cost": 0.01}
    call = Recorded()
    call.at(0.0, TurnStart()).at(1.0, TurnEagerEnd("book")).at(1.25, TurnResume())
    settled(call, 1, 1, "cancelled", 1.0, None, None, 1.25, usage={"input_tokens": 50, "cost": 0.004})
    call.at(2.0, TurnEagerEnd("book it")).at(2.5, TurnEnd("book it."))
    settled(call, 1, 2, "adopted", 2.0, 2.375, 2.75, None, usage=used, notes={"model": "gpt"})
    call.at(2.5, ReplyStarted(1)).at(3.0, ReplyDone(1))
    (row,) = other(call, match=same_text).rows
    assert [(one.tokens, one.cost, one.model) for one in row.thoughts] == [
        (50, 0.004, "gpt"),
        (120, 0.01, "gpt"),  # its own, though it is cancelled now
        (120, 0.01, "gpt"),  # what an adopted thought uses
    ]


def test_a_thought_that_failed_fails_again_and_the_turn_is_modelled() -> None:
    call = Recorded()
    call.at(0.0, TurnStart()).at(1.0, TurnEagerEnd("go")).at(1.2, ThoughtFailed(1, 1))
    settled(call, 1, 1, "failed", 1.0, None, None, None)
    call.at(2.0, TurnEnd("go"))
    settled(call, 1, 2, "adopted", 2.0, 2.5, 2.6, None)
    call.at(2.5, ReplyStarted(1)).at(3.5, ReplyDone(1))
    came = other(call, think_after=0.3)
    assert thoughts(came.rows[0]) == [(1, True, "failed", None), (2, False, "adopted", None)]
    assert came.exact == frozenset()


# -- replies


def test_a_reply_that_begins_earlier_is_over_earlier() -> None:
    # Recorded: no guess; L = 0.8, the reply sounds from 3.3 to 4.3, over the next turn's eager end at 4.2 (in flight).
    call = Recorded(Policy(speculate=False, interrupts=min_words(2)))
    call.at(0.0, TurnStart()).at(2.0, TurnEagerEnd("hello")).at(2.5, TurnEnd("hello"))
    settled(call, 1, 1, "adopted", 2.5, 3.3, 3.4, None)
    call.at(3.3, ReplyStarted(1)).at(4.0, TurnStart()).at(4.2, TurnEagerEnd("yes")).at(4.3, ReplyDone(1))
    call.at(4.5, TurnEnd("yes"))
    settled(call, 2, 1, "adopted", 4.5, 5.3, 5.4, None)
    call.at(5.3, ReplyStarted(2)).at(6.0, ReplyDone(2))
    came = other(call, speculate=True)
    # Other: thought at 2.0, ready at 2.8, over at 3.8: nothing is in flight when the next turn opens.
    assert came.rows[0].end_to_first_sound == pytest.approx(0.3)
    assert thoughts(came.rows[1]) == [(1, True, "adopted", None)]
    assert came.rows[1].gap == pytest.approx(0.3)
    assert came.exact == {1}  # in the recorded world one was in flight in turn 2


def test_a_reply_that_was_cut_lasts_until_then_at_least() -> None:
    call = Recorded(Policy(speculate=False))
    call.at(0.0, TurnStart()).at(2.0, TurnEagerEnd("hello")).at(2.5, TurnEnd("hello"))
    settled(call, 1, 1, "adopted", 2.5, 3.0, 3.1, 4.0)
    call.at(3.0, ReplyStarted(1)).at(4.0, TurnStart()).at(4.5, TurnEnd("no"))
    settled(call, 2, 1, "adopted", 4.5, 5.0, 5.1, None)
    call.at(5.0, ReplyStarted(2)).at(6.0, ReplyDone(2))
    came = other(call, speculate=True)  # it begins at 2.5, and was longer than the 1 s that was heard of it
    assert came.rows[0].interrupted
    assert came.exact == {1}


def test_a_reply_begins_at_the_end_where_its_item_is_ready_before() -> None:
    # Ready at 2.375, heard from 2.5 to 3.5: over it "yes" is a backchannel, which it were not were it over at 3.375.
    call = one_turn_until(2.5, Policy(interrupts=min_words(2)))
    call.at(3.45, TurnStart()).at(3.48, TurnEnd("yes")).at(3.5, ReplyDone(1))
    rows = other(call).rows
    assert [row.end for row in rows] == ["server", "backchannel"]
    assert rows == past(call.lines).rows


def test_a_reply_that_was_cut_before_its_first_item_has_none() -> None:
    call = one_turn()
    call.at(10.0, TurnStart()).at(11.0, TurnEnd("wait")).at(11.1, TurnStart())
    settled(call, 2, 1, "adopted", 11.0, None, None, 11.1)
    call.at(12.0, TurnEnd())
    assert other(call).rows == past(call.lines).rows
    assert other(call).rows[1].end_to_first_item is None


def test_a_reply_that_only_the_other_policy_has_in_flight_makes_the_turn_modelled() -> None:
    # Recorded: ready at 2.375, heard from 2.5 to 3.5. Other: "book it." is thought at 2.5, and heard from 2.875 to
    # 3.875: at 3.6, when the next turn opens, and no more at its eager end.
    call = one_turn(Policy(interrupts=min_words(2)))
    call.at(3.6, TurnStart()).at(4.0, TurnEagerEnd("yes")).at(4.5, TurnEnd("yes"))
    assert other(call).exact == {1, 2}
    assert other(call, speculate=False).exact == {1}
    call = (
        one_turn(Policy(interrupts=min_words(2))).at(3.6, TurnStart()).at(3.65, ReplyStarted(0)).at(3.68, ReplyDone())
    )
    call.at(3.7, TurnEagerEnd("yes")).at(4.5, TurnEnd("yes"))
    assert other(call).exact == {1, 2}


def test_what_is_typical_is_not_taken_from_replies_that_were_cut() -> None:
    call = one_turn()
    call.at(10.0, TurnStart()).at(11.0, TurnEnd("wait"))
    settled(call, 2, 1, "adopted", 11.0, 11.2, 11.3, None)
    call.at(11.2, ReplyStarted(2)).at(11.25, TurnStart()).at(12.0, TurnEnd())
    gathered = Gathered()
    gathered.add(past(call.lines))
    typical = gathered.typical()
    assert typical.length == 1.0
    assert typical.making == pytest.approx(0.1)
    assert typical.lag == 0.0


def test_a_thought_that_made_nothing_tells_nothing_of_the_model() -> None:
    call = Recorded().at(0.0, TurnStart()).at(1.0, TurnEnd("a"))
    settled(call, 1, 1, "adopted", 1.0, None, 1.5, 2.0)
    latencies = Latencies()
    past(call.lines).tell(latencies)
    assert not latencies.known
    (thought,) = next(iter(past(call.lines).turns.values())).thoughts
    assert thought.waited is None


def test_what_the_application_says_by_itself_lasts_as_long() -> None:
    call = Recorded(Policy(stall_timeout=2.0))
    call.at(0.0, ReplyStarted(0)).at(1.0, ReplyDone()).at(2.0, TurnStart()).at(2.1, TurnUpdate("well"))
    call.at(4.1, Tick()).at(4.2, ReplyStarted(0)).at(5.0, TurnEagerEnd("well then")).at(5.5, TurnEnd("well then"))
    came = other(call, think_after=0.1)
    assert past(call.lines).rows[0].answered
    assert thoughts(came.rows[0]) == [(1, True, "adopted", None)]  # the re-prompt is cut by the words
    assert came.exact == frozenset()  # it was in flight at the eager end


def test_a_reply_of_which_nothing_is_known_takes_a_typical_time() -> None:
    call = Recorded(Policy(stall_timeout=3.0))
    call.at(0.0, TurnStart()).at(1.0, TurnEnd("one"))
    settled(call, 1, 1, "adopted", 1.0, 1.5, 1.6, None)
    call.at(1.5, ReplyStarted(1)).at(2.5, ReplyDone(1)).note(2.5, "replied", 1, replied={"first_item": 1.5})
    call.at(10.0, TurnStart()).at(10.5, TurnUpdate("two")).at(13.5, Tick()).at(20.0, Disconnected())
    call.at(30.0, TurnStart()).at(31.0, TurnEnd("three"))
    came = other(call, after_stall=AfterStall.END)
    assert [row.end for row in came.rows] == ["server", EndReason.STALLED, "server"]
    assert came.rows[1].end_to_first_sound == pytest.approx(0.5)
    assert came.lengths == 2
    (compared,) = compare(lambda: [("x", past(call.lines))], [{"after_stall": AfterStall.END}])
    assert compared.follow == 1


def test_bare_events_without_times_have_no_replies() -> None:
    call = Recorded()
    call.at(None, TurnStart(), TurnEagerEnd("a"), TurnEnd("a"), TurnStart(), TurnEagerEnd("b"), TurnEnd("b"))
    came = other(call, max_thoughts=0)
    assert [thoughts(row) for row in came.rows] == [[(1, False, "adopted", None)]] * 2
    assert came.rows[0].thoughts[0].first_item is None


def test_beside_another_agent_the_replies_come_as_late_as_they_did() -> None:
    call = Recorded()
    call.at(0.0, TurnStart()).at(1.0, TurnEagerEnd("a")).at(1.5, TurnEnd("a"))
    call.at(2.25, ReplyStarted(1)).at(3.0, ReplyDone(1)).at(4.0, TurnStart()).at(5.0, TurnEnd("b"))
    came = other(call, speculate=False)
    assert came.rows[0].end_to_first_sound == 0.75
    assert came.rows[0].saved is None
    assert came.exact == {1, 2}
    (compared,) = compare(lambda: [("x", past(call.lines))], [{}], Question(latency=(0.3,)))
    assert compared.figures()[1]["saved"] == {
        "p50": 0.0,
        "p90": pytest.approx(0.3, rel=0.01),
        "p99": pytest.approx(0.3, rel=0.01),
    }


EVENTS: list[Event | str] = [
    *(TurnStart(), TurnUpdate("book"), TurnEagerEnd("book"), ContextChanged(), EndNow(), StopReply()),
    *(UsePolicy(Policy(max_thoughts=1)), TurnStart(), TurnEagerEnd("x"), TurnEnd("x"), "{no frame"),
]


def test_what_else_came_comes_again() -> None:
    call = Recorded()
    for n, event in enumerate(EVENTS):
        call.at(n * 0.5, event)
    call.note(1.0, "catching_up", 2).note(2.0, "settled", 1, settled="nonsense").note(2.0, "other", 1)
    one = past(call.lines)
    assert other(call).rows == one.rows
    assert one.rows[0].reports == {}
    assert one.rows[1].reports == {"bad_frame": 1}
    assert one.rows[1].catching_up
    came = other(call, max_thoughts=0)
    assert [row.thoughts[-1].speculative for row in came.rows] == [False, False]  # UsePolicy's too


def test_a_pause_ends_what_can_be_asked() -> None:
    call = one_turn()
    call.pause().at(10.0, TurnStart(), TurnEnd("1234")).resume()
    call.at(20.0, TurnStart()).at(21.0, TurnEnd("after"))
    one = past(call.lines)
    assert one.paused
    assert [row.number for row in one.rows] == [1]
    (compared,) = compare(lambda: [("x", one)], [{}])
    assert compared.turns == 1
    assert "what came after a pause of the recorder, in 1 calls" in compared.not_known()


def test_a_turn_that_only_the_other_policy_opens_is_left_out() -> None:
    call = Recorded(Policy(stall_timeout=2.0))
    call.at(0.0, TurnStart()).at(1.0, TurnUpdate("well")).at(3.0, Tick())
    call.at(4.0, TurnUpdate("well then")).at(5.0, TurnEagerEnd("well then")).at(5.5, TurnEnd("well then"))
    one = past(call.lines)
    came = other(call, after_stall=AfterStall.END)  # the turn is closed at 3.0; the words at 4.0 open another
    assert [(row.number, row.end) for row in came.rows] == [(1, "stalled"), (2, "server")]
    assert thoughts(came.rows[1]) == [(1, True, "adopted", None)]
    (compared,) = compare(lambda: [("x", one)], [{"after_stall": AfterStall.END}])
    assert (compared.turns, compared.others) == (1, 1)
    assert "1 turns that open, or close, in one of the two only: they are left out" in compared.not_known()


def test_a_turn_that_caught_up_has_no_times_whatever_is_not_known() -> None:
    call = Recorded()
    call.at(0.0, TurnStart()).note(0.0, "catching_up", 1).at(1.0, TurnEnd("a"))
    settled(call, 1, 1, "adopted", 1.0, None, None, 2.0)
    call.at(2.0, TurnStart()).at(3.0, TurnEnd("b"))
    settled(call, 2, 1, "adopted", 3.0, 3.5, 3.6, None)
    row = other(call).rows[0]
    assert row.catching_up
    assert (row.saved, row.first_item, row.end_to_first_item) == (None, None, None)


def test_speech_that_is_never_over_stays_in_flight() -> None:
    call = Recorded().at(0.0, ReplyStarted(0)).at(1.0, TurnStart()).at(2.0, TurnEagerEnd("a")).at(3.0, TurnEnd("a"))
    call.at(3.5, ReplyStarted(1)).at(3.6, ReplyStarted(1)).at(4.0, ReplyStarted(0))
    assert other(call).rows == past(call.lines).rows
    assert other(call).exact == frozenset()


NONSENSE = """
{"inkturns":1,"policy":{}}
{"t":0,"frame":"{\\"type\\":\\"turn.start\\"}","out":[{"type":"Interrupt","number":9}]}
{"t":1,"frame":"{\\"type\\":\\"turn.eager_end\\",\\"transcript\\":\\"a\\"}","out":[{"type":"Listen","turn":{"number":3}}]}
{"t":2,"agent":"settled","turn":3,"settled":{"thought":4,"outcome":"adopted"}}
{"t":2,"agent":"replied","turn":3,"replied":{}}
{"t":2,"frame":"{\\"type\\":\\"turn.end\\",\\"transcript\\":\\"a\\"}","out":[{"type":"Respond","turn":{"number":3},"thought":7}]}
{"t":3,"app":{"type":"reply_started","number":8},"out":[{"type":"Respond","turn":{"number":5},"thought":1}]}
{"t":4,"app":{"type":"thought_failed","number":8,"thought":1},"out":[{"type":"Think","turn":{"number":5},"thought":1,"speculative":true}]}
"""


def test_nonsense_that_was_recorded_is_compared_with_what_the_machine_makes_of_it() -> None:
    one = past(NONSENSE.encode().strip().splitlines(keepends=True))
    (compared,) = compare(lambda: [("x", one)], [{"max_thoughts": 0}])
    assert compared.turns == 0


@given(hostile_sessions(), policies(), policies())
def test_any_session_can_be_asked_of_any_policy(
    session: list[tuple[Event, float | None]], policy: Policy, another: Policy
) -> None:
    call = Recorded(policy)
    for event, now in session:
        call.at(now, event)
    errors: list[RecordingError] = []
    for one in calls_of(call.lines, errors.append):
        known = past_of(one)
        came = otherwise(known, attrs.asdict(another, recurse=False), Latencies())
        numbers = [row.number for row in came.rows]
        assert numbers == sorted(set(numbers))
        assert came.exact <= came.same.keys()
        assert came.drawn <= came.thoughts
        for row in came.rows:
            assert sum(thought.outcome == "adopted" for thought in row.thoughts) == row.answered


# -- figures


def test_figures_have_grades_and_shares() -> None:
    one = past(one_turn().lines)
    (compared,) = compare(lambda: [("x", one)], [{"think_after": 0.26}])
    values = compared.as_json()
    assert values["policy"] == {"think_after": 0.26}
    assert (values["recorded"]["thoughts"], values["other"]["thoughts"]) == (2, 1)
    assert (values["recorded"]["extra_calls_per_turn"], values["other"]["extra_calls_per_turn"]) == (1.0, 0.0)
    assert values["other"]["saved"]["p50"] == pytest.approx(0.24, rel=0.01)
    assert values["other"]["interrupts"] is None
    assert values["grades"]["thoughts"] == "exact"
    assert values["grades"]["saved"] == "modelled"
    assert values["grades"]["interrupts"] == "not known"
    assert set(values["grades"]) == set(GRADES) == set(values["recorded"]) - {"intervals"}
    assert values["shares"] == {"exact": 1.0, "modelled": 0.0, "drawn": 0.0}
    assert values["differences"] == {}  # of one call
    assert compared.gain == pytest.approx(0.24)


def test_without_turns_nothing_is_known() -> None:
    (compared,) = compare(list, [{}])
    assert compared.gain is None
    assert compared.shares == {"exact": None, "modelled": None, "drawn": None}
    assert compared.as_json()["other"]["intervals"]["saved"] is None


def test_differences_are_paired_call_by_call() -> None:
    calls = [("x", past(recorded(seed, Policy(), independent("a")))) for seed in range(8)]
    same, other = compare(lambda: calls, [{}, {"speculate": False}])
    assert same.differences()["turns_ahead"] == [0.0, 0.0]
    one, another = (each["turns_ahead"] for each in same.intervals())
    assert another[1] - another[0] > 1.15 * (one[1] - one[0])  # a new sample errs too
    assert same.intervals()[1]["first_item"]["p50"] is not None
    assert same.intervals()[1]["first_item"]["p99"] is None  # not one turn in a hundred is beyond it
    low, high = other.differences()["turns_ahead"] or (None, None)
    assert low is not None
    assert high is not None
    assert low <= high < 0


# -- redacted


@pytest.mark.parametrize("changes", [{"think_after": 0.1}, {"max_thoughts": 1}, {"after_resume": AfterResume.KEEP}])
def test_redacted_recordings_give_the_same_figures(changes: Changes) -> None:
    plain, redacted = (
        [("x", past(recorded(seed, Policy(), independent("a"), redact=redact))) for seed in range(6)]
        for redact in (False, True)
    )
    (one,), (other,) = (compare(lambda calls=calls: calls, [changes]) for calls in (plain, redacted))  # type: ignore[misc]
    assert other.as_json()["recorded"] == one.as_json()["recorded"]
    assert other.as_json()["other"] == one.as_json()["other"]


def test_words_that_redaction_makes_equal_are_no_exact_figure() -> None:
    """Two calls. In one the end had other words than the eager end. Redacted, both are "xxx xxx", and match."""
    for redact, grade, ahead in ((False, "exact", 0.5), (True, "modelled", 1.0)):
        calls = []
        for eager in ("for two", "for ten"):
            call = Recorded(Policy(), redact=redact).at(0, TurnStart(turn_id="1"))
            call.at(1, TurnEagerEnd(eager, turn_id="1")).at(2, TurnEnd("for ten", turn_id="1"))
            calls.append((eager, past(call.lines)))
        (compared,) = compare(lambda calls=calls: calls, [{"max_thoughts": 1}])  # type: ignore[misc]
        values = compared.as_json()
        assert (values["grades"]["turns_ahead"], values["other"]["turns_ahead"]) == (grade, ahead)
        assert values["shares"]["exact"] == (0.5 if redact else 1)
        assert values["recorded"]["turns_ahead"] == 0.5


@pytest.mark.parametrize(
    "changes",
    [{"match": same_text}, {"speculate": min_words(2, or_any=("yes",))}, {"interrupts": lambda turn: True}],
)
def test_what_depends_on_words_is_refused_where_they_are_redacted(changes: Changes) -> None:
    redacted = past(one_turn(redact=True).lines)
    assert refusal(past(one_turn().lines), changes) is None
    reason = refusal(redacted, changes)
    assert reason is not None
    assert f"Policy.{next(iter(changes))} depends on its words" in reason
    (compared,) = compare(lambda: [("x", redacted)], [changes])
    assert compared.refused == {reason: 1}
    assert f"1 calls: {reason}" in compared.not_known()
    assert refusal(redacted, {"speculate": min_words(2)}) is None
    assert refusal(redacted, {"match": Policy().match}) is None  # as it was


def test_a_policy_that_no_recording_may_name_is_refused_unless_it_is_said() -> None:
    call = Recorded(Policy(match=lambda a, b: True)).at(0, TurnStart()).at(1, TurnEnd("a"))
    one = past(call.lines)
    refused, said = compare(lambda: [("x", one)], [{}, {"match": same_text}])
    assert [*refused.refused.values()] == [1]
    assert said.turns == 1


# -- against its own runs


POLICIES: list[dict[str, Any]] = [
    *({}, {"max_thoughts": 1}, {"think_after": 0.123}, {"after_resume": AfterResume.KEEP}, {"match": same_text}),
    *({"speculate": min_words(3)}, {"speculate": False}, {"think_after": 0.305, "max_thoughts": 2}),
]
RATIOS = ("turns_ahead", "hit_rate", "extra_calls_per_turn", "waste_ratio")
TIMES = ("saved", "saved_ahead", "first_item", "end_to_first_item", "end_to_first_item_without")


def case(seed: int, calls: int) -> tuple[Comparison, list[PastCall], list[PastCall], Changes]:
    """Policy A's recordings, asked what policy B would have done; and what B's own runs were."""
    one, other = random.Random(f"case {seed}").sample(POLICIES, 2)
    seeds = range(seed * calls, (seed + 1) * calls)
    recordings, own = (
        [past(recorded(each, Policy(**policy), independent(f"{world} {seed}"))) for each in seeds]
        for world, policy in (("A", one), ("B", other))
    )
    changes = {name: getattr(Policy(**other), name) for name in {**one, **other}}
    (compared,) = compare(lambda: (("x", call) for call in recordings), [changes])
    return compared, recordings, own, changes


def decided(row: TurnRow) -> tuple[str, list[tuple[Any, ...]]]:
    return row.end, [(one.number, one.speculative, one.outcome, one.reason, one.exact) for one in row.thoughts]


def test_what_is_predicted_is_what_the_other_policys_own_runs_measure(full: bool, deep: bool) -> None:
    cases, calls = (100, 40) if deep else (20, 40) if full else (3, 15)
    within, asked, exact = Counter[str](), Counter[str](), 0
    for seed in range(cases):
        compared, recordings, own, changes = case(seed, calls)
        measured = Fleet()
        for call in own:
            measured.add(call.rows)
        figures = measured.figures()
        intervals = compared.intervals()[1]
        for name in RATIOS:
            if intervals[name] is not None:
                asked[name] += 1
                within[name] += intervals[name][0] <= figures[name] <= intervals[name][1]
        for name in TIMES:
            for of, interval in (intervals[name] or {}).items():
                if interval is None:
                    continue  # too few turns for this quantile
                low, high = interval
                asked[f"{name}.{of}"] += 1
                within[f"{name}.{of}"] += (low is None or low <= figures[name][of] * 1.01) and (
                    high is None or figures[name][of] <= high * 1.01
                )
        for was, one in zip(recordings, own, strict=True):
            came = otherwise(was, changes, Latencies())
            rows = {row.number: row for row in one.rows}
            for row in came.rows:
                turn = next(turn for turn in one.turns.values() if turn.number == row.number)
                if row.number in came.exact and not turn.in_flight:
                    exact += 1
                    assert decided(row) == decided(rows[row.number])
    assert exact > cases * calls * 2
    assert asked["saved.p90"] == cases
    within_90 = {name: (within[name], asked[name]) for name in asked if within[name] >= 0.9 * asked[name] - (not deep)}
    assert within_90.keys() == asked.keys()


def test_the_callers_are_the_same_to_every_policy() -> None:
    one, other = (past(recorded(3, policy, independent("a"))) for policy in (Policy(), Policy(speculate=False)))
    assert [attrs.astuple(each)[:2] for each in one.inputs] == [attrs.astuple(each)[:2] for each in other.inputs]
