"""Strategies: sessions, policies and frames, for Hypothesis.

Rules of this file: what is lawful is what the vendor promises of Ink 2, with all that it does not exclude; texts and
ids come from small alphabets, so that they collide; times are multiples of 1/16 s, so that shifting a clock is exact.

A session is a list of steps, `(event, now)`: what a machine receives, and when, in seconds on any clock, or None where
no time is told. `for event, now in session: machine.receive(event, now)`.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from types import MappingProxyType, SimpleNamespace
from typing import Any

from msgspec.structs import replace

try:
    from hypothesis import strategies as st
    from hypothesis.strategies import DrawFn, SearchStrategy
except ImportError as missing:
    said = 'inkturns.testing.strategies needs hypothesis: pip install "inkturns[testing]"'
    raise ImportError(said, name=missing.name) from missing

from inkturns.events import (
    Connected,
    ContextChanged,
    Disconnected,
    EndNow,
    Event,
    ReplyDone,
    ReplyStarted,
    ServerError,
    StopReply,
    ThoughtFailed,
    Tick,
    TurnEagerEnd,
    TurnEnd,
    TurnResume,
    TurnStart,
    TurnUpdate,
    Unknown,
    UsePolicy,
)
from inkturns.policy import AfterDisconnect, AfterResume, AfterStall, Policy, min_words, same_text, same_words

__all__ = [
    "Session",
    "Step",
    "events",
    "frames",
    "garbage",
    "hostile_sessions",
    "lawful_sessions",
    "nearly_well_formed",
    "policies",
    "well_formed",
]

Step = tuple[Event, float | None]
Session = list[Step]

TEXTS = ("", " ", "go", "go ", "go on", "Go on.", "go on now", "goo", "stop", "5", "-5")
PIECES = ("go", " on", " go", "ing", ".", " ", "5")  # what a text grows by: words, tails of words, punctuation
TURN_IDS = (None, "1", "2", "3")
REQUEST_IDS = (None, None, None, "a", "b", "c")
ALWAYS, NEVER = st.just(True), st.just(False)


# -- policies


def always(*given: object) -> bool:
    return True


def never(*given: object) -> bool:
    return False


def raises(*given: object) -> bool:
    raise RuntimeError("this function always raises")


def policies(*, sound: bool = False) -> SearchStrategy[Policy]:
    """Policies that differ in everything that a policy may say, among them functions that raise.

    sound: none that raises, and no `stall_timeout` within the server's `end_timeout_ms`: the policies under which
    lawful traffic gives no Report (law J)."""
    wild: tuple[Any, ...] = () if sound else (raises,)
    return st.builds(
        Policy,
        speculate=st.sampled_from((True, True, True, False, min_words(2), always, never, *wild)),
        think_after=st.sampled_from((0.0, 0.0, 0.0, 0.125, 0.25, 1.0)),
        after_resume=st.sampled_from(AfterResume),
        match=st.sampled_from((same_words, same_text, always, never, *wild)),
        max_thoughts=st.sampled_from((3, None, 0, 1, 2)),
        interrupts=st.sampled_from((None, min_words(2), min_words(1, or_any=("stop",)), always, never, *wild)),
        stall_timeout=st.sampled_from((None, 6.0, 8.0) if sound else (None, 0.25, 1.0, 6.0)),
        after_stall=st.sampled_from(AfterStall),
        after_disconnect=st.sampled_from(AfterDisconnect),
    )


# -- events and sessions


@cache
def events() -> SearchStrategy[Event]:
    """Any event, the server's or the application's, lawful anywhere or not."""
    ids: dict[str, SearchStrategy[Any]] = {
        "request_id": st.sampled_from(REQUEST_IDS),
        "turn_id": st.sampled_from(TURN_IDS),
    }
    text = st.sampled_from(TEXTS)
    spoken = st.one_of(*(st.builds(kind, transcript=text, **ids) for kind in (TurnUpdate, TurnEagerEnd, TurnEnd)))
    unspoken = st.builds(TurnStart, **ids) | st.builds(TurnResume, **ids)
    rest = st.one_of(
        st.builds(Connected, request_id=ids["request_id"]),
        st.builds(Disconnected),
        st.builds(EndNow),
        st.builds(Tick),
        st.builds(ServerError, status_code=st.sampled_from((None, 400, 500)), request_id=ids["request_id"]),
        st.builds(Unknown, kind=st.sampled_from(("turn.sigh", "turn.laugh")), fields=st.just({})),
        _of_the_application(policies(), st.integers(0, 4)),
    )
    return st.one_of(spoken, spoken, unspoken, rest, rest)


def _of_the_application(use: SearchStrategy[Policy], number: SearchStrategy[int]) -> SearchStrategy[Event]:
    """What an application may say at any time, without a turn ending by it, of turns with such numbers."""
    return st.one_of(
        st.builds(ContextChanged),
        st.builds(ThoughtFailed, number=number, thought=st.sampled_from((1, 1, 2, 3))),
        st.builds(ThoughtFailed, number=number, thought=st.just(1)),
        st.builds(ReplyStarted, number=number),
        st.builds(ReplyStarted, number=number),
        st.builds(ReplyDone, number=st.none() | number),
        st.builds(StopReply),
        st.builds(UsePolicy, policy=use),
        st.builds(Tick),
    )


@st.composite
def hostile_sessions(draw: DrawFn, max_steps: int = 30) -> Session:
    """Any events in any order, or a lawful session with steps dropped, repeated, swapped, put in, given other text and
    gone on from later; times that grow, that jump back and forth, that come and go, or none."""
    said: list[Event]
    if draw(st.sampled_from((False, False, True))):
        said = draw(st.lists(events(), max_size=max_steps))
    else:
        said = [event for event, _ in draw(lawful_sessions())][:max_steps]
        for _ in range(draw(st.integers(0, 6))):
            i = draw(st.integers(0, max(0, len(said) - 1)))
            what = draw(st.sampled_from(("drop", "repeat", "swap", "insert", "tick", "alter", "blank", "go on")))
            if what in ("insert", "tick") or not said:
                said.insert(i, Tick() if what == "tick" else draw(events()))
            elif what == "drop":
                del said[i]
            elif what == "repeat":
                said.insert(draw(st.integers(i, len(said))), said[i])
            elif what == "swap":
                said[i - 1 : i + 1] = reversed(said[i - 1 : i + 1])
            else:
                spoken = [(j, e) for j, e in enumerate(said) if isinstance(e, TurnUpdate | TurnEagerEnd | TurnEnd)]
                if not spoken:
                    continue
                j, event = draw(st.sampled_from(spoken[::-1]))
                if what == "go on":
                    longer = replace(event, transcript=f"{event.transcript} on")
                    said.insert(draw(st.integers(j + 1, len(said))), longer)
                else:
                    said[j] = replace(event, transcript=draw(st.sampled_from(TEXTS)) if what == "alter" else " ")
    time: SearchStrategy[float | None] = st.integers(-16, 160).map(lambda n: n / 16)
    match draw(st.sampled_from(("none", "growing", "wild"))):
        case "none":
            return [(event, None) for event in said]
        case "growing":
            gaps = st.sampled_from((0.0, 0.125, 0.25, 1.0, 6.0))
            steps = draw(st.lists(gaps, min_size=len(said), max_size=len(said)))
            return [(event, sum(steps[: i + 1])) for i, event in enumerate(said)]
        case _:
            return [(event, draw(st.none() | time)) for event in said]


@st.composite
def lawful_sessions(draw: DrawFn) -> Session:
    """What Ink 2 promises, and what it does not exclude.

    One to three connections, announced by Connected, by the Disconnected before it, or by a new request_id alone where
    every event has one; the open turn cut off by it or not. Ids present, absent, or now and then. Turns that begin with
    turn.start; text that only grows, also inside words; unchanged and empty updates; any number of rounds of eager_end
    and resume, updates between the two; an end with or without an eager_end, empty, or with the first text of all.
    Between them the application's inputs; EndNow in an open turn only where all turns have a turn_id or none has, since
    the rest of a closed turn is known by it. In an open turn less than 6 s go by in all."""
    clock = draw(st.none() | st.sampled_from((0.0, 1000.0)))
    has_turn_id, has_request_id = (draw(st.sampled_from((ALWAYS, NEVER, st.booleans()))) for _ in "ab")
    now_and_then = has_turn_id not in (ALWAYS, NEVER)
    hows = ["connected", "both", "disconnected", *(["silently"] if has_request_id is ALWAYS else [])]
    turns = 0
    session: Session = []

    def add(event: Event, gap: float = 0.125) -> None:
        nonlocal clock
        if clock is not None:
            clock += draw(st.sampled_from((0.0, gap / 2, gap)))
        session.append((event, clock))

    def say(kind: Callable[..., Event], turn: int, **text: str) -> None:
        turn_id = str(turn) if draw(has_turn_id) else None
        request_id = f"connection {connection}" if draw(has_request_id) else None
        add(kind(turn_id=turn_id, request_id=request_id, **text))
        if draw(st.booleans() if kind in (TurnEagerEnd, TurnEnd) else st.sampled_from((False, False, False, True))):
            add(draw(_meanwhile(turns, end_now=not now_and_then)))

    for connection in range(1, draw(st.integers(1, 3)) + 1):
        how = draw(st.sampled_from(hows))
        if how in ("disconnected", "both") and connection > 1:
            add(Disconnected())
        if how in ("connected", "both"):
            add(Connected(request_id=f"connection {connection}" if draw(has_request_id) else None), gap=8)
        its_turns = draw(st.integers(0, 3))
        for turn in range(1, its_turns + 1):
            turns += 1
            say(TurnStart, turn)
            cut = turn == its_turns and draw(st.booleans())
            _speak(draw, lambda kind, t=turn, **text: say(kind, t, **text), cut)
            if draw(st.sampled_from((False, False, False, True))):
                add(EndNow(), gap=8)
    return session


@cache  # a strategy costs more to make than to draw from
def _meanwhile(turns: int, *, end_now: bool) -> SearchStrategy[Event]:
    """What an application may say in a lawful session, when its turns so far are so many."""
    use = _of_the_application(policies(sound=True), st.sampled_from((turns, max(0, turns - 1), 0)))
    return use | use | use | st.just(EndNow()) if end_now else use


def _speak(draw: DrawFn, say: Callable[..., None], cut: bool) -> None:
    """What comes after a turn's start: up to eight events, and the end, where it is not cut off."""
    text, eager = "", False

    def grown() -> str:
        nonlocal text
        text += draw(st.sampled_from(("", "", *PIECES)))
        return text

    for _ in range(draw(st.integers(0, 8))):
        match draw(st.sampled_from(("update", "update", "repeat", "empty", "turn", "turn"))):
            case "update":
                text += draw(st.sampled_from(PIECES))
                say(TurnUpdate, transcript=text)
            case "repeat":
                say(TurnUpdate, transcript=text)
            case "empty":
                say(TurnUpdate, transcript="")
            case _ if eager:
                say(TurnResume)
                eager = False
            case _:
                say(TurnEagerEnd, transcript=grown())
                eager = True
    if not cut:
        say(TurnEnd, transcript=grown())


# -- frames


def frames() -> SearchStrategy[object]:
    """Whatever may come off a wire, or be handed over as if it had: well formed, nearly so, garbage."""
    return st.one_of(well_formed(), nearly_well_formed(), garbage())


def well_formed() -> SearchStrategy[object]:
    """The server's messages as `decode` takes them: JSON as str or bytes, a mapping, an object with attributes; now and
    then with fields that a later version may have added, or of a type that nobody knows yet."""
    return _messages().flatmap(_in_any_form)


def nearly_well_formed() -> SearchStrategy[object]:
    """Messages with one thing wrong: a field gone or of another type, a line cut off or with something after it, text
    that is no UTF-8."""
    return st.one_of(_marred().flatmap(_in_any_form), _messages().map(json.dumps).flatmap(_torn))


def garbage() -> SearchStrategy[object]:
    """No messages at all: text, bytes, JSON of any shape and depth, objects of any kind."""
    deep = st.builds(lambda opening, n: opening * n, st.sampled_from(("[", '{"type":')), st.integers(1, 10_000))
    values = _json_values()
    return st.one_of(
        st.text(st.characters(codec=None), max_size=50),
        st.binary(max_size=50),
        values,
        values.map(json.dumps),
        deep,
        deep.map(str.encode),
        st.sampled_from(ODDITIES),
    )


class Attributes:
    """An object whose attributes cannot be read."""

    def __getattr__(self, name: str) -> object:
        raise RuntimeError(f"{name} cannot be read")


class Items(Mapping[str, object]):
    """A mapping whose items cannot be read."""

    def __getitem__(self, name: str) -> object:
        raise RuntimeError(f"{name} cannot be read")

    def __iter__(self) -> Iterator[str]:
        return iter(("type",))

    __len__ = None  # type: ignore[assignment]


def _cycle() -> dict[str, object]:
    cycle: dict[str, object] = {"type": "turn.sigh"}
    cycle["fields"] = cycle
    return cycle


ODDITIES: tuple[object, ...] = (
    *(None, object(), type, always, 10**400, float("nan"), Attributes(), Items(), _cycle()),
    *(SimpleNamespace(), SimpleNamespace(type=None), SimpleNamespace(type="turn.end", transcript=object())),
    *({1: 2}, {"type": ["turn.end"]}, MappingProxyType({}), bytearray(b'{"type":"turn.start"}'), {"type"}),
)


def _messages() -> SearchStrategy[dict[str, object]]:
    texts = st.sampled_from(TEXTS) | st.text(max_size=20)
    ids: dict[str, Any] = {"request_id": st.sampled_from(("a", None)), "turn_id": st.sampled_from(("1", None, 1))}
    more: dict[str, Any] = {"words": _json_values(), "language": st.just("en")}

    def message(kind: str, optional: dict[str, Any] = ids, **fields: Any) -> SearchStrategy[dict[str, object]]:
        return st.fixed_dictionaries({"type": st.just(kind), **fields}, optional=optional | more)

    return st.one_of(
        message("connected", request_id=st.just("a"), optional={}),
        message("turn.start"),
        message("turn.update", transcript=texts),
        message("turn.eager_end", transcript=texts),
        message("turn.resume"),
        message("turn.end", transcript=texts),
        message("error", status_code=st.integers(400, 599), title=texts, message=texts, error_code=st.none() | texts),
        message("turn.sigh", transcript=texts),
    )


@st.composite
def _marred(draw: DrawFn) -> dict[str, object]:
    message = draw(_messages())
    field = draw(st.sampled_from((*message, "transcript", "turn_id", "request_id", "status_code")))
    if draw(st.booleans()):
        message.pop(field, None)
    else:
        message[field] = draw(_json_values() | st.text(st.characters(categories=["Cs"]), min_size=1, max_size=2))
    return message


def _torn(line: str) -> SearchStrategy[object]:
    return st.one_of(
        st.integers(0, len(line)).map(lambda i: line[:i]),
        st.sampled_from((line + line, line + "}", "\ufeff" + line, line.replace('"', "'"), f"[{line}]")),
        st.sampled_from((line.encode("utf-16"), line.encode() + b"\xff", b"\x80" + line.encode())),
    )


def _in_any_form(message: dict[str, object]) -> SearchStrategy[object]:
    forms: list[Callable[[], object]] = [
        lambda: json.dumps(message),
        lambda: json.dumps(message, ensure_ascii=False).encode("utf-8", "surrogatepass"),
        lambda: dict(message),
        lambda: MappingProxyType(message),
        lambda: SimpleNamespace(**message),
    ]
    return st.sampled_from(forms).map(lambda form: form())


def _json_values() -> SearchStrategy[object]:
    leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    names = st.text(max_size=5)
    return st.recursive(
        leaves, lambda some: st.lists(some, max_size=3) | st.dictionaries(names, some, max_size=3), max_leaves=6
    )
