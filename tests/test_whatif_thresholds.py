"""Higher thresholds for Deepgram Flux's turns: hand-made calls, whose every figure is computed in a comment."""

import io
import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from inkturns.adapters.flux import Flux, FluxSettings
from inkturns.errors import RecordingError
from inkturns.machine import TurnMachine
from inkturns.policy import Policy
from inkturns.recording import Recorder
from inkturns.report.flux import FluxMessage, flux_messages, raise_thresholds
from inkturns.report.question import Question
from inkturns.report.rows import TurnRow
from inkturns.report.thresholds import Thresholds, rows_of_flux
from inkturns.testing.oracle import check
from inkturns.turns import Turns

Said = tuple[float, str, str, float | None]


def frames(said: Iterable[Said], **more: Any) -> list[str]:
    """A turn's messages: (seconds, event, transcript, confidence); the index counts the ends before."""
    lines, index = [], 0
    for at, event, text, confidence in said:
        values = {"type": "TurnInfo", "request_id": "r", "event": event, "turn_index": index, "transcript": text}
        values |= {"audio_window_end": at, "end_of_turn_confidence": confidence, **more}
        lines.append(json.dumps(values))
        index += event == "EndOfTurn"
    return lines


def no_fault(error: RecordingError) -> None:
    raise error


def messages(said: Iterable[Said], **more: Any) -> list[FluxMessage]:
    return flux_messages(frames(said, **more), no_fault)


def events(some: list[FluxMessage]) -> list[tuple[float | None, str | None, str]]:
    return [(one.t, one.event, one.text) for one in some]


# Sure of 0.4 at 1.0, and the user goes on: a wrong guess. Sure of 0.45 at 3.0, of 0.65 at 3.25, and the end at 3.5.
HESITANT: list[Said] = [
    (0.5, "StartOfTurn", "I'd", 0.0),
    (0.75, "Update", "I'd like", 0.1),
    (1.0, "EagerEndOfTurn", "I'd like", 0.4),
    (1.25, "Update", "I'd like", 0.5),
    (1.5, "TurnResumed", "I'd like a", 0.1),
    (2.0, "Update", "I'd like a table", 0.2),
    (3.0, "EagerEndOfTurn", "I'd like a table", 0.45),
    (3.25, "Update", "I'd like a table", 0.65),
    (3.5, "EndOfTurn", "I'd like a table", 0.8),
]


def test_an_eager_end_comes_with_the_first_message_that_is_sure_enough_or_not_at_all() -> None:
    raised = raise_thresholds(messages(HESITANT), FluxSettings(eager_eot_threshold=0.6))
    assert events(raised.messages) == [
        (0.5, "StartOfTurn", "I'd"),
        (0.75, "Update", "I'd like"),
        (1.0, "Update", "I'd like"),
        (1.25, "Update", "I'd like"),
        (1.5, "Update", "I'd like a"),
        (2.0, "Update", "I'd like a table"),
        (3.0, "Update", "I'd like a table"),
        (3.25, "EagerEndOfTurn", "I'd like a table"),
        (3.5, "EndOfTurn", "I'd like a table"),
    ]
    assert raised.eager == {"none": 1, "later": 1}
    assert raised.ends == {"same": 1}


def rows(some: list[FluxMessage], **policy: Any) -> list[TurnRow]:
    return rows_of_flux(some, Policy(**policy), no_fault)


def test_what_it_gains_and_what_it_costs() -> None:
    """As recorded: two thoughts, one of them wasted, and a gap of 0.5 s. With 0.6: one, none, and 0.25 s."""
    some = messages(HESITANT)
    (before,) = rows(some)
    (after,) = rows(raise_thresholds(some, FluxSettings(eager_eot_threshold=0.6)).messages)
    assert [one.outcome for one in before.thoughts] == ["cancelled", "adopted"]
    assert (before.eager_ends, before.resumes, before.gap) == (2, 1, 0.5)
    assert [one.outcome for one in after.thoughts] == ["adopted"]
    assert (after.eager_ends, after.resumes, after.gap) == (1, 0, 0.25)


def test_a_policy_that_waits_gets_its_ticks() -> None:
    """The wait of 0.3 s is over before 1.5 and before 3.5; one of 0.5 s before neither."""
    some = messages(HESITANT)
    assert [one.speculative for one in rows(some, think_after=0.3)[0].thoughts] == [True, True]
    assert rows(some, think_after=0.3)[0].head_start == pytest.approx(0.2)
    assert [one.speculative for one in rows(some, think_after=0.55)[0].thoughts] == [False]


def test_thresholds_that_are_met_change_nothing() -> None:
    some = messages(HESITANT)
    for settings in (FluxSettings(), FluxSettings(eot_threshold=0.8, eager_eot_threshold=0.4)):
        raised = raise_thresholds(some, settings)
        assert raised.messages == some
        assert raised.eager == {"same": 2}
        assert raised.ends == {"same": 1}


def test_an_eager_end_that_no_message_reaches_is_none() -> None:
    raised = raise_thresholds(messages(HESITANT), FluxSettings(eager_eot_threshold=0.7))
    assert raised.eager == {"none": 2}
    (row,) = rows(raised.messages)
    assert [one.speculative for one in row.thoughts] == [False]
    assert (row.eager_ends, row.gap) == (0, None)


def test_a_second_eager_end_without_a_resume_replaces_the_first() -> None:
    said: list[Said] = [
        (1, "StartOfTurn", "a", 0.0),
        (2, "EagerEndOfTurn", "a", 0.4),
        (3, "EagerEndOfTurn", "a b", 0.7),
        (4, "EndOfTurn", "a b", 0.9),
    ]
    raised = raise_thresholds(messages(said), FluxSettings(eager_eot_threshold=0.5))
    assert [event for _, event, _ in events(raised.messages)] == [
        "StartOfTurn",
        "Update",
        "EagerEndOfTurn",
        "EndOfTurn",
    ]
    assert raised.eager == {"none": 1, "same": 1}


# The end at 1.5 comes too early: the user speaks again 0.7 s later.
TWO: list[Said] = [
    (0.5, "StartOfTurn", "For two", 0.0),
    (1.25, "EagerEndOfTurn", "For two", 0.5),
    (1.5, "EndOfTurn", "For two", 0.7),
    (2.2, "StartOfTurn", "no,", 0.0),
    (2.5, "Update", "no, four", 0.1),
    (3.0, "EagerEndOfTurn", "no, four", 0.6),
    (3.5, "EndOfTurn", "no, four", 0.9),
]


def test_an_end_that_is_not_sure_enough_joins_the_turn_that_begins_before_the_timeout() -> None:
    raised = raise_thresholds(messages(TWO), FluxSettings(eot_threshold=0.8))
    assert events(raised.messages) == [
        (0.5, "StartOfTurn", "For two"),
        (1.25, "EagerEndOfTurn", "For two"),
        (1.5, "Update", "For two"),
        (2.2, "TurnResumed", "For two no,"),
        (2.5, "Update", "For two no, four"),
        (3.0, "EagerEndOfTurn", "For two no, four"),
        (3.5, "EndOfTurn", "For two no, four"),
    ]
    assert {one.values["turn_index"] for one in raised.messages} == {0}
    assert raised.ends == {"joined": 1, "same": 1}
    (row,) = rows(raised.messages)
    assert (row.resumes, row.gap, len(row.thoughts)) == (1, 0.5, 2)
    assert len(rows(messages(TWO))) == 2


def test_three_turns_may_be_one_and_the_words_are_joined() -> None:
    said: list[Said] = [
        (1, "StartOfTurn", "a", 0.0),
        (2, "EndOfTurn", "a", 0.7),
        (3, "StartOfTurn", "b", 0.0),
        (4, "EndOfTurn", "b", 0.7),
        (5, "StartOfTurn", "", 0.0),
        (6, "EndOfTurn", "c", 0.9),
        (7, "StartOfTurn", "d", 0.0),
    ]
    raised = raise_thresholds(messages(said), FluxSettings(eot_threshold=0.8))
    assert [(event, text) for _, event, text in events(raised.messages)] == [
        *[("StartOfTurn", "a"), ("Update", "a"), ("Update", "a b"), ("Update", "a b"), ("Update", "a b")],
        *[("EndOfTurn", "a b c"), ("StartOfTurn", "d")],
    ]
    assert [one.values["turn_index"] for one in raised.messages] == [0] * 6 + [3]


def test_only_an_eager_end_that_still_holds_is_resumed() -> None:
    said: list[Said] = [
        (1.0, "StartOfTurn", "a", 0.0),
        (1.5, "EagerEndOfTurn", "a", 0.5),
        (2.0, "TurnResumed", "a b", 0.0),
        (2.5, "EndOfTurn", "a b", 0.7),
        (3.0, "StartOfTurn", "c", 0.0),
        (3.5, "EndOfTurn", "c", 0.9),
    ]
    raised = raise_thresholds(messages(said), FluxSettings(eot_threshold=0.8))
    assert [one.event for one in raised.messages][2:] == ["TurnResumed", "Update", "Update", "EndOfTurn"]


@pytest.mark.parametrize(
    "settings", [FluxSettings(eot_threshold=0.8, eot_timeout_ms=600), FluxSettings(eot_threshold=0.95)]
)
def test_an_end_after_which_nobody_speaks_in_time_comes_later_by_nobody_knows_how_much(settings: FluxSettings) -> None:
    raised = raise_thresholds(messages(TWO), settings)
    assert raised.ends["later"] == 1
    found = rows_of_flux(raised.messages, Policy(), no_fault, raised.later)
    assert [row.gap for row in found] == ([None, 0.5] if len(found) == 2 else [None])
    assert all(row.head_start is None for row in found if row.gap is None)


def test_what_the_application_or_a_timeout_ended_is_ended_whatever_the_threshold() -> None:
    raised = raise_thresholds(messages(TWO[:3], trigger="timeout"), FluxSettings(eager_eot_threshold=0.5))
    assert raised.ends == {"same": 1}
    assert raise_thresholds(messages(TWO[:3], trigger="manual"), FluxSettings(eot_threshold=0.9)).ends == {"same": 1}


def test_an_end_before_a_new_connection_or_without_a_time_joins_nothing() -> None:
    first, second = frames(TWO[:3]), frames([(0.2, "StartOfTurn", "no,", 0.0), (0.9, "EndOfTurn", "no", 0.9)])
    connected = [json.dumps({"type": "Connected", "request_id": "s"})]
    some = flux_messages([*connected, *first, *connected, *second], no_fault)
    assert [one.t for one in some] == [None, 0.5, 1.25, 1.5, 1.5, 1.7, 2.4]  # its audio begins at 0 again
    assert raise_thresholds(some, FluxSettings(eot_threshold=0.8)).ends == {"later": 1, "same": 1}
    timeless = messages(TWO, audio_window_end=None)
    assert raise_thresholds(timeless, FluxSettings(eot_threshold=0.8)).ends == {"later": 1, "same": 1}


def test_a_threshold_that_flux_passed_in_silence_is_refused() -> None:
    """It was 0.65 sure at 3.25 and did not end the turn."""
    with pytest.raises(ValueError, match=r"eot_threshold must be at least what it was: Flux was sure of 0\.65"):
        raise_thresholds(messages(HESITANT), FluxSettings(eot_threshold=0.5))
    said: list[Said] = [(1, "StartOfTurn", "", 0.9), (2, "Update", "a", 0.35), (3, "EndOfTurn", "a", 0.8)]
    with pytest.raises(ValueError, match=r"eager_eot_threshold must be at least what it was: Flux was sure of 0\.35"):
        raise_thresholds(messages(said), FluxSettings(eager_eot_threshold=0.3))
    assert raise_thresholds(messages(said), FluxSettings(eager_eot_threshold=0.35)).messages == messages(said)


def test_times_and_numbers_may_come_as_text_and_frames_with_the_recorders_times() -> None:
    lines = frames(HESITANT)
    as_text = [line.replace('"audio_window_end": 1.0', '"audio_window_end": "1.0"') for line in lines]
    assert events(flux_messages(as_text, no_fault)) == events(messages(HESITANT))
    timed = [json.dumps({"t": 100 + n, "frame": line}).encode() for n, line in enumerate(lines)]
    assert [one.t for one in flux_messages(timed, no_fault)] == [100 + n for n in range(len(lines))]


def test_lines_that_are_no_messages_are_handed_over_and_the_rest_is_read() -> None:
    faults: list[RecordingError] = []
    bad = ["{", "[1]", '{"event": "Update"}', '{"frame": "["}', '{"frame": 3}', "[" * 100_000, "\n"]
    assert len(flux_messages([*frames(HESITANT), *bad], faults.append)) == len(HESITANT)
    assert [fault.line for fault in faults] == [len(HESITANT) + n for n in range(1, 7)]
    bad_field = {"type": "TurnInfo", "event": "Update", "turn_index": -1, "transcript": "x"}
    other = [{"type": "Later", "x": 1}, bad_field]
    some = flux_messages([*frames(HESITANT), *map(json.dumps, other)], no_fault)
    assert len(rows_of_flux(some, Policy(), faults.append)) == 1
    assert "turn_index" in faults[-1].reason


def test_ink_2_tells_no_likelihood_and_the_refusal_says_so() -> None:
    refusal = "Ink 2 does not send the likelihood by which it decides"
    with pytest.raises(RecordingError, match=refusal):
        flux_messages(['{"type": "turn.start"}'], no_fault)
    with pytest.raises(RecordingError, match=refusal):
        flux_messages(['{"type": "connected"}'], no_fault)
    file = io.BytesIO()
    Turns(recorder=Recorder(file)).feed({"type": "turn.start"})
    with pytest.raises(RecordingError, match=refusal):
        flux_messages(file.getvalue().splitlines(), no_fault)


def test_a_recording_of_flux_has_no_confidence_and_the_refusal_says_what_to_do() -> None:
    file = io.BytesIO()
    turns = Turns(source=Flux(), recorder=Recorder(file))
    for line in frames(HESITANT):
        turns.feed(line)
    with pytest.raises(RecordingError, match=r"of Flux as events, without the confidence\. Write Flux's"):
        flux_messages(file.getvalue().splitlines(), no_fault)


@st.composite
def conversations(draw: DrawFn) -> list[Said]:
    """What Flux may say with eager_eot_threshold 0.3 and eot_threshold 0.6."""
    said: list[Said] = []
    at = 0.0
    for turn in range(draw(st.integers(1, 4))):
        at += draw(st.sampled_from((0.25, 2.0, 9.0)))
        text, eager = f"w{turn}", False
        said.append((at, "StartOfTurn", text, 0.0))
        for n in range(draw(st.integers(0, 6))):
            at += 0.25
            kind = draw(st.sampled_from(("words", "sure", "sure")))
            if kind == "sure":
                said.append((at, "Update" if eager else "EagerEndOfTurn", text, draw(st.sampled_from((0.3, 0.4, 0.5)))))
                eager = True
            else:
                text += f" x{n}"
                said.append((at, "TurnResumed" if eager else "Update", text, 0.1))
                eager = False
        at += 0.25
        if not eager:
            said.append((at, "EagerEndOfTurn", text, 0.55))
        said.append((at, "EndOfTurn", text, draw(st.sampled_from((0.6, 0.7, 0.9)))))
    return said


@given(conversations(), st.sampled_from((0.3, 0.45, 0.6)), st.sampled_from((0.6, 0.8)))
def test_what_flux_would_have_sent_is_lawful_and_holds_all_words(said: list[Said], eager: float, eot: float) -> None:
    some = messages(said)
    raised = raise_thresholds(some, FluxSettings(eager_eot_threshold=eager, eot_threshold=eot))
    assert [one.t for one in raised.messages] == [one.t for one in some]
    assert raised.eager.total() == sum(event == "EagerEndOfTurn" for _, event, _, _ in said)
    assert raised.ends.total() == sum(event == "EndOfTurn" for _, event, _, _ in said)
    flux, machine = Flux(), TurnMachine()
    steps = [(event, machine.receive(event, one.t)) for one in raised.messages for event in flux.events(one.values)]
    check(steps, lawful=True)
    found = rows_of_flux(raised.messages, Policy(), no_fault, raised.later)
    assert len(found) == raised.ends["same"] + raised.ends["later"]
    before = rows_of_flux(some, Policy(), no_fault)
    assert len(before) == len(found) + raised.ends["joined"]
    assert sum(row.eager_ends for row in found) == raised.eager["same"] + raised.eager["later"]
    words = sum(row.length for row in before) + raised.ends["joined"]  # a space between
    assert sum(row.length for row in found) == words


# -- many files


def test_files_are_summed_up_and_those_that_cannot_tell_are_counted() -> None:
    """Two files: three turns, one of them in two. With eot_threshold 0.8 HESITANT stays, and TWO is one turn:
    of the recorded thoughts (2 + 1 + 1) one was wasted; of the others (2 + 2) two: the joined turn's first too."""
    found = Thresholds(FluxSettings(eot_threshold=0.8), Question(latency=(0.2,)))
    # "a" and "b" fall into one group of the bootstrap, and would have no interval
    for name, lines in (("a", frames(HESITANT)), ("c", frames(TWO)), ("b", ['{"type": "turn.start"}'])):
        found.add(name, lines, Policy(), no_fault)
    found.add("d", frames([(1, "StartOfTurn", "x", 0.9)]), Policy(), no_fault)
    said = found.as_json()
    recorded, other = said["recorded"], said["other"]
    assert [recorded[name] for name in ("calls", "turns", "thoughts", "unused")] == [2, 3, 4, 1]
    assert [other[name] for name in ("calls", "turns", "thoughts", "unused")] == [2, 2, 4, 2]
    assert (recorded["extra_calls_per_turn"], other["extra_calls_per_turn"]) == (pytest.approx(1 / 3), 1)
    assert set(recorded["gap"]) == {"p50", "p90", "p99"} == set(other["intervals"]["gap"])
    assert recorded["gap"]["p50"] == pytest.approx(0.5, rel=0.01)  # 0.25, 0.5, 0.5
    assert recorded["saved"]["p50"] == pytest.approx(0.2, rel=0.01)
    assert (said["eager_ends"], said["ends"]) == (
        {"same": 4, "later": 0, "none": 0},
        {"same": 2, "joined": 1, "later": 0},
    )
    assert other["false_end_rate"] is None
    assert said["grades"]["false_end_rate"] == "not known"
    assert set(said["grades"]) == set(other) - {"intervals"}
    assert said["thresholds"] == {"eot_threshold": 0.8}
    assert sorted(said["refused"].values()) == [1, 1]
    assert len(said["not_known"]) == 2
    json.dumps(said)


def test_how_much_later_is_not_known_and_said() -> None:
    found = Thresholds(FluxSettings(eot_threshold=0.95))
    found.add("a", frames(HESITANT), Policy(), no_fault)
    assert found.not_known()[1] == (
        "how much later 1 of 1 ends would have come: by 5 s at the most; their gaps are left out"
    )
    assert found.as_json()["other"]["gap"] is None
