"""The laws, of every session whatever: A to I on hostile ones, J besides on lawful ones, totality, snapshots."""

import json
from collections.abc import Iterator

import attrs
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy
from msgspec.structs import replace

from inkturns.actions import (
    Abandon,
    Action,
    Cancel,
    CancelReason,
    EndReason,
    Hear,
    Listen,
    Report,
    ReportKind,
    Respond,
    Think,
    Turn,
)
from inkturns.events import (
    EndNow,
    Event,
    Tick,
    TurnEagerEnd,
    TurnEnd,
    TurnResume,
    TurnStart,
    TurnUpdate,
    UsePolicy,
)
from inkturns.machine import TurnMachine
from inkturns.policy import AfterStall, Policy
from inkturns.table import Phase
from inkturns.testing.oracle import check
from inkturns.testing.strategies import Session, events, hostile_sessions, lawful_sessions, policies, raises


def run(machine: TurnMachine, session: Session) -> list[tuple[Event, tuple[Action, ...]]]:
    return [(event, machine.receive(event, now)) for event, now in session]


@given(hostile_sessions(), policies())
def test_any_session_keeps_the_laws_under_any_policy(session: Session, policy: Policy) -> None:
    check(run(TurnMachine(policy), session), policy=policy)


@given(lawful_sessions(), policies(sound=True))
def test_a_lawful_session_keeps_them_too_and_gives_no_report(session: Session, policy: Policy) -> None:
    check(run(TurnMachine(policy), session), lawful=True, policy=policy)


def ending_stalls() -> SearchStrategy[Policy]:
    """Policies that end a stalled turn, and so early that stalls happen in turns that go on."""
    return st.builds(
        lambda policy, timeout: attrs.evolve(policy, stall_timeout=timeout, after_stall=AfterStall.END),
        policies(sound=True),
        st.sampled_from((0.0625, 0.25, 1.0)),
    )


@st.composite
def closed_early(draw: DrawFn) -> Session:
    """Lawful sessions whose turns the application closes anywhere, by EndNow or by a stall's Tick, while the server
    goes on with them. All turns have a turn_id or none has, since the rest of a closed turn is known by it."""
    session, told, turns, now = Session(), draw(st.booleans()), 0, 0.0

    def add(event: Event) -> None:
        nonlocal now
        now += draw(st.sampled_from((0.0, 0.125, 0.125, 1.0)))
        session.append((event, now))

    for event, _ in draw(lawful_sessions()):
        turns += isinstance(event, TurnStart)
        if isinstance(event, TurnStart | TurnUpdate | TurnEagerEnd | TurnResume | TurnEnd):
            event = replace(event, turn_id=str(turns) if told else None)
        add(UsePolicy(draw(ending_stalls())) if isinstance(event, UsePolicy) else event)
        if draw(st.sampled_from((False, False, True))):
            add(draw(st.sampled_from((Tick(), Tick(), EndNow()))))
    return session


def test_a_turn_that_the_application_closes_early_gives_no_report(full: bool) -> None:
    """Law J, whatever closes a turn that the server goes on with (F47): what it still sends is an echo, or the rest of
    the words, which open a turn that continues the closed one."""

    @settings(max_examples=1000 if full else 40)
    @given(closed_early(), ending_stalls())
    def keeps_the_laws(session: Session, policy: Policy) -> None:
        check(run(TurnMachine(policy), session), lawful=True, policy=policy)

    keeps_the_laws()


@given(hostile_sessions(), policies())
def test_the_same_inputs_give_the_same_actions(session: Session, policy: Policy) -> None:
    assert run(TurnMachine(policy), session) == run(TurnMachine(policy), session)


@given(hostile_sessions(), st.lists(events(), min_size=1, max_size=3), policies())
def test_any_event_is_received_in_any_phase(session: Session, then: list[Event], policy: Policy) -> None:
    machine = TurnMachine(policy)
    run(machine, session)
    for event in then:
        for now in (None, float("nan"), float("inf"), -1):
            assert isinstance(machine.receive(event, now), tuple)


@given(hostile_sessions())
def test_a_match_that_raises_counts_as_false_and_is_reported(session: Session) -> None:
    policy = Policy(match=raises, interrupts=raises)
    trace = run(TurnMachine(policy), [(e, now) for e, now in session if not isinstance(e, UsePolicy)])
    check(trace)
    for _, actions in trace:
        cancelled = any(isinstance(a, Cancel) and a.reason is CancelReason.MISMATCHED for a in actions)
        assert not cancelled or any(isinstance(a, Report) and a.kind is ReportKind.POLICY_ERROR for a in actions)


@given(hostile_sessions(), policies())
def test_no_report_repeats_the_callers_words(session: Session, policy: Policy) -> None:
    secret = "shibboleth"
    rest = [(e, now) for e, now in session if not isinstance(e, TurnUpdate)]
    said = [TurnUpdate(transcript=secret), TurnUpdate(transcript=secret, turn_id="1")]
    trace = run(TurnMachine(policy), [(said[0], None), *rest, (said[1], None)])
    assert not [a for _, actions in trace for a in actions if isinstance(a, Report) and secret in a.detail]


# -- time


@given(hostile_sessions(), policies())
def test_a_time_that_is_smaller_counts_as_the_last_one_seen(session: Session, policy: Policy) -> None:
    clamped, last = Session(), None
    for event, now in session:
        last = last if now is None or (last is not None and now < last) else now
        clamped.append((event, last))
    assert run(TurnMachine(policy), clamped) == run(TurnMachine(policy), session)


@given(hostile_sessions(), policies())
def test_a_deadline_is_an_open_turns_and_of_its_policy(session: Session, policy: Policy) -> None:
    machine = TurnMachine(policy)
    for event, now in session:
        machine.receive(event, now)
        if machine.deadline is not None:
            assert machine.turn is not None
            policy = machine.policy
            delays = [policy.think_after] if machine.phase is Phase.EAGER_ENDED and policy.think_after else []
            delays += [] if policy.stall_timeout is None else [policy.stall_timeout]
            assert delays
            if machine.turn.started_at is not None:  # None, where a time came later
                assert machine.deadline >= machine.turn.started_at + min(delays)


# -- snapshots


@given(hostile_sessions(), policies(), st.data())
def test_a_machine_restored_on_another_clock_goes_on_as_the_first(
    session: Session, policy: Policy, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(session)))
    shift = data.draw(st.sampled_from((0.0, -64.0, 4096.0)))
    seen = [now for _, now in session[:at] if now is not None]
    taken = max(seen) + data.draw(st.sampled_from((0.0, 0.5))) if seen else None
    machine = TurnMachine(policy)
    run(machine, session[:at])
    kept = json.loads(json.dumps(machine.snapshot(taken), allow_nan=False))
    again = TurnMachine.restore(kept, machine.policy, None if taken is None else taken + shift)
    assert again.snapshot(None if taken is None else taken + shift) == machine.snapshot(taken)
    rest = session[at:]
    if taken is None:
        assert run(again, rest) == run(machine, rest)
        return
    shifted = [(event, None if now is None else now + shift) for event, now in rest]
    for (event, now), (_, later) in zip(rest, shifted, strict=True):
        assert [_moved(a, -shift) for a in again.receive(event, later)] == list(machine.receive(event, now))
        assert again.deadline == (None if machine.deadline is None else machine.deadline + shift)


def _moved(action: Action, by: float) -> Action:
    turn = getattr(action, "turn", None)
    if turn is None:
        return action
    times = {name: t + by for name in ("started_at", "ended_at") if (t := getattr(turn, name)) is not None}
    return replace(action, turn=replace(turn, **times))


@given(hostile_sessions(), policies())
def test_a_snapshot_is_plain_json(session: Session, policy: Policy) -> None:
    machine = TurnMachine(policy)
    run(machine, session)
    snapshot = machine.snapshot()
    assert json.loads(json.dumps(snapshot, allow_nan=False)) == snapshot


@given(hostile_sessions(), policies())
def test_a_snapshot_taken_without_a_time_is_of_the_last_time_seen(session: Session, policy: Policy) -> None:
    machine = TurnMachine(policy)
    run(machine, session)
    times = [now for _, now in session if now is not None]
    assert machine.snapshot() == machine.snapshot(max(times) if times else None)


# -- and the sessions are not idle


def _names(actions: tuple[Action, ...]) -> Iterator[str]:
    begun = [a for a in actions if isinstance(a, Think)]
    for action in actions:
        name = type(action).__name__
        yield name
        match action:
            case Think(speculative=True):
                yield "Think ahead"
            case Cancel(reason=reason):
                yield f"Cancel {reason.name}"
            case Respond(turn=Turn(end=EndReason() as end)):
                yield f"Respond {end.name}"
                if not begun:
                    yield "Respond ahead"
            case Abandon(turn=Turn(end=EndReason() as end)):
                yield f"Abandon {end.name}"
            case Report(kind=kind):
                yield f"Report {kind.name}"
            case Hear(delta=None):
                yield "Hear revised"
            case Listen(turn=Turn(continues=int())):
                yield "Listen goes on"
            case _:
                pass


def met(
    sessions: SearchStrategy[Session], policies: SearchStrategy[Policy], expected: set[str], *, full: bool
) -> set[str]:
    """What is met in these sessions, until all of it was, or without `full` nine in ten: the rest is rare."""
    found = set[str]()
    enough = len(expected) * (1.0 if full else 0.9)
    for n in range(160):

        @seed(n)
        @settings(max_examples=25)
        @given(sessions, policies)
        def meet(session: Session, policy: Policy) -> None:
            for event, actions in run(TurnMachine(policy), session):
                found.add(type(event).__name__)
                found.update(_names(actions))

        meet()
        if len(found & expected) >= enough:
            break
    assert len(found & expected) >= enough, expected - found
    return found


def test_lawful_sessions_go_everywhere(full: bool) -> None:
    """What the promises leave open happens, in the sessions drawn above: rounds of eager_end and resume, barge-ins,
    backchannels, lost turns, thoughts adopted and cancelled for each reason that lawful traffic has."""
    expected = {
        *("Listen", "Hear", "Think", "Think ahead", "Resume", "Respond", "Interrupt"),
        *("Respond SERVER", "Respond LOST", "Respond FORCED", "Respond ahead"),
        *("Abandon EMPTY", "Abandon LOST", "Abandon BACKCHANNEL"),
        *("Cancel RESUMED", "Cancel MOVED", "Cancel MISMATCHED", "Cancel LOST", "Cancel CONTEXT_CHANGED"),
        *("Cancel FAILED", "Connected", "Disconnected", "EndNow", "Tick", "UsePolicy", "ReplyStarted", "ReplyDone"),
    }
    found = met(lawful_sessions(), policies(sound=True), expected, full=full)
    assert not any(name.startswith("Report") for name in found)


def test_turns_are_closed_early_in_every_way(full: bool) -> None:
    expected = {"Stall", "Respond FORCED", "Respond STALLED", "Abandon EMPTY", "Listen goes on", "Think ahead"}
    found = met(closed_early(), ending_stalls(), expected, full=full)
    assert not any(name.startswith("Report") for name in found)


def test_hostile_sessions_meet_every_report_and_every_way_to_end(full: bool) -> None:
    adapters_and_agents = {ReportKind.BAD_FRAME, ReportKind.STUCK_TASK}
    ends = {
        *("Respond SERVER", "Respond FORCED", "Respond STALLED", "Respond LOST"),
        *("Abandon EMPTY", "Abandon SUPERSEDED", "Abandon LOST", "Abandon BACKCHANNEL"),
    }
    reports = {f"Report {kind.name}" for kind in set(ReportKind) - adapters_and_agents}
    cancels = {f"Cancel {reason.name}" for reason in set(CancelReason) - {CancelReason.BACKCHANNEL}}  # it is rare
    expected = ends | reports | cancels | {"Respond ahead", "Stall", "Hear revised", "Listen goes on"}
    found = met(hostile_sessions(), policies(), expected, full=full)
    assert {name for name in found if name.startswith(("Respond ", "Abandon "))} <= ends | {"Respond ahead"}
