"""Recordings: what is written is what was, a replay gives the same actions, nothing that goes wrong stops a call."""

import functools
import io
import json
import signal
import subprocess
import sys
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inkturns import recording
from inkturns.actions import Abandon, Action, Hear, Report, ReportKind, Respond
from inkturns.errors import DecodeError, RecordingError, RecordingWarning
from inkturns.events import Disconnected, Event, TurnStart, TurnUpdate, Unknown, UsePolicy
from inkturns.policy import AfterDisconnect, Policy, min_words, same_text, same_words
from inkturns.reader import Entry, Header, TruncatedError, read
from inkturns.recording import VERSION, Recorder
from inkturns.redact import redact
from inkturns.replay import replay
from inkturns.serialize import dump_policy, encode, load_actions, load_event, load_policy
from inkturns.settings import TurnSettings
from inkturns.table import Phase
from inkturns.testing.strategies import frames, hostile_sessions, policies
from inkturns.turns import Turns

SESSIONS = Path(__file__).parent / "sessions"
COMPLETE, CUT = (SESSIONS / f"ink2-{name}.jsonl" for name in ("complete-turn", "turn-cut-by-error"))
WORDS = "So the derivative of x squared is 2 x. Watch what happens when we apply the power rule to x"


def always(*given: object) -> bool:
    return True


def known(policy: Policy) -> Policy:
    """The same with functions that a recording can say."""
    return attrs.evolve(
        policy,
        match=same_text if policy.match is same_text else same_words,
        speculate=policy.speculate if isinstance(policy.speculate, bool | min_words) else min_words(3),
        interrupts=policy.interrupts if isinstance(policy.interrupts, min_words | None) else min_words(3, ("no",)),
    )


def recorded(items: list[tuple[object, float | None]], policy: Policy | None = None, **about: Any) -> bytes:
    file = io.BytesIO()
    turns = Turns(policy or Policy(), recorder=Recorder(file, **about))
    for item, now in items:
        turns.feed(item, now)
    return file.getvalue()


def lines(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.splitlines()]


def sayable(item: object) -> object:
    return UsePolicy(known(item.policy)) if isinstance(item, UsePolicy) else item


mixed = hostile_sessions().flatmap(
    lambda session: st.lists(st.tuples(frames(), st.none() | st.floats()), max_size=5).flatmap(
        lambda some: st.permutations([*session, *some])
    )
)


# -- what is written is what was


@given(mixed, policies())
def test_a_replay_gives_the_same_actions_byte_for_byte(
    session: list[tuple[object, float | None]], policy: Policy
) -> None:
    file = io.BytesIO()
    turns = Turns(known(policy), recorder=Recorder(file))
    live = [turns.feed(sayable(item), now) for item, now in session]
    replayed = list(replay(file.getvalue().splitlines(keepends=True)))
    assert [encode(one.actions) for one in replayed] == list(map(encode, live))
    assert [one.differs for one in replayed] == [None] * len(live)
    written = [
        msgspec.json.decode(line, type=dict[str, msgspec.Raw])["out"] for line in file.getvalue().splitlines()[1:]
    ]
    assert list(map(bytes, written)) == list(map(encode, live))
    assert [load_actions(one.out) for one in replayed] == [one.actions for one in replayed]


@given(mixed, policies())
def test_a_redacted_recording_has_the_same_actions_with_the_words_redacted(
    session: list[tuple[object, float | None]], policy: Policy
) -> None:
    live: list[tuple[Any, ...]] = []

    class Both(Recorder):
        def write(self, item: object, event: Event | None, now: float | None, actions: tuple[Any, ...]) -> None:
            live.append(actions)
            super().write(item, event, now, actions)

    file = io.BytesIO()
    turns = Turns(known(policy), recorder=Both(file, redact=True))
    for item, now in session:
        turns.feed(sayable(item), now)
    out = [one.out for one in replay(file.getvalue().splitlines(keepends=True))]
    assert [[action["type"] for action in actions] for actions in out] == [
        [type(action).__name__ for action in actions] for actions in live
    ]
    for redacted, actions in zip(out, live, strict=True):
        for values, action in zip(redacted, actions, strict=True):
            if isinstance(action, Hear):
                assert values["turn"]["transcript"] == redact(action.turn.transcript)
                assert values["delta"] == (None if action.delta is None else redact(action.delta))


def test_a_real_session_redacted_replays_alike_and_says_nothing() -> None:
    items: list[tuple[object, float | None]] = [
        (line, n / 8) for n, line in enumerate(COMPLETE.read_text().splitlines())
    ]
    data = recorded(items, redact=True)
    assert [one.differs for one in replay(data.splitlines())] == [None] * 24
    spoken = {part for part in WORDS.replace(".", "").split() if len(part) > 1}
    assert not {word for word in spoken if f"{word} " in data.decode()}
    last = json.loads(lines(data)[-1]["frame"])
    assert last == {"type": "turn.end", "turn_id": "1", "transcript": redact(WORDS + " circumflex 5.")}


@pytest.mark.parametrize(
    ("frame", "redacted"),
    [
        ({"type": "turn.update", "turn_id": "a", "transcript": "Né 4u", "request_id": "r"}, {"transcript": "xx 0x"}),
        ({"type": "turn.update", "words": [{"word": "no", "p": 0.5}]}, {"words": [{"word": "xx", "p": 0.5}]}),
        (
            {"type": "error", "title": "Bad", "doc_url": "https://x.y", "message": "no"},
            {"title": "xxx", "message": "xx"},
        ),
        (
            {"type": "turn.sigh", "doc_url": "oh", "deep": {"turn_id": "no"}},
            {"doc_url": "xx", "deep": {"turn_id": "xx"}},
        ),
    ],
)
def test_redacting_leaves_ids_types_and_order(frame: dict[str, Any], redacted: dict[str, Any]) -> None:
    (_, line) = lines(recorded([(json.dumps(frame), None)], redact=True))
    assert json.loads(line["frame"]) == frame | redacted
    assert list(json.loads(line["frame"])) == list(frame)
    (one,) = replay([json.dumps(line)])
    assert one.differs is None


@pytest.mark.parametrize("more", ['"n":1e999', '"turn_id":1.50', '"deep":' + "[" * 900 + "]" * 900])
def test_a_frame_whose_redacted_form_would_be_another_is_written_as_its_event(more: str) -> None:
    data = recorded([(f'{{"type":"turn.end","transcript":"oh",{more}}}', None)], redact=True)
    line = lines(data)[1]
    assert "oh" not in json.dumps(line)
    assert "event" in line or "deep" in more  # how deep is too deep is the Python's
    assert not [one for one in replay(data.splitlines()) if one.differs]


def test_redacting_keeps_lengths_spaces_and_punctuation() -> None:
    text = "Ünï 42¾, का—no.\n\u00a0😀 \ue000\U000e1234\ud800"
    redacted = redact(text)
    assert redacted == "xxx 000, xx—xx.\n\u00a0😀 xxx"
    assert len(redacted) == len(text)


def test_each_input_is_written_by_what_it_is() -> None:
    items: list[object] = [
        '{"type":"turn.start"}',
        b'{"type":"turn.update","transcript":"so"}',
        {"type": "turn.update", "transcript": "so it"},
        TurnUpdate(transcript="so it is"),
        b'{"type":"turn.start","x":"\xff"}',
        "nonsense",
        b"\xff\xfe",
        "\ud800",
        object(),
        Disconnected("gone"),
    ]
    header, *rest = lines(recorded([(item, None) for item in items]))
    assert datetime.fromisoformat(header.pop("started")).tzinfo is UTC
    assert header == {"inkturns": 1, "version": VERSION, "source": "Ink2", "policy": dump_policy(Policy())}
    kinds = ["frame", "frame", "event", "event", "event", "frame", "bad", "bad", "bad", "app"]
    assert [next(iter(line)) for line in rest[:4] + rest[5:]] == kinds[:4] + kinds[5:]
    assert rest[0]["frame"] == items[0]
    assert rest[3]["event"] == {"type": "turn.update", "transcript": "so it is"}
    assert rest[-1]["app"] == {"type": "disconnected", "reason": "gone"}
    assert all("t" not in line for line in rest)


def test_times_are_written_where_they_are_times() -> None:
    times = (1, 0.5, None, float("nan"), float("inf"), -2.0)
    written = lines(recorded([(TurnStart(), now) for now in times]))[1:]
    assert [line.get("t", "none") for line in written] == [1, 0.5, "none", "none", "none", -2.0]


def test_the_header_says_what_was_told() -> None:
    settings = TurnSettings(end_threshold=0.3)
    about: dict[str, Any] = {"call": "7f", "settings": settings, "started": "2026-07-06T12:00Z", "labels": {"a": "b"}}
    (header,) = lines(recorded([], redact=True, **about))
    assert header == {
        **about,
        "inkturns": 1,
        "version": VERSION,
        "source": "Ink2",
        "policy": dump_policy(Policy()),
        "settings": {"end_threshold": 0.3},
        "redacted": True,
    }
    assert next(iter(header)) == "inkturns"  # by which the reader finds a call's beginning
    (read_back,) = read([json.dumps(header)])
    assert isinstance(read_back, Header)
    assert (read_back.call, read_back.labels, read_back.redacted, read_back.line) == ("7f", {"a": "b"}, True, 1)
    assert (read_back.version, read_back.source, read_back.started) == (VERSION, "Ink2", about["started"])


def test_the_header_says_when_the_call_began_and_by_whose_frames_without_being_asked() -> None:
    class Flux:
        def events(self, frame: Any) -> tuple[Event, ...]:
            return ()

    file = io.BytesIO()
    Turns(source=Flux(), recorder=Recorder(file))
    (header,) = lines(file.getvalue())
    assert header["source"] == "Flux"
    began = datetime.fromisoformat(header["started"])
    assert began.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - began) < timedelta(minutes=1)


def test_words_that_utf8_cannot_hold_are_written_as_far_as_it_can() -> None:
    data = recorded([(Disconnected("\ud800 gone"), None)])
    assert lines(data)[1]["app"]["reason"] == "? gone"


def test_odd_numbers_and_values_are_written_down() -> None:
    class Seconds(float):
        pass

    class Odd:
        def __repr__(self) -> str:
            return "odd"

    data = recorded([(Unknown(kind="x", fields={"a": Odd(), "b": always}), Seconds(1.5))])
    line = lines(data)[1]
    assert line["t"] == 1.5
    assert line["event"]["fields"] == {"a": "odd", "b": f"{__name__}.always"}


# -- policies


@given(policies().map(known))
def test_a_policy_is_read_back_as_it_was(policy: Policy) -> None:
    assert load_policy(json.loads(encode(dump_policy(policy)))) == policy


def test_functions_are_written_by_import_path() -> None:
    said = dump_policy(Policy(match=always, speculate=min_words(3), interrupts=min_words(2, ("no",))))
    assert said["match"] == f"{__name__}.always"
    assert said["speculate"] == {"min_words": 3, "or_any": []}
    assert said["interrupts"] == {"min_words": 2, "or_any": ["no"]}
    assert dump_policy(Policy(match=functools.partial(always, "")))["match"] == "functools.partial"
    assert (
        dump_policy(Policy(match=functools.wraps(same_text)(lambda *_: True)))["match"]
        == "inkturns.policy.same_text (another)"
    )


@pytest.mark.parametrize(
    ("values", "what"),
    [
        (None, "object"),
        ({"match": "os.system"}, "Policy.match is 'os.system'.*policy="),
        ({"interrupts": "inkturns.policy.min_words"}, "Policy.interrupts"),
        ({"interrupts": {"min_words": -1, "or_any": []}}, "Policy.interrupts"),
        ({"speculate": {"min_words": 1}}, "Policy.speculate"),
        ({"speculate": "os.system"}, "Policy.speculate"),
        ({"match": {"min_words": 1, "or_any": []}}, "Policy.match"),
        ({"interrupts": {"n": 1}}, "Policy.interrupts"),
        ({"match": ["x"]}, "Policy.match"),
        ({"match": None}, "Policy.match"),
        ({"haste": 1}, "haste"),
        ({"after_resume": "explode"}, "explode"),
    ],
)
def test_a_policy_that_cannot_be_is_refused_by_name(values: object, what: str) -> None:
    with pytest.raises(RecordingError, match=what):
        load_policy(values)


def test_nothing_that_a_recording_names_is_imported() -> None:
    assert "this" not in sys.modules
    data = json.dumps({"inkturns": 1, "policy": {"match": "this.s"}})
    with pytest.raises(RecordingError, match=r"line 1: .*this\.s"):
        list(replay([data]))
    assert "this" not in sys.modules


def test_a_function_of_ones_own_replays_where_it_is_given_again() -> None:
    items: list[tuple[object, float | None]] = [
        ('{"type":"turn.start"}', None),
        ('{"type":"turn.eager_end","transcript":"one"}', None),
        (UsePolicy(Policy(match=always, speculate=False)), None),
        ('{"type":"turn.end","transcript":"two"}', None),
    ]
    data = recorded(items, Policy(match=always, after_disconnect=AfterDisconnect.RESPOND)).splitlines()
    with pytest.raises(RecordingError, match=r"line 1: Policy\.match"):
        list(replay(data))
    policy = Policy(match=always)
    assert [one.event for one in replay(data, policy)][2] == UsePolicy(policy)  # it decides, whatever was used then
    assert [one.differs for one in replay(data, {"match": always})] == [None] * 4
    other = list(replay(data, {"match": same_text}))
    assert other[3].differs == json.loads(data[4])["out"]
    errors: list[RecordingError] = []
    assert list(replay(data, on_error=errors.append)) == []
    assert [error.line for error in errors] == [1, 4]


# -- the reader


def test_both_real_sessions() -> None:
    whole = list(replay(COMPLETE.read_text().splitlines()))
    responds = [action for one in whole for action in one.actions if isinstance(action, Respond)]
    assert [(action.thought, action.turn.transcript) for action in responds] == [(1, WORDS + " circumflex 5.")]
    assert (whole[-1].turn, whole[-1].phase) == (None, Phase.IDLE)
    assert not [one for one in whole if one.differs or one.header]

    with CUT.open("rb") as file:
        cut = list(replay(file))
    assert cut[-1].turn is not None
    assert (cut[-1].phase, cut[-1].turn.transcript) == (Phase.SPEAKING, WORDS)
    data = CUT.read_text() + '{"app":{"type":"disconnected"}}\n'
    (lost,) = list(replay(data.splitlines()))[-1].actions
    assert isinstance(lost, Abandon)
    assert lost.turn.transcript == WORDS


def test_what_is_not_known_is_passed_over() -> None:
    header = json.dumps({"inkturns": 1, "policy": {}, "mood": "good"})
    rest = ['{"mark":"tts began"}', "", "  \r\n", '{"t":1,"app":{"type":"tick"},"by":"us"}', '{"type":"turn.start"}']
    (one,) = replay([header, *rest])
    assert (one.line, one.t, one.out, one.differs) == (5, 1, None, None)


def test_bare_frames_may_be_any_and_a_part_of_a_recording_is_read() -> None:
    bare = ["\ufeff" + '{"type":"turn.start"}', '{"typ":1}', '{"type":"turn.end","frame":"x"}', '{"bad":"why"}']
    got = list(replay(bare))
    assert [type(one.event).__name__ for one in got] == ["TurnStart", "NoneType", "TurnEnd", "NoneType"]
    assert got[3].actions == (Report(ReportKind.BAD_FRAME, None, "why"),)
    assert list(read(['{"frame":"{}","t":2}'])) == [Entry(1, 2, frame="{}")]


def test_a_file_may_hold_several_calls(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    for call in ("a", "b"):
        with path.open("ab") as file:
            file.write(b"" if call == "a" else b'{"t":1,"fra')
        recorder = Recorder(path, call=call)
        Turns(recorder=recorder).feed(TurnStart())
        recorder.close()
    errors: list[RecordingError] = []
    with path.open("rb") as file:
        got = list(replay(file, on_error=errors.append))
    assert [(one.header and one.header.call, one.actions[0].turn.number) for one in got] == [("a", 1), ("b", 1)]  # type: ignore[attr-defined]
    assert [error.line for error in errors] == [3]


HEADER = '{"inkturns":1,"policy":{}}\n'


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("nonsense", "no JSON"),
        ('{"frame":"x"', "no JSON"),
        ("[1]", "Expected `object`"),
        ('{"frame":1}', "Expected `str`"),
        ('{"bad":1}', "Expected `str`"),
        ('{"frame":"","app":{}}', "one input a line, not frame and app"),
        ('{"app":{"type":"nap"}}', "nap"),
        ('{"app":{"type":"thought_failed","number":true,"thought":1}}', "number"),
        ('{"app":{"type":"use_policy"}}', "policy"),
        ('{"app":{"type":"tick"},"t":"x"}', "Expected `int | float | null`"),
        ('{"app":' + "[" * 50_000 + "]" * 50_000 + "}", "nested"),
        ('{"inkturns":"one"}', "Expected `int`"),
    ],
)
def test_a_line_that_cannot_be_read_is_said_with_its_number(line: str, what: str) -> None:
    with pytest.raises(RecordingError) as caught:
        list(read([HEADER, line + "\n"]))
    assert caught.value.line == 2
    assert what in str(caught.value)
    errors: list[RecordingError] = []
    rest = '{"t":1,"app":{"type":"tick"}}\n'
    assert len(list(read([HEADER, line + "\n", rest], on_error=errors.append))) == 2
    assert len(list(read([HEADER.strip(), line, rest.strip()], on_error=errors.append))) == 2
    assert [error.line for error in errors] == [2, 2]


@given(st.lists(st.binary(max_size=40) | st.text(st.characters(codec=None), max_size=40), max_size=5))
def test_no_lines_raise_anything_else(some: list[bytes | str]) -> None:
    errors: list[RecordingError] = []
    list(replay([HEADER, *some], on_error=errors.append))
    list(replay(some, on_error=errors.append))


def test_a_newer_format_ends_the_reading() -> None:
    errors: list[RecordingError] = []
    tick = '{"app":{"type":"tick"}}'
    assert len(list(replay([HEADER, tick, '{"inkturns":2}', tick], on_error=errors.append))) == 1
    (error,) = errors
    assert "format 2" in error.reason
    assert error.line == 3


def test_a_last_line_that_was_cut_short_is_said_and_not_fatal() -> None:
    data = [HEADER, '{"app":{"type":"tick"}}\n', '{"t":1,"fra']
    with pytest.warns(RecordingWarning, match="line 3: cut short"):
        assert len(list(replay(data))) == 1
    errors: list[RecordingError] = []
    list(replay(data, on_error=errors.append))
    assert [type(error) for error in errors] == [TruncatedError]


@pytest.mark.parametrize("cut", [3, 5, 15, -40, -2])
def test_what_a_killed_process_left_is_readable_after_the_next_call_too(tmp_path: Path, cut: int) -> None:
    """A header cut short, or a line of the call."""
    path = tmp_path / "calls.jsonl"
    path.write_bytes(recorded([('{"type":"turn.start"}', None)])[:cut])
    Turns(recorder=Recorder(path)).feed('{"type":"turn.start"}')
    errors: list[RecordingError] = []
    with path.open("rb") as lines:
        replayed = list(replay(lines, on_error=errors.append))
    assert [one.differs for one in replayed] == [None]
    assert [type(error) for error in errors] == [TruncatedError]
    with path.open("rb") as lines, pytest.warns(RecordingWarning, match="cut short"):
        assert len(list(read(lines))) == len(replayed) + (1 if cut > 0 else 2)


def test_a_line_that_is_broken_elsewhere_is_not_called_cut_short() -> None:
    header, line = recorded([('{"type":"turn.start"}', None)]).splitlines()
    for broken in (b'{"frame":3}', b'{"frame"', b"x"):
        for after in ([line], [header, line] if broken != b'{"frame"' else [b""]):
            with pytest.raises(RecordingError, match="line 2"):
                list(read([header, broken + b"\n", *after]))


def test_lines_that_cannot_be_read_are_many_without_harm() -> None:
    errors: list[RecordingError] = []
    assert list(read(["{"] * 30_000, on_error=errors.append)) == []
    assert len(errors) == 30_000


def test_an_out_that_is_none_is_a_difference_and_cannot_be_read_as_actions() -> None:
    (one,) = replay(['{"app":{"type":"tick"},"out":[{"type":"Dance"}]}'])
    assert one.differs == [{"type": "Dance"}]
    outs: list[Any] = [one.out, [1], {}, [{"type": "Report", "kind": "x"}], [{"type": "Listen"}]]
    for out in outs:
        with pytest.raises(RecordingError):
            load_actions(out)
    with pytest.raises(RecordingError):
        load_event([])


def test_a_policy_for_the_replay_is_checked_as_any() -> None:
    with pytest.raises(TypeError, match="haste"):
        list(replay([], {"haste": 1}))


# -- the writer's own failures


class Full(io.BytesIO):
    """A disk with room for so many bytes."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def write(self, data: Any) -> int:
        if not self.room:
            raise OSError(28, "No space left on device")
        written = super().write(data[: self.room])
        self.room -= written
        return written


@pytest.mark.parametrize("room", [0, 10, 300, 400, 1000])
def test_a_full_disk_is_said_once_and_never_stops_the_call(room: int) -> None:
    file = Full(room)
    recorder = Recorder(file)

    def go() -> list[tuple[Action, ...]]:
        turns = Turns(recorder=recorder)
        return [turns.feed(line) for line in COMPLETE.read_text().splitlines()]

    with pytest.warns(RecordingWarning, match="No space left") as said:
        got = go()
    assert len(said) == 1
    assert isinstance(recorder.failed, OSError)
    assert any(isinstance(action, Respond) for action in got[-1])
    recorder.close()
    assert not file.closed  # the caller opened it
    assert len(file.getvalue()) == room
    errors: list[RecordingError] = []
    list(replay(file.getvalue().splitlines(keepends=True), on_error=errors.append))
    assert len(errors) <= 1


@pytest.mark.parametrize(
    "path",
    [pytest.param("/dev/full", marks=pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux")), "no/x"],
)
def test_a_real_disk_that_is_full_or_is_not_there(path: str) -> None:
    with pytest.warns(RecordingWarning):
        turns = Turns(recorder=Recorder(path))
    assert turns.feed(TurnStart())


def test_a_warning_that_is_an_error_does_not_stop_the_call_either() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        turns = Turns(recorder=Recorder(Full(0)))
        assert turns.feed(TurnStart())


def test_a_closed_recorder_and_one_that_was_never_begun_write_nothing(tmp_path: Path) -> None:
    path = tmp_path / "call.jsonl"
    recorder = Recorder(path)
    recorder.write(None, TurnStart(), None, ())
    assert not path.exists()
    turns = Turns(recorder=recorder)
    recorder.close()
    recorder.close()
    turns.feed(TurnStart())
    assert len(path.read_text().splitlines()) == 1
    assert recorder.failed is None


@pytest.mark.parametrize(
    "given",
    [
        *({"settings": {"end_timeout_ms": 640}}, {"labels": 3}, {"labels": "ab"}, {"redact": "no"}, {"redact": None}),
        *({"out": 1}, {"sample": "all"}, {"sample": None}),
    ],
)
def test_f41_what_a_recorder_is_given_is_checked(given: dict[str, Any]) -> None:
    (name, value), *_ = given.items()
    with pytest.raises(TypeError, match=rf"Recorder\.{name} must be .*, got {value!r}"):
        Recorder(io.BytesIO(), **given)


@pytest.mark.parametrize("sample", [-0.1, 1.1, float("nan"), True])
def test_f41_a_share_of_calls_is_checked(sample: float) -> None:
    with pytest.raises(ValueError, match=r"Recorder\.sample must be a share"):
        Recorder(io.BytesIO(), call="a", sample=sample)


def test_f41_a_recorder_has_one_file() -> None:
    for files in ({}, {"file": "a", "open": io.BytesIO}):
        with pytest.raises(TypeError, match="needs `file` or `open`, and not both"):
            Recorder(**files)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"Recorder\.open must be a function"):
        Recorder(open="a")  # type: ignore[arg-type]


def test_a_recorder_is_for_one_call_and_for_bytes() -> None:
    recorder = Recorder(io.BytesIO())
    Turns(recorder=recorder)
    with pytest.raises(RuntimeError, match="one call"):
        Turns(recorder=recorder)
    for file in (io.StringIO(), 3, sys.stdout):
        with pytest.raises(TypeError, match=r"Recorder\.file must be a path or an open binary file"):
            Recorder(file)  # type: ignore[arg-type]


KILLED = """
import os, signal, sys
from inkturns.turns import Turns
from inkturns.recording import VERSION, Recorder
turns = Turns(recorder=Recorder(sys.argv[1]))
for line in open(sys.argv[2]):
    turns.feed(line)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_leaves_a_readable_file(tmp_path: Path) -> None:
    path = tmp_path / "call.jsonl"
    done = subprocess.run([sys.executable, "-c", KILLED, path, COMPLETE], cwd=SESSIONS.parent.parent, check=False)
    assert done.returncode == -signal.SIGKILL
    with path.open("rb") as file:
        got = list(replay(file))
    assert len(got) == 24
    assert not any(one.differs for one in got)


def test_each_line_is_whole_when_the_feed_returns(tmp_path: Path) -> None:
    path = tmp_path / "call.jsonl"
    turns = Turns(recorder=Recorder(path))
    for n, line in enumerate(COMPLETE.read_text().splitlines(), 2):
        turns.feed(line)
        assert path.read_bytes().count(b"\n") == n
        assert path.read_bytes().endswith(b"\n")


def test_it_is_written_before_the_hooks_run() -> None:
    file = io.BytesIO()
    turns = Turns(recorder=Recorder(file))
    seen: list[int] = []
    turns.on_start(lambda turn: seen.append(file.getvalue().count(b"\n")))
    turns.feed(TurnStart())
    assert seen == [2]


def test_other_sources_are_recorded_as_events() -> None:
    class Flux:
        def events(self, frame: Any) -> tuple[Event, ...]:
            if frame != "hello":
                raise DecodeError("not Flux")
            return (TurnStart(), TurnUpdate(transcript=frame))

    file = io.BytesIO()
    turns = Turns(source=Flux(), recorder=Recorder(file))
    turns.feed("hello")
    turns.feed("?")
    turns.feed('{"type":"turn.start"}')
    assert not [one.line for one in replay(file.getvalue().splitlines()) if one.differs]
    assert [next(iter(line)) for line in lines(file.getvalue())][1:3] == ["event", "event"]


def test_the_module_says_what_it_has() -> None:
    assert {name for name in recording.__all__ if not hasattr(recording, name)} == set()


def test_a_note_is_passed_over_by_a_replay_and_redacted_like_the_rest() -> None:
    files = io.BytesIO(), io.BytesIO()
    for file, text in zip(files, (True, False), strict=True):
        recorder = Recorder(file, redact=not text)
        recorder.note({"agent": "heard", "text": "too early"})  # no header yet: nothing to write to
        turns = Turns(recorder=recorder)
        turns.feed('{"type":"turn.start"}')
        recorder.note({"t": 1.0, "agent": "heard", "turn": 1, "text": "Hi 5"})
        assert len(list(replay(file.getvalue().splitlines(keepends=True)))) == 1
    assert [file.getvalue().splitlines()[-1] for file in files] == [
        b'{"t":1.0,"agent":"heard","turn":1,"text":"Hi 5"}',
        b'{"t":1.0,"agent":"heard","turn":1,"text":"xx 0"}',
    ]


def test_a_redacted_note_keeps_what_figures_are_made_of() -> None:
    file = io.BytesIO()
    recorder = Recorder(file, redact=True)
    recorder.begin(Policy())
    turn = {"number": 1, "transcript": "hello", "end": "server"}
    recorder.note({"agent": "replied", "turn": 1, "replied": {"turn": turn, "outcome": "heard", "text": "hi"}})
    recorder.note({"agent": "settled", "settled": {"reason": "resumed", "notes": {"model": "gpt-4", "said": "hi"}}})
    stuck = {"kind": "stuck_task", "detail": "thought 1", "event": None}
    recorder.note({"agent": "report", "turn": 0, "report": stuck})
    replied, settled, report = lines(file.getvalue())[1:]
    assert replied["replied"] == {"turn": turn | {"transcript": "xxxxx"}, "outcome": "heard", "text": "xx"}
    assert settled["settled"] == {"reason": "resumed", "notes": {"model": "gpt-4", "said": "xx"}}
    assert report["report"] == stuck


def test_a_directory_that_is_not_there_is_said_with_the_fix(tmp_path: Path) -> None:
    with pytest.warns(RecordingWarning, match="; the directory of .*nowhere.* does not exist: make it first"):
        Turns(recorder=Recorder(tmp_path / "nowhere" / "call.jsonl"))


def test_a_note_that_cannot_be_written_is_said_once() -> None:
    file = io.BytesIO()
    recorder = Recorder(file)
    recorder.begin(Policy())
    file.close()
    with pytest.warns(RecordingWarning, match="the recording stops here"):
        recorder.note({"agent": "began"})
    recorder.note({"agent": "began"})
    assert isinstance(recorder.failed, ValueError)
