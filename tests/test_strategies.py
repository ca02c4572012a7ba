"""The strategies keep their word: what is lawful is lawful, and nothing is left out."""

import json
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from itertools import pairwise
from types import MappingProxyType, SimpleNamespace

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis.errors import NoSuchExample

from inkturns.events import (
    FROM_APPLICATION,
    FROM_SERVER,
    Connected,
    Disconnected,
    Event,
    ServerEvent,
    TurnEagerEnd,
    TurnEnd,
    TurnResume,
    TurnStart,
    TurnUpdate,
)
from inkturns.policy import Policy
from inkturns.settings import TurnSettings
from inkturns.testing.strategies import (
    ODDITIES,
    Session,
    events,
    frames,
    hostile_sessions,
    lawful_sessions,
    policies,
    raises,
    well_formed,
)
from inkturns.turns import Turns

TEXT = (TurnUpdate, TurnEagerEnd, TurnEnd)


def turns(session: Session) -> list[list[ServerEvent]]:
    """The events of each turn, as the server means them: from a start, up to an end or to the next start."""
    found: list[list[ServerEvent]] = []
    for event, _ in session:
        if isinstance(event, TurnStart):
            found.append([])
        if isinstance(event, (TurnStart, TurnResume, *TEXT)):
            found[-1].append(event)
    return found


@given(lawful_sessions())
def test_a_lawful_turn_is_as_promised(session: Session) -> None:
    for turn in turns(session):
        rest = turn[1:]
        assert [e for e in rest if isinstance(e, TurnStart)] == []
        assert [e for e in turn[:-1] if isinstance(e, TurnEnd)] == []
        texts = [e.transcript for e in rest if isinstance(e, TEXT) and e.transcript]
        assert all(later.startswith(earlier) for earlier, later in pairwise(texts))
        gates = [type(e) for e in rest if isinstance(e, TurnEagerEnd | TurnResume | TurnEnd)]
        for gate, following in pairwise(gates):
            assert following in ((TurnResume, TurnEnd) if gate is TurnEagerEnd else (TurnEagerEnd, TurnEnd))
        assert gates[:1] != [TurnResume]
        assert len({e.turn_id for e in turn} - {None}) <= 1


@given(lawful_sessions())
def test_a_lawful_turn_is_within_one_connection(session: Session) -> None:
    for turn in turns(session):
        assert len({e.request_id for e in turn} - {None}) <= 1


@given(lawful_sessions())
def test_lawful_time_goes_on_and_never_by_6_seconds_in_a_turn(session: Session) -> None:
    times = [now for _, now in session if now is not None]
    assert len(times) in (0, len(session))
    assert times == sorted(times)
    began: float | None = None
    for event, now in session:
        if isinstance(event, TurnStart):
            began = now
        if isinstance(event, (TurnResume, *TEXT)) and now is not None:
            assert began is not None
            assert now - began < 6


@given(policies(sound=True))
def test_sound_policies_pass_their_own_check(policy: Policy) -> None:
    policy.check(TurnSettings())
    assert raises not in (policy.match, policy.interrupts)


def test_lawful_sessions_hold_what_is_not_promised_but_seen(full: bool) -> None:
    met = Counter[str]()

    @settings(max_examples=300 if full else 150)
    @given(lawful_sessions())
    def meet(session: Session) -> None:
        said = [e for e, _ in session if isinstance(e, ServerEvent | Disconnected)]
        for a, b in pairwise(said):
            met["reconnected"] += isinstance(a, Disconnected) or isinstance(b, Connected)
            if isinstance(a, ServerEvent) and isinstance(b, TurnStart):
                met["reconnected, unannounced"] += None not in (ids := {a.request_id, b.request_id}) and len(ids) > 1
        for turn in turns(session):
            kinds = [type(e) for e in turn]
            texts = [e.transcript for e in turn if isinstance(e, TEXT)]
            met["several rounds"] += kinds.count(TurnResume) > 1
            met["an end without an eager_end"] += kinds[-1] is TurnEnd and TurnEagerEnd not in kinds
            met["the first text in the end"] += kinds[-1] is TurnEnd and bool(texts[-1]) and not any(texts[:-1])
            met["an empty end"] += kinds[-1] is TurnEnd and not texts[-1].strip()
            met["no end"] += kinds[-1] is not TurnEnd
            met["a repeat"] += any(a == b for a, b in pairwise(texts) if a)
            met["an empty update"] += any(isinstance(e, TurnUpdate) and not e.transcript for e in turn)
            met["growth inside a word"] += any(
                b.startswith(a) and a[-1:].isalpha() and b[len(a) :][:1].isalpha() for a, b in pairwise(texts)
            )
            met["an update before its eager_end's resume"] += any(
                a is TurnEagerEnd and b is TurnUpdate for a, b in pairwise(kinds)
            )
            met["turn_ids"] += turn[0].turn_id is not None
            met["no turn_ids"] += {e.turn_id for e in turn} == {None}

    meet()
    assert {name for name, count in met.items() if not count} == set()


def test_hostile_sessions_hold_every_event(full: bool) -> None:
    """In a quick run the search stops once everything was met; events that are rare may take a few hundred sessions."""
    everything = {*FROM_SERVER, *FROM_APPLICATION}
    met = set[type[Event]]()
    backwards: list[bool] = []

    def all_met(session: Session) -> bool:
        met.update(type(event) for event, _ in session)
        times = [now for _, now in session if now is not None]
        backwards.append(times != sorted(times))
        return not full and met == everything and any(backwards)

    with suppress(NoSuchExample):
        find(hostile_sessions(), all_met, settings=settings(max_examples=600, phases=[Phase.generate]))
    assert met == everything
    assert any(backwards)


@given(events())
def test_any_event_is_an_event(event: Event) -> None:
    assert type(event) in FROM_SERVER + FROM_APPLICATION


@given(well_formed())
def test_well_formed_frames_have_a_type(frame: object) -> None:
    message = json.loads(frame) if isinstance(frame, str | bytes) else frame
    assert isinstance(message["type"] if isinstance(message, Mapping) else getattr(message, "type", None), str)


@pytest.mark.parametrize("kind", [str, bytes, dict, MappingProxyType, SimpleNamespace, list, int, type(None)])
def test_frames_come_in_every_form(kind: type) -> None:
    found = find(
        frames(), lambda frame: type(frame) is kind, settings=settings(max_examples=5000, phases=[Phase.generate])
    )
    assert type(found) is kind


def test_every_oddity_comes_to_something() -> None:
    """Drawing them finds each one seldom."""
    for oddity in ODDITIES:
        assert Turns().feed(oddity)
