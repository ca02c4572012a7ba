"""Frames to events, commands to frames: whatever comes in, an event or a DecodeError comes out."""

import json
import math
import time
import tracemalloc
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any
from urllib.parse import unquote

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inkturns.errors import DecodeError
from inkturns.events import (
    FROM_APPLICATION,
    FROM_SERVER,
    Connected,
    ServerError,
    ServerEvent,
    TurnEagerEnd,
    TurnEnd,
    TurnResume,
    TurnStart,
    TurnUpdate,
    Unknown,
)
from inkturns.settings import BALANCED, ENCODINGS, TurnSettings
from inkturns.testing.strategies import frames
from inkturns.wire import close_command, config_command, connect_query, decode

SESSIONS = Path(__file__).parent / "sessions"
TEN_MB = 10_000_000
SECRET = "shibboleth"

KINDS: dict[str, type[ServerEvent]] = {
    "connected": Connected,
    "turn.start": TurnStart,
    "turn.update": TurnUpdate,
    "turn.eager_end": TurnEagerEnd,
    "turn.resume": TurnResume,
    "turn.end": TurnEnd,
    "error": ServerError,
}
SPOKEN = ("turn.update", "turn.eager_end", "turn.end")
FIELDS = {
    kind: ("request_id", "turn_id")
    + ("transcript",) * (kind in SPOKEN)
    + ("status_code", "title", "message", "error_code", "doc_url") * (kind == "error")
    for kind in KINDS
}


def outcome(frame: object) -> ServerEvent | DecodeError:
    """The event, or the error: any other exception passes, and fails the test."""
    found: ServerEvent | DecodeError
    try:
        found = decode(frame)
    except DecodeError as error:
        found = error
    if isinstance(found, DecodeError):
        assert len(found.quote) <= 80
        assert str(found) == (f"{found.reason}: {found.quote}" if found.quote else found.reason)
        str(found).encode()
    else:
        assert type(found) in FROM_SERVER
    return found


def refused(frame: object) -> DecodeError:
    found = outcome(frame)
    assert isinstance(found, DecodeError), found
    return found


def again(event: ServerEvent) -> ServerEvent:
    return msgspec.json.decode(msgspec.json.encode(event), type=type(event))


def compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


class Message(SimpleNamespace):
    """A message as the Cartesia SDK hands it over."""

    def to_dict(self) -> dict[str, Any]:
        return vars(self)


def forms(message: dict[str, Any]) -> Iterator[object]:
    text = compact(message)
    yield text
    yield text.encode()
    yield bytearray(text.encode())
    yield memoryview(text.encode())
    yield json.dumps(message, indent=1)
    yield message
    yield MappingProxyType(message)
    yield Message(**message)


# -- totality


any_text = st.text(st.characters(codec=None))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=4),
    max_leaves=10,
)
names = st.sampled_from(("type", "transcript", "turn_id", "request_id", "status_code", "title", "fields", "kind"))
types = st.sampled_from((*KINDS, "turn.sigh", "tick", "unknown"))
members = st.dictionaries(names | any_text, types | json_values, max_size=6)


@given(st.binary())
def test_any_bytes_give_an_event_or_a_decode_error(frame: bytes) -> None:
    for same in (frame, bytearray(frame), memoryview(frame)):
        outcome(same)


@given(any_text)
def test_any_text_does(frame: str) -> None:
    outcome(frame)


@given(json_values | members)
def test_any_json_value_does(value: object) -> None:
    outcome(value)
    outcome(json.dumps(value))
    outcome(json.dumps(value, ensure_ascii=False))
    outcome(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"))


@given(members, types)
def test_any_members_of_any_type_do(message: dict[str, Any], kind: str) -> None:
    message |= {"type": kind}
    for frame in (message, MappingProxyType(message), json.dumps(message)):
        outcome(frame)
    outcome(SimpleNamespace(**{name: value for name, value in message.items() if "\0" not in name}))


@given(frames())
def test_any_frame_does_and_what_it_says_survives_json(frame: object) -> None:
    event = outcome(frame)
    if isinstance(event, ServerEvent):
        assert again(event) == event


class Raises:
    def __init__(self, error: Exception) -> None:
        vars(self)["error"] = error

    def __getattr__(self, name: str) -> Any:
        raise self.error


class AnswersItself:
    def __getattr__(self, name: str) -> Any:
        return self

    def __call__(self, *args: object) -> Any:
        return self


class Answers:
    def __init__(self, value: object) -> None:
        vars(self)["value"] = value

    def __getattr__(self, name: str) -> Any:
        return self.value


class Claims:
    """Says that it is of another class."""

    type = "turn.end"

    def __init__(self, kind: object) -> None:
        self.kind = kind

    @property
    def __class__(self) -> Any:
        if isinstance(self.kind, Exception):
            raise self.kind
        return self.kind

    @__class__.setter
    def __class__(self, value: Any) -> None: ...


class Nameless(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise RuntimeError("no name")


class OfNoName(metaclass=Nameless): ...


class Items(dict[str, Any]):
    def keys(self) -> Any:
        raise RuntimeError("no keys")

    def __iter__(self) -> Any:
        raise RuntimeError("no keys")


class ToDict:
    type = "turn.sigh"

    def __init__(self, value: object) -> None:
        self.value = value

    def to_dict(self) -> Any:
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


class Text(str): ...


class Unhashable(str):
    __hash__ = None  # type: ignore[assignment]


def cycle() -> dict[str, Any]:
    value: dict[str, Any] = {"type": "turn.sigh"}
    value["value"] = value
    return value


def released() -> memoryview:
    view = memoryview(b"{}")
    view.release()
    return view


ERRORS: tuple[Exception, ...] = (
    RuntimeError(),
    AttributeError(),
    RecursionError(),
    MemoryError(),
    UnicodeError(),
    StopIteration(),
    KeyError(),
)
ODD: dict[str, object] = {
    **{f"attributes that raise {type(error).__name__}": Raises(error) for error in ERRORS},
    **{f"a class that raises {type(error).__name__}": Claims(error) for error in ERRORS},
    **{f"to_dict that raises {type(error).__name__}": ToDict(error) for error in ERRORS},
    **{f"claims to be {kind.__name__}": Claims(kind) for kind in (str, bytes, bytearray, memoryview, dict, int)},
    "claims to be what is no class": Claims(5),
    "answers everything with itself": AnswersItself(),
    "answers everything with a type": Answers("turn.end"),
    "answers everything with none": Answers(None),
    "answers everything with NaN": Answers(math.nan),
    "its class has no name": OfNoName(),
    "keys that raise": Items(type="turn.end"),
    "to_dict of a number": ToDict(5),
    "to_dict of itself": ToDict(cycle()),
    "a cycle": cycle(),
    "a released view": released(),
    "a view that skips": memoryview(b'{"type":"turn.end"}')[::2],
    "an unhashable type": {"type": Unhashable("turn.end")},
    "a text that is more": {"type": "turn.end", "transcript": Text("go")},
    "keys that are no strings": {"type": "turn.sigh", (1, 2): 3, b"x": 4},
    "values that are no JSON": {"type": "turn.sigh", "value": object()},
    "a number of 5,000 digits": {"type": "turn.sigh", "value": 10**5000},
    "a status of 5,000 digits": {"type": "error", "status_code": 10**5000},
    "an id of 5,000 digits": {"type": "turn.end", "turn_id": 10**5000},
    "a class": TurnEnd,
    "an event": TurnEnd(transcript="go"),
    "nothing": None,
    "a function": decode,
}


@pytest.mark.parametrize("name", ODD)
def test_any_object_gives_an_event_or_a_decode_error(name: str) -> None:
    try:
        outcome(ODD[name])
    except Exception as error:  # such objects defeat pytest's own reports
        pytest.fail(f"{type(error).__name__} came out of decode", pytrace=False)


LONG = {
    "garbage": lambda: "a" * TEN_MB,
    "no UTF-8": lambda: b"\xff" * TEN_MB,
    "surrogates": lambda: "\ud800" * TEN_MB,
    "white space": lambda: " " * TEN_MB,
    "opening brackets": lambda: "[" * TEN_MB,
    "opening objects": lambda: '{"type":' * (TEN_MB // 8),
    "nested, unknown": lambda: '{"type":"turn.sigh","value":' + "[" * (TEN_MB // 2) + "]" * (TEN_MB // 2) + "}",
    "nested, passed over": lambda: '{"type":"turn.end","value":' + "[" * (TEN_MB // 2) + "]" * (TEN_MB // 2) + "}",
    "nested, an id": lambda: '{"type":"turn.end","turn_id":' + "[" * (TEN_MB // 2) + "]" * (TEN_MB // 2) + "}",
    "a transcript": lambda: '{"type":"turn.update","transcript":"' + "go " * (TEN_MB // 3) + '"}',
    "escapes": lambda: '{"type":"turn.update","transcript":"' + r"\u0061" * (TEN_MB // 6) + '"}',
    "a string cut off": lambda: '{"type":"turn.update","transcript":"' + "\\\\" * (TEN_MB // 2),
    "a type": lambda: '{"type":"' + "0" * TEN_MB + '"}',
    "a number": lambda: '{"type":"turn.sigh","value":' + "9" * TEN_MB + "}",
    "an exponent": lambda: '{"type":"turn.sigh","value":1e' + "9" * TEN_MB + "}",
    "an id of digits": lambda: '{"type":"turn.end","turn_id":' + "9" * TEN_MB + "}",
    "a list as text": lambda: '{"type":"turn.end","transcript":[' + "0," * (TEN_MB // 2) + "0]}",
    "members": lambda: "{" + "".join(f'"{n}":0,' for n in range(TEN_MB // 10)) + '"type":"turn.sigh"}',
    "one member again and again": lambda: "{" + '"type":"turn.end",' * (TEN_MB // 18) + '"type":"turn.end"}',
    "many frames": lambda: '{"type":"turn.end"}' * (TEN_MB // 19),
}


@pytest.mark.parametrize("make", LONG.values(), ids=LONG)
def test_ten_megabytes_take_bounded_time(make: Callable[[], str | bytes]) -> None:
    frame = make()
    began = time.process_time()
    outcome(frame)
    assert time.process_time() - began < 5  # tens of milliseconds, on any machine; quadratic would be hours


@pytest.mark.parametrize("turn_id", ['"1"', "1"])
def test_what_nobody_asks_for_is_not_unpacked(turn_id: str) -> None:
    frame = f'{{"type":"turn.end","turn_id":{turn_id},"transcript":"go","words":[{"0," * 500_000}0]}}'.encode()
    tracemalloc.start()
    try:
        assert decode(frame) == TurnEnd(transcript="go", turn_id="1")
        assert tracemalloc.get_traced_memory()[1] < 2 * len(frame)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("depth", [10, 100])
def test_nesting_that_python_can_hold_is_read(depth: int) -> None:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    for frame in forms({"type": "turn.sigh", "value": value}):
        assert decode(frame) == Unknown(kind="turn.sigh", fields={"value": value})


# -- what a frame says

ids = {
    "request_id": st.none() | st.text(),
    "turn_id": st.none() | st.text() | st.integers(-(2**63), 2**63) | st.booleans() | st.lists(st.integers(0, 9)),
}
optional: dict[str, st.SearchStrategy[Any]] = {
    **ids,
    "transcript": st.none() | st.text(),
    "status_code": st.none() | st.integers(-(2**63), 2**63),
    **dict.fromkeys(("title", "message", "error_code", "doc_url"), st.none() | st.text()),
}


@st.composite
def messages(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(tuple(KINDS)))
    fields = draw(st.fixed_dictionaries({}, optional={name: optional[name] for name in FIELDS[kind]}))
    return {"type": kind, **fields, **draw(st.dictionaries(st.sampled_from(("words", "kind")), st.integers(0, 9)))}


@given(messages())
def test_a_message_gives_the_same_event_in_every_form(message: dict[str, Any]) -> None:
    fields = {name: message[name] for name in FIELDS[message["type"]] if message.get(name) is not None}
    if not isinstance(turn_id := fields.get("turn_id", ""), str):
        fields["turn_id"] = compact(turn_id)
    event = KINDS[message["type"]](**fields)
    for frame in forms(message):
        if not (isinstance(frame, str) and "\n" in frame and isinstance(turn_id, list)):  # its JSON text is another
            assert decode(frame) == event
    assert again(event) == event


@given(st.text().filter(lambda kind: kind not in KINDS), st.dictionaries(st.text(), st.integers() | st.text()))
def test_a_type_that_is_not_known_is_unknown_with_the_rest_as_fields(kind: str, rest: dict[str, Any]) -> None:
    taken = ("type", "request_id", "turn_id", "self", "to_dict")  # the last two are the object's own, in `forms`
    rest = {name: value for name, value in rest.items() if name not in taken}
    message = {"type": kind, "request_id": "r", "turn_id": 7, **rest}
    for frame in forms(message):
        assert decode(frame) == Unknown(kind=kind, fields=rest, request_id="r", turn_id="7")


@pytest.mark.parametrize("request_id", [5, [1], {"a": None}, True])
def test_so_is_one_whose_request_id_is_none(request_id: object) -> None:
    for frame in forms({"type": "turn.sigh", "request_id": request_id, "turn_id": None}):
        assert decode(frame) == Unknown(kind="turn.sigh", fields={"request_id": request_id})


@pytest.mark.parametrize("kind", [str(kind.__struct_config__.tag) for kind in FROM_APPLICATION] + ["unknown"])
def test_the_applications_own_types_are_unknown_on_the_wire(kind: str) -> None:
    rest = {"number": 1, "thought": 1, "kind": "turn.end", "fields": {"a": 1}, "policy": {}, "reason": None}
    for frame in forms({"type": kind, **rest}):
        assert decode(frame) == Unknown(kind=kind, fields=rest)


@pytest.mark.parametrize("kind", SPOKEN)
def test_a_missing_or_null_transcript_is_empty(kind: str) -> None:
    for message in ({"type": kind}, {"type": kind, "transcript": None}):
        for frame in forms(message):
            assert decode(frame) == KINDS[kind](transcript="")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("turn_id", "text"),
    [
        *(("7", "7"), ("-0", "-0"), ("1.50", "1.50"), ("true", "true"), ('{"a": 1}', '{"a": 1}'), ("[]", "[]")),
        *(('"1"', "1"), ('""', ""), (r'"\u0031"', "1"), ("null", None), ("9" * 5000, "9" * 5000), ("1e999", "1e999")),
    ],
)
@pytest.mark.parametrize("kind", [*KINDS, "turn.sigh"])
def test_a_turn_id_that_is_no_string_is_its_json_text(kind: str, turn_id: str, text: str | None) -> None:
    frame = f'{{"type":"{kind}","turn_id":{turn_id}}}'
    assert decode(frame).turn_id == decode(frame.encode()).turn_id == text


@given(st.text())
def test_a_transcript_is_kept_to_the_letter(text: str) -> None:
    for frame in forms({"type": "turn.end", "transcript": f" {text} "}):
        assert decode(frame) == TurnEnd(transcript=f" {text} ")


def test_a_member_that_comes_twice_counts_as_it_came_last() -> None:
    for frame in (
        '{"type":"turn.end","transcript":"a","transcript":"b"}',
        '{"transcript":5,"type":"turn.end","transcript":"b"}',
        '{"type":"turn.start","transcript":"b","type":"turn.end"}',
    ):
        assert decode(frame) == decode(json.loads(frame)) == TurnEnd(transcript="b")


def test_f09_an_event_is_known_by_its_type_never_by_its_class() -> None:
    class TurnEndEvent(Message): ...

    assert decode(TurnEndEvent(type="turn.sigh", transcript="go")) == Unknown(
        kind="turn.sigh", fields={"transcript": "go"}
    )
    assert decode(TurnEndEvent(type="turn.start", transcript="go")) == TurnStart()


def test_an_object_of_an_unknown_type_without_to_dict_has_the_members_that_are_known() -> None:
    found = decode(SimpleNamespace(type="turn.sigh", transcript="go", mood="sad"))
    assert found == Unknown(kind="turn.sigh", fields={"transcript": "go"})


def test_a_string_of_another_class_is_a_string() -> None:
    class Kind(StrEnum):
        END = "turn.end"

    assert decode({"type": Kind.END, "transcript": "go"}) == TurnEnd(transcript="go")
    assert decode(Text('{"type":"turn.end","transcript":"go"}')) == TurnEnd(transcript="go")


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("ink2-complete-turn", TurnEnd(turn_id="1", transcript="So the derivative of x squared is x circumflex 5.")),
        ("ink2-turn-cut-by-error", None),
    ],
)
def test_both_recordings_decode(name: str, last: ServerEvent | None) -> None:
    lines = (SESSIONS / f"{name}.jsonl").read_text().splitlines()
    events = [decode(line) for line in lines]
    assert [type(event) for event in events] == [KINDS[json.loads(line)["type"]] for line in lines]
    assert [getattr(event, "transcript", None) for event in events] == [json.loads(s).get("transcript") for s in lines]
    assert [again(event) for event in events] == events
    assert {event.turn_id for event in events if not isinstance(event, Connected | ServerError)} == {"1"}


# -- what is refused, and how


WRONG: tuple[Any, ...] = (5, 1.5, True, [], ["go"], {}, {"a": SECRET})
BAD = [
    (kind, name, value)
    for kind, names in FIELDS.items()
    for name in names
    if name != "turn_id"
    for value in (("400", 1.5, True, [], {}) if name == "status_code" else WRONG)
]


@pytest.mark.parametrize(("kind", "name", "value"), BAD)
def test_a_known_type_with_a_bad_field_is_refused_and_the_field_named(kind: str, name: str, value: object) -> None:
    good = {"transcript": SECRET} if kind in SPOKEN else {}
    for frame in forms({"type": kind, "turn_id": "1", **good, name: value}):
        error = refused(frame)
        assert name in error.reason
        assert kind in error.reason
        assert SECRET not in error.reason


def test_a_status_code_that_no_machine_can_hold_is_refused_and_named() -> None:
    assert "status_code" in refused(f'{{"type":"error","status_code":{"9" * 5000}}}').reason


@pytest.mark.parametrize("kind", [None, 5, True, ["turn.end"], {"turn.end": 1}])
def test_a_frame_without_a_type_is_refused_and_the_type_named(kind: object) -> None:
    for frame in (*forms({"type": kind, "transcript": SECRET}), *forms({"transcript": SECRET})):
        error = refused(frame)
        assert "type" in error.reason
        assert SECRET not in error.reason


@pytest.mark.parametrize("text", ["\ud800", "go \udfff", "\udc80\ud800"])
@pytest.mark.parametrize("name", ["transcript", "turn_id", "request_id", "type"])
def test_text_that_utf8_cannot_hold_is_refused(name: str, text: str) -> None:
    message = {"type": "turn.end", name: text}
    for frame in (message, Message(**message), json.dumps(message), json.dumps(message, ensure_ascii=False)):
        assert text not in refused(frame).reason
    refused(json.dumps(message, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    refused({"type": "turn.sigh", "value": [text]})


def test_f11_bytes_that_are_no_text_are_refused() -> None:
    audio, text = b"\x80\x02\xff\xfe", '{"type":"turn.end","transcript":"é"}'
    for frame in (audio, text.encode("utf-16"), text.encode("latin-1"), text.encode()[:-3] + b'"}'):
        refused(frame)


@given(st.integers(0, 90), st.sampled_from(("}", '"', "\ud800", "\\", "NaN", "", "]", "\0")))
def test_no_reason_holds_the_callers_words(at: int, put: str) -> None:
    line = compact({"type": "turn.end", "request_id": "r", "transcript": SECRET, "words": [{"word": SECRET}]})
    for frame in (line[:at] + put + line[at:], line[:at] + put, line[at:]):
        found = outcome(frame)
        assert not isinstance(found, DecodeError) or SECRET not in found.reason


@pytest.mark.parametrize("error", [ValueError(SECRET), DecodeError(SECRET, SECRET), msgspec.ValidationError(SECRET)])
def test_nor_what_an_objects_own_code_raises(error: Exception) -> None:
    for frame in (Raises(error), ToDict(error)):
        assert SECRET not in refused(frame).reason


def test_a_message_quotes_eighty_characters_at_most() -> None:
    exact, longer = "x" * 80, "x" * 81
    assert str(refused(exact)).endswith(": " + exact)
    assert str(refused(longer)).endswith(": " + "x" * 79 + "…")
    assert "x" * 70 in str(refused(b"x" * 1000))
    assert "x" * 80 not in str(refused(b"x" * 1000))
    assert SECRET not in str(refused({"type": "turn.end", "transcript": {SECRET: SECRET}}))


def test_a_decode_error_is_a_value_error_that_hides_what_msgspec_raised() -> None:
    error = refused("{")
    assert isinstance(error, ValueError)
    assert error.__suppress_context__
    assert error.__cause__ is None


# -- commands


def test_close_is_as_the_server_takes_it() -> None:
    assert json.loads(close_command()) == {"type": "close"}


def test_config_says_only_what_is_set() -> None:
    full = {"start_threshold": 0.8, "eager_end_threshold": 0.6, "end_threshold": 0.3, "end_timeout_ms": 5600}
    assert json.loads(config_command(BALANCED)) == {"type": "config", "turn": full}
    one = TurnSettings(end_timeout_ms=640)
    assert json.loads(config_command(one)) == {"type": "config", "turn": {"end_timeout_ms": 640}}
    assert json.loads(config_command(TurnSettings())) == {"type": "config", "turn": {}}
    assert isinstance(config_command(one), str)


def test_a_connection_is_opened_with_what_is_given_in_order() -> None:
    assert connect_query() == "model=ink-2&encoding=pcm_s16le&sample_rate=16000"
    full = connect_query("ink-preview", "pcm_mulaw", 8000, BALANCED, ["hold on", "C++", "é&=%"], "2026-08-14")
    assert full.split("&") == [
        "model=ink-preview",
        "encoding=pcm_mulaw",
        "sample_rate=8000",
        "cartesia_version=2026-08-14",
        "keyterm=hold%20on",
        "keyterm=C%2B%2B",
        "keyterm=%C3%A9%26%3D%25",
        "turn_start_threshold=0.8",
        "turn_eager_end_threshold=0.6",
        "turn_end_threshold=0.3",
        "turn_end_timeout_ms=5600",
    ]
    assert connect_query(settings=TurnSettings()) == connect_query()


@given(st.lists(st.text(max_size=12).filter(str.strip), max_size=100))
def test_keyterms_arrive_as_they_were_given(keyterms: list[str]) -> None:
    query = connect_query(keyterms=keyterms)
    assert not set("+ ?#") & set(query)
    pairs = [pair.split("=") for pair in query.split("&")]
    assert [unquote(term) for name, term in pairs if name == "keyterm"] == keyterms


def test_keyterms_up_to_the_limits_are_accepted() -> None:
    assert connect_query(keyterms=("a",) * 100).count("keyterm=") == 100
    assert connect_query(keyterms=["a" * 1200]).count("a" * 1200) == 1
    assert connect_query(keyterms=["é" * 600, "b" * 600]).count("keyterm=") == 2  # characters, not bytes


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding_of_the_server_is_accepted(encoding: str) -> None:
    assert f"encoding={encoding}&" in connect_query(encoding=encoding)


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"keyterms": ["a"] * 101}, ValueError, ("keyterms", "101", "100")),
        ({"keyterms": ["a" * 1201]}, ValueError, ("keyterms", "1201", "1200")),
        ({"keyterms": ["a" * 601, "b" * 600]}, ValueError, ("keyterms", "1201", "1200")),
        ({"keyterms": "hold on"}, TypeError, ("keyterms", "hold on")),
        ({"keyterms": ["a", 5]}, TypeError, ("keyterms", "5")),
        ({"keyterms": ["a", " "]}, ValueError, ("keyterms", "blank")),
        ({"keyterms": None}, TypeError, ("keyterms", "None")),
        ({"encoding": "mp3"}, ValueError, ("encoding", "mp3", *ENCODINGS)),
        ({"encoding": None}, ValueError, ("encoding", "None", *ENCODINGS)),
        ({"sample_rate": 0}, ValueError, ("sample_rate", "0")),
        ({"sample_rate": -8000}, ValueError, ("sample_rate", "-8000")),
        ({"sample_rate": 8000.0}, ValueError, ("sample_rate", "8000.0")),
        ({"sample_rate": "8000"}, ValueError, ("sample_rate", "'8000'")),
        ({"sample_rate": True}, ValueError, ("sample_rate", "True")),
        ({"model": ""}, ValueError, ("model", "''")),
        ({"model": None}, ValueError, ("model", "None")),
        ({"settings": {"start_threshold": 0.8}}, TypeError, ("settings", "start_threshold")),
        ({"version": 5}, TypeError, ("version", "5")),
        ({"version": ""}, ValueError, ("version", "''")),
    ],
)
def test_what_the_server_would_refuse_is_refused_here(
    given: dict[str, Any], error: type[Exception], said: tuple[str, ...]
) -> None:
    with pytest.raises(error) as found:
        connect_query(**given)
    for part in said:
        assert part in str(found.value)
