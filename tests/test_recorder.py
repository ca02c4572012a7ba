"""The recorder beside a call: what it leaves out on request, and what goes wrong without harm (F56)."""

import io
import json
import os
import random
import warnings
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inkturns.actions import Listen, Report, ReportKind, Respond
from inkturns.agent import Agent
from inkturns.errors import RecordingError, RecordingWarning
from inkturns.events import (
    ContextChanged,
    EndNow,
    Event,
    TurnEagerEnd,
    TurnEnd,
    TurnResume,
    TurnStart,
    TurnUpdate,
    Unknown,
)
from inkturns.policy import Policy
from inkturns.reader import Gap, TruncatedError, read
from inkturns.recording import Recorder
from inkturns.replay import replay
from inkturns.serialize import encode
from inkturns.testing import virtual_time
from inkturns.testing.strategies import hostile_sessions, policies
from inkturns.turns import Turns


def lines(file: io.BytesIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.getvalue().splitlines()]


# -- notes


class Rude:
    def __repr__(self) -> str:
        raise ValueError("not today")


def circle() -> list[Any]:
    of: list[Any] = []
    of.append(of)
    return of


@pytest.mark.parametrize("redact", [False, True])
@pytest.mark.parametrize("fact", [Rude(), circle()], ids=["rude", "circle"])
def test_f56_a_note_that_json_cannot_hold_costs_that_note_alone(fact: object, redact: bool) -> None:
    file = io.BytesIO()
    recorder = Recorder(file, redact=redact)
    turns = Turns(recorder=recorder)
    with pytest.warns(RecordingWarning, match="a note that JSON cannot hold is left out") as said:
        recorder.note({"agent": "settled", "turn": 1, "fact": fact})
    assert len(said) == 1
    recorder.note({"agent": "settled", "turn": 1, "fact": 1})
    turns.feed(TurnStart())
    assert [next(iter(line)) for line in lines(file)] == ["inkturns", "agent", "event"]
    assert recorder.failed is None


# -- inputs


def test_f56_actions_that_json_cannot_hold_are_left_out_and_a_replay_makes_them_again() -> None:
    """A frame's text always fits. What it says stands deeper in its Report: Python 3.12 reads a list in 1,495 lists
    from a frame, and cannot write its Report."""
    file = io.BytesIO()
    recorder = Recorder(file)
    recorder.begin(Policy())
    recorder.write(
        '{"type":"turn.sigh"}',
        Unknown(kind="turn.sigh", fields={}),
        None,
        (Report(ReportKind.UNKNOWN_TYPE, Unknown(kind="turn.sigh", fields={"a": Rude()}), ""),),
    )
    recorder.write('{"type":"turn.start"}', TurnStart(), None, ())
    assert [set(line) for line in lines(file)[1:]] == [{"frame"}, {"frame", "out"}]
    assert recorder.failed is None


def test_f56_an_input_that_json_cannot_hold_stops_the_recording() -> None:
    """Without it a replay could not go on."""
    file = io.BytesIO()
    turns = Turns(recorder=Recorder(file))
    with pytest.warns(RecordingWarning, match="the recording stops here"):
        turns.feed(Unknown(kind="x", fields={"a": Rude()}))
    turns.feed(TurnStart())
    assert len(lines(file)) == 1


@given(hostile_sessions(), policies())
def test_without_actions_a_replay_makes_the_same(session: list[tuple[Event, float | None]], policy: Policy) -> None:
    file = io.BytesIO()
    turns = Turns(Policy(max_thoughts=policy.max_thoughts), recorder=Recorder(file, out=False))
    live = [turns.feed(event, now) for event, now in session if event.__class__.__name__ != "UsePolicy"]
    assert not any("out" in line for line in lines(file))
    again = list(replay(file.getvalue().splitlines()))
    assert [encode(one.actions) for one in again] == list(map(encode, live))
    assert [one.out for one in again] == [None] * len(live)


# -- files


def test_a_file_may_be_opened_by_a_function_and_is_closed_with_the_recorder() -> None:
    class Kept(io.BytesIO):
        whole = b""

        def close(self) -> None:
            self.whole = self.getvalue()
            super().close()

    file, opened = Kept(), 0

    def give() -> IO[bytes]:
        nonlocal opened
        opened += 1
        return file

    recorder = Recorder(open=give)
    assert opened == 0
    Turns(recorder=recorder).feed(TurnStart())
    recorder.close()
    assert (opened, file.closed, file.whole.count(b"\n")) == (1, True, 2)


def test_a_function_that_gives_no_binary_file_stops_the_recording_alone() -> None:
    def fails() -> IO[bytes]:
        raise PermissionError("no such bucket")

    gives: list[tuple[Callable[[], Any], str]] = [
        (io.StringIO, r"Recorder\.open must give a binary file, got StringIO"),
        (lambda: "path", "must give a binary file, got str"),
        (fails, "no such bucket"),
    ]
    for give, why in gives:
        recorder = Recorder(open=give)
        with pytest.warns(RecordingWarning, match=why):
            turns = Turns(recorder=recorder)
        assert turns.feed(TurnStart())
        assert recorder.failed is not None


def test_a_file_that_fails_when_it_is_closed_is_said_and_raises_nothing() -> None:
    class Store(io.BytesIO):
        def close(self) -> None:
            if not self.closed:  # a file closes itself again where it is collected
                super().close()
                raise OSError("the upload failed")

    recorder = Recorder(open=Store)
    Turns(recorder=recorder)
    with pytest.warns(RecordingWarning, match="the upload failed"):
        recorder.close()
    assert isinstance(recorder.failed, OSError)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recorder.close()


def test_f56_of_two_recorders_of_a_file_the_second_says_so_and_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "call.jsonl"
    first = Recorder(path, call="first")
    turns = Turns(recorder=first)
    second = Recorder(path, call="second")
    with pytest.warns(RecordingWarning, match="another recorder writes into this file"):
        other = Turns(recorder=second)
    for each in turns, other:
        assert each.feed(TurnStart())
    first.close()
    with path.open("rb") as file:
        assert [one.header and one.header.call for one in replay(file)] == ["first"]


def test_f56_a_non_blocking_file_that_is_full_stops_the_recording_with_its_warning(tmp_path: Path) -> None:
    """Whole up to a point that is said: what is read has no line missing in between."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with os.fdopen(writer, "wb", buffering=0) as file:
        recorder = Recorder(file)
        turns = Turns(recorder=recorder)
        words = (TurnUpdate(transcript=f"word {n}") for n in range(10_000))
        with pytest.warns(RecordingWarning, match="the recording stops here: BlockingIOError.*takes no more") as said:
            deque(map(turns.feed, words), maxlen=0)
        assert len(said) == 1
    assert isinstance(recorder.failed, BlockingIOError)
    with os.fdopen(reader, "rb") as pipe:
        errors: list[RecordingError] = []
        got = [one.event for one in replay(pipe.read().splitlines(keepends=True), on_error=errors.append)]
    assert got == [TurnUpdate(transcript=f"word {n}") for n in range(len(got))]
    assert len(got) > 10
    assert [type(error) for error in errors] in ([], [TruncatedError])


def test_an_agent_closes_its_recorder_when_the_call_is_over(tmp_path: Path) -> None:
    async def frames() -> Any:
        yield TurnStart()

    path = tmp_path / "calls.jsonl"
    for _ in range(2):
        agent = Agent(recorder=Recorder(path))
        virtual_time.run(agent.run, frames())
    with path.open("rb") as file:
        assert len(list(read(file))) == 6  # two headers, starts and ends


# -- sampling


def test_a_share_of_calls_is_recorded_and_a_calls_id_decides(tmp_path: Path) -> None:
    def is_recorded(call: str, sample: float) -> bool:
        path = tmp_path / f"{random.random()}"
        recorder = Recorder(path, call=call, sample=sample)
        turns = Turns(recorder=recorder)
        assert turns.feed(TurnStart())
        recorder.note({"agent": "heard"})
        recorder.close()
        assert recorder.failed is None
        if path.exists():
            assert [len(line) > 2 for line in path.read_bytes().splitlines()] == [True] * 3
        return path.exists()

    calls = [f"call {n}" for n in range(400)]
    some = {call for call in calls if is_recorded(call, 0.2)}
    assert some == {call for call in calls if is_recorded(call, 0.2)}
    assert some < {call for call in calls if is_recorded(call, 0.5)}
    assert 50 < len(some) < 110  # 80, and four standard deviations of 8
    assert not any(is_recorded(call, 0.0) for call in calls)
    assert is_recorded("call 1", 1.0)


def test_a_sample_needs_a_call_to_decide_by_and_is_in_the_header() -> None:
    with pytest.raises(ValueError, match=r"Recorder\.sample needs `call`"):
        Recorder(io.BytesIO(), sample=0.5)
    file = io.BytesIO()
    Turns(recorder=Recorder(file, call="\ud800 call 3", sample=0.99))
    assert lines(file)[0]["sample"] == 0.99


# -- pauses


class Paused:
    """A call that is recorded and paused, beside the same call without a recorder."""

    def __init__(self) -> None:
        self.file = io.BytesIO()
        self.recorder = Recorder(self.file)
        self.turns = Turns(recorder=self.recorder)

    def feed(self, *events: Event) -> None:
        for event in events:
            self.turns.feed(event)

    def written(self) -> list[str]:
        return [
            line.get("event", line.get("app", {})).get("type", "") or str(line.get("unrecorded", "header"))
            for line in lines(self.file)
        ]


def test_what_is_said_in_a_pause_is_counted_and_not_written() -> None:
    call = Paused()
    call.feed(TurnStart(), TurnEnd(transcript="hello"))
    call.recorder.pause()
    call.feed(TurnStart(), TurnUpdate(transcript="my card is 4111"), TurnEnd(transcript="my card is 4111"))
    for number in 0, 2:
        call.recorder.note({"agent": "heard", "turn": number, "text": "4111, is that right?"})
    call.recorder.resume()
    call.feed(TurnStart(), TurnEnd(transcript="thanks"))
    assert call.written() == ["header", "turn.start", "turn.end", "3", "turn.start", "turn.end"]
    call.recorder.note({"agent": "heard", "turn": 2, "text": "4111, is that right?"})
    call.recorder.note({"agent": "heard", "turn": 3, "text": "bye"})
    assert b"4111" not in call.file.getvalue()
    assert lines(call.file)[-1]["text"] == "bye"


def test_nothing_of_a_turn_that_was_paused_in_is_written_after_it_since_its_text_is_whole_in_each_event() -> None:
    call = Paused()
    call.feed(TurnStart(), TurnUpdate(transcript="my card is"))
    call.recorder.pause()
    call.feed(TurnUpdate(transcript="my card is 4111"))
    call.recorder.resume()
    call.feed(TurnUpdate(transcript="my card is 4111 okay"), TurnEnd(transcript="my card is 4111 okay"))
    call.feed(TurnStart(), TurnEnd(transcript="thanks"))
    assert call.written() == ["header", "turn.start", "turn.update", "3", "turn.start", "turn.end"]


def test_a_second_pause_does_not_forget_the_first() -> None:
    call = Paused()
    for number in 1, 2:
        call.recorder.pause()
        call.feed(TurnStart(), TurnEnd(transcript=f"my card is 4111 {number}"))
        call.recorder.resume()
        call.feed(TurnStart(), TurnEnd(transcript="thanks"))
    call.recorder.note({"agent": "heard", "turn": 1, "text": "4111"})
    assert b"4111" not in call.file.getvalue()


def test_a_pause_in_which_nothing_came_hides_the_open_turn_too() -> None:
    call = Paused()
    call.feed(TurnStart())
    call.recorder.pause()
    call.recorder.resume()
    call.feed(TurnUpdate(transcript="so"))
    assert call.written() == ["header", "turn.start"]
    call.recorder.close()
    assert call.written() == ["header", "turn.start", "1"]


def test_a_resume_without_a_pause_changes_nothing() -> None:
    call = Paused()
    call.recorder.resume()
    call.feed(TurnStart())
    assert call.written() == ["header", "turn.start"]


@pytest.mark.parametrize(
    "later",
    [
        TurnEnd(transcript="my card is 4111", turn_id="2"),  # again: late
        TurnUpdate(transcript="my card is 4111 1111", turn_id="2"),  # it goes on: a turn that continues it
    ],
)
def test_what_comes_late_or_goes_on_from_a_turn_of_the_pause_is_not_written_either(later: Event) -> None:
    call = Paused()
    call.recorder.pause()
    call.feed(TurnStart(turn_id="2"), TurnEnd(transcript="my card is 4111", turn_id="2"))
    call.recorder.resume()
    call.feed(TurnStart(turn_id="3"), TurnEnd(transcript="thanks", turn_id="3"))
    call.feed(later, TurnEnd(transcript="my card is 4111 1111", turn_id="2"))
    call.recorder.close()
    assert b"4111" not in call.file.getvalue()
    assert call.written() == ["header", "2", "turn.start", "turn.end", "2"]


@given(st.lists(st.sampled_from("psuereEcn"), max_size=30), st.booleans())
def test_no_word_of_a_pause_is_ever_written(steps: list[str], ids: bool) -> None:
    """Whatever happens in whatever order: each word is said once, and a later text of its turn holds it too."""
    call, words, number, hidden, paused, texts = Paused(), 0, 0, set(), False, ["", ""]
    for step in steps:
        if step == "p":
            paused = not paused
            call.recorder.pause() if paused else call.recorder.resume()
            continue
        if step == "s":
            number += 1
            texts.append("")
        if step in "ue":
            words += 1
            texts[-1] += f" word{words}."
            if paused:
                hidden.add(f"word{words}.")
        about = {"turn_id": str(number)} if ids else {}
        said = {"transcript": texts[-1], **about}
        made: dict[str, Event] = {
            "s": TurnStart(**about),
            "u": TurnUpdate(**said),
            "e": TurnEagerEnd(**said),
            "r": TurnResume(**about),
            "E": TurnEnd(**said),
            "c": ContextChanged(),
            "n": EndNow(),
        }
        call.feed(made[step])
    call.recorder.close()
    written = call.file.getvalue().decode()
    assert not [word for word in hidden if f"{word[:-1]}." in written]
    inputs = [one for one in read(written.splitlines()) if not isinstance(one, Gap)]
    gaps = [one.inputs for one in read(written.splitlines()) if isinstance(one, Gap)]
    assert len(inputs) - 1 + sum(gaps) == len([step for step in steps if step != "p"])


def test_a_replay_goes_up_to_the_first_pause_and_says_so() -> None:
    call = Paused()
    call.feed(TurnStart(), TurnEnd(transcript="hello"))
    call.recorder.pause()
    call.feed(TurnStart(), TurnEnd(transcript="my card"))
    call.recorder.resume()
    call.feed(TurnStart(), TurnEnd(transcript="thanks"))
    data = call.file.getvalue() + call.file.getvalue()
    with pytest.warns(RecordingWarning, match=r"line \d+: the recorder was paused here, for 2 inputs"):
        got = list(replay(data.splitlines()))
    assert [(one.line, one.differs) for one in got] == [(2, None), (3, None), (8, None), (9, None)]
    errors: list[RecordingError] = []
    assert len(list(replay(data.splitlines(), on_error=errors.append))) == 4
    assert [(type(error), error.line) for error in errors] == [(TruncatedError, 4), (TruncatedError, 10)]


def test_the_actions_of_a_turn_after_a_pause_are_the_machines_own() -> None:
    call = Paused()
    call.recorder.pause()
    call.feed(TurnStart(), TurnEnd(transcript="my card"))
    call.recorder.resume()
    call.feed(TurnStart(), TurnEnd(transcript="thanks"))
    outs = [line["out"] for line in lines(call.file) if "out" in line]
    assert [action["type"] for out in outs for action in out if action["type"] in ("Listen", "Respond")] == [
        Listen.__name__,
        Respond.__name__,
    ]
    assert {action["turn"]["number"] for out in outs for action in out if "turn" in action} == {2}
