"""The table, cell by cell: given these events, this event gives exactly these actions and this
phase. And what else a TurnMachine promises: refusals, times, the deadline, snapshots.

Actions are written as `told` says them: "hear 'go on' +' on', think 1.2 'go on'" is a Hear, and thought 2 of turn 1."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest

from inkturns.actions import (
    Abandon,
    Action,
    Cancel,
    Hear,
    Interrupt,
    Listen,
    Report,
    Respond,
    Resume,
    Stall,
    Think,
    Turn,
)
from inkturns.events import (
    KINDS,
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
    TurnStart,
    Unknown,
    UsePolicy,
)
from inkturns.machine import TurnMachine
from inkturns.policy import AfterDisconnect, AfterResume, AfterStall, Policy, min_words, same_text
from inkturns.table import Phase
from tests.turn_events import eager, end, resume, start, update

IDLE, SPEAKING, EAGER = Phase

Given = Sequence[Event | tuple[Event, float]]


def never(*given: object) -> bool:
    return False


def raises(*given: object) -> bool:
    raise RuntimeError("go")


def told(actions: Sequence[Action]) -> str:
    return ", ".join(map(_told, actions))


def _told(action: Action) -> str:
    match action:
        case Listen(turn):
            return f"listen {turn.number}{_links(turn)}"
        case Hear(turn, delta):
            return f"hear {turn.transcript!r} {'revised' if delta is None else f'+{delta!r}'}"
        case Think(turn, thought, speculative):
            return f"think{'' if speculative else '!'} {turn.number}.{thought} {turn.transcript!r}"
        case Resume(turn):
            return f"resume {turn.number}"
        case Cancel(turn, thought, reason):
            return f"cancel {turn.number}.{thought} {reason.name}"
        case Respond(turn, thought):
            return f"respond {turn.number}.{thought} {turn.end and turn.end.name} {turn.transcript!r}{_links(turn)}"
        case Abandon(turn):
            return f"abandon {turn.number} {turn.end and turn.end.name} {turn.transcript!r}{_links(turn)}"
        case Interrupt(number):
            return f"interrupt {number}"
        case Stall(turn):
            return f"stall {turn.number}"
        case Report(kind):
            return f"report {kind.name}"
    raise AssertionError(action)


def _links(turn: Turn) -> str:
    goes_on = "" if turn.continues is None else f" (continues {turn.continues})"
    return goes_on + ("" if turn.interrupted is None else f" (interrupted {turn.interrupted})")


def after(given: Given, policy: Policy = Policy()) -> TurnMachine:  # noqa: B008 (a frozen value)
    machine = TurnMachine(policy)
    for item in given:
        machine.receive(*item) if isinstance(item, tuple) else machine.receive(item)
    return machine


# -- what was before, of a turn without ids

OPEN = [start()]
SPOKE = [start(), update("go")]
EAGERED = [start(), eager("go")]  # thought 1.1 is live
KEPT = [start(), eager("go"), resume()]  # under KEEP: in SPEAKING, and still live
ANSWERED = [start(), end("go")]  # its reply is in flight
HEARD = [*ANSWERED, ReplyDone()]  # and then no more
AUDIBLE = [*ANSWERED, ReplyStarted(1)]
# -- and of a turn with
OPEN_1 = [start("1")]
SPOKE_1 = [start("1"), update("go", "1")]
EAGERED_1 = [start("1"), eager("go", "1")]
HEARD_1 = [start("1"), end("go", "1"), ReplyDone()]
THEN_2 = [*HEARD_1, start("2"), update("hey", "2")]
THEN_2_EAGER = [*THEN_2, eager("hey", "2")]

KEEP = Policy(after_resume=AfterResume.KEEP)
KEEP_NEVER = Policy(after_resume=AfterResume.KEEP, match=never)
RESPOND = Policy(after_disconnect=AfterDisconnect.RESPOND)
TWO_WORDS = Policy(interrupts=min_words(2, or_any=("stop",)))
RAISES = Policy(match=raises)
STALLS = Policy(stall_timeout=6.0)
STALLS_END = Policy(stall_timeout=6.0, after_stall=AfterStall.END)


class Case(NamedTuple):
    says: str
    given: Given
    event: Event | tuple[Event, float]
    gives: str
    phase: Phase
    policy: Policy = Policy()

    def check(self) -> None:
        machine = after(self.given, self.policy)
        event = self.event if isinstance(self.event, tuple) else (self.event,)
        assert (told(machine.receive(*event)), machine.phase) == (self.gives, self.phase)
        assert (machine.turn is None) == (self.phase is IDLE)


C = Case
# fmt: off
STARTS = [
    C("start, idle: opens", [], start(), "listen 1", SPEAKING),
    C("start, idle: of a closed turn's id, opens", HEARD_1, start("1"), "listen 2", SPEAKING),
    C("start, speaking: neither has an id, no text yet: the same", OPEN, start(), "report DUPLICATE_START", SPEAKING),
    C("start, speaking: the same id, with text", SPOKE_1, start("1"), "report DUPLICATE_START", SPEAKING),
    C("start, speaking: no ids, with text: another", SPOKE, start(),
      "abandon 1 SUPERSEDED 'go', report MISSED_END, listen 2", SPEAKING),
    C("start, speaking: another id", OPEN_1, start("2"),
      "abandon 1 SUPERSEDED '', report MISSED_END, listen 2", SPEAKING),
    C("start, speaking: an id, and the open turn has none", OPEN, start("1"),
      "abandon 1 SUPERSEDED '', report MISSED_END, listen 2", SPEAKING),
    C("start, speaking: no id, and the open turn has one", OPEN_1, start(),
      "abandon 1 SUPERSEDED '', report MISSED_END, listen 2", SPEAKING),
    C("start, speaking: a kept thought is settled", KEPT, start(),
      "cancel 1.1 SUPERSEDED, abandon 1 SUPERSEDED 'go', report MISSED_END, listen 2", SPEAKING, KEEP),
    C("start, eager: the same", EAGERED_1, start("1"), "report DUPLICATE_START", EAGER),
    C("start, eager: the same, by no ids and no text", [start(), eager("")], start(), "report DUPLICATE_START", EAGER),
    C("start, eager: another", EAGERED_1, start("2"),
      "cancel 1.1 SUPERSEDED, abandon 1 SUPERSEDED 'go', report MISSED_END, listen 2", SPEAKING),
]

# late, by the closed turn's text and the event's: equal, a prefix, no extension (by turn_id), blank (by turn_id)
NO_START = "report MISSED_START, listen 2, hear 'stop' +'stop'"
UPDATES = [
    C("update, idle: late, equal", HEARD, update("go"), "report LATE", IDLE),
    C("update, idle: late, a prefix", HEARD, update("g"), "report LATE", IDLE),
    C("update, idle: by turn_id, equal", HEARD_1, update("go", "1"), "report LATE", IDLE),
    C("update, idle: by turn_id, a prefix", HEARD_1, update("g", "1"), "report LATE", IDLE),
    C("update, idle: by turn_id, no extension", HEARD_1, update("stop", "1"), "report LATE", IDLE),
    C("update, idle: by turn_id, blank", HEARD_1, update(" ", "1"), "report LATE", IDLE),
    C("update, idle: without ids, no extension: a turn", HEARD, update("stop"), NO_START, SPEAKING),
    C("update, idle: another id: a turn", HEARD_1, update("stop", "2"), NO_START, SPEAKING),
    C("update, idle: no id, the closed has one: a turn", HEARD_1, update("stop"), NO_START, SPEAKING),
    C("update, idle: an id, the closed has none: a turn", HEARD, update("stop", "1"), NO_START, SPEAKING),
    C("update, idle: blank", [], update(" "), "", IDLE),
    C("update, idle: blank, and no id of a closed turn", HEARD, update(""), "", IDLE),
    C("update, idle: first of all", [], update("hi"), "report MISSED_START, listen 1, hear 'hi' +'hi'", SPEAKING),
    C("update, idle: goes on from a turn the server ended", HEARD, update("go on"),
      "report MISSED_START, listen 2 (continues 1), hear 'go on' +'go on'", SPEAKING),
    C("update, idle: by turn_id, goes on from a turn the server ended", HEARD_1, update("go on", "1"),
      "report MISSED_START, listen 2 (continues 1), hear 'go on' +'go on'", SPEAKING),
    C("update, idle: goes on from a turn that was forced", [*SPOKE, EndNow(), ReplyDone()], update("go on"),
      "listen 2 (continues 1), hear 'go on' +'go on'", SPEAKING),
    C("update, idle: by turn_id, goes on from an earlier turn", [*SPOKE_1, EndNow(), start("2"), EndNow()],
      update("go on", "1"), "report MISSED_START, listen 3 (continues 1), hear 'go on' +'go on'", SPEAKING),
    C("update, idle: goes on from a turn that the next one superseded",
      [*SPOKE_1, start("2"), update("hey", "2"), end("hey", "2"), ReplyDone()],
      update("go on", "1"), "report MISSED_START, listen 3 (continues 1), hear 'go on' +'go on'", SPEAKING),
    C("update, idle: goes on from a backchannel", [*AUDIBLE, start(), end("mhm"), ReplyDone()], update("mhm yes"),
      "report MISSED_START, listen 3 (continues 2), hear 'mhm yes' +'mhm yes'", SPEAKING, TWO_WORDS),
    C("update, idle: a turn that the server ended empty is remembered", [start("1"), end("", "1")],
      update("hi", "1"), "report MISSED_START, listen 2 (continues 1), hear 'hi' +'hi'", SPEAKING),
    C("update, idle: goes on from a turn that was forced empty", [start("1"), EndNow()], update("hi", "1"),
      "listen 2 (continues 1), hear 'hi' +'hi'", SPEAKING),
    C("update, idle: blank text of a turn that was forced empty", [start("1"), EndNow()], update("", "1"), "", IDLE),
    C("update, idle: after a disconnect all is forgotten", [*HEARD_1, Disconnected()], update("go", "1"),
      "report MISSED_START, listen 2, hear 'go' +'go'", SPEAKING),
    C("update, speaking: text", OPEN, update("go"), "hear 'go' +'go'", SPEAKING),
    C("update, speaking: more text", SPOKE, update("go on "), "hear 'go on ' +' on '", SPEAKING),
    C("update, speaking: revised", SPOKE, update("goo on"), "hear 'goo on' +'o on'", SPEAKING),
    C("update, speaking: revised within", SPOKE, update("no"), "hear 'no' revised", SPEAKING),
    C("update, speaking: taken back in part", SPOKE, update("g"), "hear 'g' revised", SPEAKING),
    C("update, speaking: unchanged", SPOKE, update("go"), "", SPEAKING),
    C("update, speaking: blank, no text yet", OPEN, update(" "), "", SPEAKING),
    C("update, speaking: blank, with text", SPOKE, update(""), "", SPEAKING),
    C("update, speaking: white space added is text", SPOKE, update("go  "), "hear 'go  ' +'  '", SPEAKING),
    C("update, speaking: no thought, match is not asked", SPOKE, update("go on"),
      "hear 'go on' +' on'", SPEAKING, RAISES),
    C("update, speaking: a closed turn's, the open one has no id", [*HEARD_1, start()], update("go on", "1"),
      "report LATE", SPEAKING),
    C("update, speaking: a closed turn's", THEN_2, update("go on", "1"), "report LATE", SPEAKING),
    C("update, speaking: of the open turn's id, which a closed one had too",
      [*HEARD_1, start("1")], update("go", "1"), "hear 'go' +'go'", SPEAKING),
    C("update, speaking: another turn's", SPOKE_1, update("hey", "2"),
      "abandon 1 SUPERSEDED 'go', report MISSED_END, report MISSED_START, listen 2, hear 'hey' +'hey'",
      SPEAKING),
    C("update, speaking: another turn's, blank", SPOKE_1, update("", "2"),
      "abandon 1 SUPERSEDED 'go', report MISSED_END", IDLE),
    C("update, speaking: no id is the open turn's", SPOKE_1, update("go on"), "hear 'go on' +' on'", SPEAKING),
    C("update, speaking: an id, the open turn has none", OPEN, update("go", "1"), "hear 'go' +'go'", SPEAKING),
    C("update, speaking: a kept thought, unchanged", KEPT, update("go"), "", SPEAKING, KEEP),
    C("update, speaking: a kept thought, matched", KEPT, update("Go."), "hear 'Go.' revised", SPEAKING, KEEP),
    C("update, speaking: a kept thought, blank", KEPT, update(" "), "", SPEAKING, KEEP),
    C("update, speaking: a kept thought, unchanged, whatever match says", KEPT, update("go"), "", SPEAKING, KEEP_NEVER),
    C("update, speaking: a kept thought, blank, whatever match says", KEPT, update(""), "", SPEAKING, KEEP_NEVER),
    C("update, speaking: a kept thought, not matched", KEPT, update("go on"),
      "cancel 1.1 MOVED, hear 'go on' +' on'", SPEAKING, KEEP),
    C("update, eager: identical", EAGERED, update("go"), "", EAGER),
    C("update, eager: identical, whatever match says", EAGERED, update("go"), "", EAGER, Policy(match=never)),
    C("update, eager: blank", EAGERED, update(" "), "", EAGER),
    C("update, eager: matches", EAGERED, update("Go."), "hear 'Go.' revised", EAGER),
    C("update, eager: else", EAGERED, update("go on"), "cancel 1.1 MOVED, hear 'go on' +' on'", EAGER),
    C("update, eager: else, with no thought", [*EAGERED, ThoughtFailed(1, 1)], update("go on"),
      "hear 'go on' +' on'", EAGER),
    C("update, eager: identical, match is not asked", EAGERED, update("go"), "", EAGER, RAISES),
    C("update, eager: no thought, match is not asked", [*EAGERED, ThoughtFailed(1, 1)], update("go on"),
      "hear 'go on' +' on'", EAGER, RAISES),
    C("update, eager: a closed turn's", THEN_2_EAGER, update("go on", "1"), "report LATE", EAGER),
    C("update, eager: another turn's", EAGERED_1, update("hey", "2"),
      "cancel 1.1 SUPERSEDED, abandon 1 SUPERSEDED 'go', report MISSED_END, "
      "report MISSED_START, listen 2, hear 'hey' +'hey'",
      SPEAKING),
]

EAGER_ENDS = [
    C("eager_end, idle: late", HEARD, eager("go"), "report LATE", IDLE),
    C("eager_end, idle: late, by turn_id", HEARD_1, eager("", "1"), "report LATE", IDLE),
    C("eager_end, idle: blank", [], eager(" "), "report MISSED_START", IDLE),
    C("eager_end, idle: blank, no id", HEARD, eager(""), "report MISSED_START", IDLE),
    C("eager_end, idle: else", [], eager("hi"),
      "report MISSED_START, listen 1, hear 'hi' +'hi', think 1.1 'hi'", EAGER),
    C("eager_end, idle: goes on", [*SPOKE, EndNow(), ReplyDone()], eager("go on"),
      "listen 2 (continues 1), hear 'go on' +'go on', think 2.1 'go on'", EAGER),
    C("eager_end, speaking", OPEN, eager("go"), "hear 'go' +'go', think 1.1 'go'", EAGER),
    C("eager_end, speaking: text heard before", SPOKE, eager("go"), "think 1.1 'go'", EAGER),
    C("eager_end, speaking: blank, no text", OPEN, eager(" "), "", EAGER),
    C("eager_end, speaking: blank, the turn's text", SPOKE, eager(" "), "think 1.1 'go'", EAGER),
    C("eager_end, speaking: a kept thought, identical", KEPT, eager("go"), "", EAGER, KEEP),
    C("eager_end, speaking: a kept thought, matched", KEPT, eager("Go."), "hear 'Go.' revised", EAGER, KEEP),
    C("eager_end, speaking: a kept thought, not matched", KEPT, eager("go on"),
      "cancel 1.1 MOVED, hear 'go on' +' on', think 1.2 'go on'", EAGER, KEEP),
    C("eager_end, speaking: a cancelled thought, identical text", KEPT, eager("go"),
      "think 1.2 'go'", EAGER),
    C("eager_end, speaking: a closed turn's", THEN_2, eager("go on", "1"), "report LATE", SPEAKING),
    C("eager_end, speaking: a closed turn's, the open one has no id", [*HEARD_1, start()], eager("go on", "1"),
      "report LATE", SPEAKING),
    C("eager_end, speaking: another turn's", SPOKE_1, eager("hey", "2"),
      "abandon 1 SUPERSEDED 'go', report MISSED_END, "
      "report MISSED_START, listen 2, hear 'hey' +'hey', think 2.1 'hey'",
      EAGER),
    C("eager_end, speaking: speculate is off", OPEN, eager("go"), "hear 'go' +'go'", EAGER, Policy(speculate=False)),
    C("eager_end, speaking: too few words", OPEN, eager("go"), "hear 'go' +'go'", EAGER,
      Policy(speculate=min_words(2))),
    C("eager_end, speaking: words enough", OPEN, eager("go on"),
      "hear 'go on' +'go on', think 1.1 'go on'", EAGER, Policy(speculate=min_words(2))),
    C("eager_end, speaking: no thoughts", OPEN, eager("go"), "hear 'go' +'go'", EAGER, Policy(max_thoughts=0)),
    C("eager_end, eager: identical", EAGERED, eager("go"), "", EAGER),
    C("eager_end, eager: identical, whatever match says", EAGERED, eager("go"), "", EAGER, Policy(match=never)),
    C("eager_end, eager: blank", EAGERED, eager(""), "", EAGER),
    C("eager_end, eager: identical, no thought", [*EAGERED, ThoughtFailed(1, 1)], eager("go"), "think 1.2 'go'", EAGER),
    C("eager_end, eager: moved before", [*EAGERED, update("go on")], eager("go on"), "think 1.2 'go on'", EAGER),
    C("eager_end, eager: matches", EAGERED, eager("Go."), "hear 'Go.' revised", EAGER),
    C("eager_end, eager: else", EAGERED, eager("go on"),
      "cancel 1.1 SUPERSEDED, hear 'go on' +' on', think 1.2 'go on'", EAGER),
    C("eager_end, eager: exact", EAGERED, eager("Go."),
      "cancel 1.1 SUPERSEDED, hear 'Go.' revised, think 1.2 'Go.'", EAGER, Policy(match=same_text)),
    C("eager_end, eager: three thoughts, no fourth", [*EAGERED, eager("a"), eager("b")], eager("c"),
      "cancel 1.3 SUPERSEDED, hear 'c' revised", EAGER),
    C("eager_end, eager: no limit", [*EAGERED, eager("a"), eager("b")], eager("c"),
      "cancel 1.3 SUPERSEDED, hear 'c' revised, think 1.4 'c'", EAGER, Policy(max_thoughts=None)),
    C("eager_end, eager: identical, match is not asked", EAGERED, eager("go"), "", EAGER, RAISES),
    C("eager_end, eager: no thought, match is not asked", [*EAGERED, ThoughtFailed(1, 1)], eager("go on"),
      "hear 'go on' +' on', think 1.2 'go on'", EAGER, RAISES),
    C("eager_end, eager: a closed turn's", THEN_2_EAGER, eager("go", "1"), "report LATE", EAGER),
    C("eager_end, eager: another turn's", EAGERED_1, eager("hey", "2"),
      "cancel 1.1 SUPERSEDED, abandon 1 SUPERSEDED 'go', report MISSED_END, "
      "report MISSED_START, listen 2, hear 'hey' +'hey', think 2.1 'hey'",
      EAGER),
]

RESUMES = [
    C("resume, idle", [], resume(), "report STRAY_RESUME", IDLE),
    C("resume, idle: a closed turn's", HEARD_1, resume("1"), "report STRAY_RESUME", IDLE),
    C("resume, speaking", SPOKE, resume(), "report STRAY_RESUME", SPEAKING),
    C("resume, speaking: a kept thought", KEPT, resume(), "report STRAY_RESUME", SPEAKING, KEEP),
    C("resume, eager: CANCEL", EAGERED, resume(), "resume 1, cancel 1.1 RESUMED", SPEAKING),
    C("resume, eager: KEEP", EAGERED, resume(), "resume 1", SPEAKING, KEEP),
    C("resume, eager: no thought", [start(), eager("")], resume(), "resume 1", SPEAKING),
    C("resume, eager: other", EAGERED_1, resume("2"), "report STRAY_RESUME", EAGER),
    C("resume, eager: a closed turn's", THEN_2_EAGER, resume("1"), "report STRAY_RESUME", EAGER),
    C("resume, eager: a closed turn's, the open one has no id", [*HEARD_1, *EAGERED], resume("1"),
      "report STRAY_RESUME", EAGER),
    C("resume, eager: no id", EAGERED_1, resume(), "resume 1, cancel 1.1 RESUMED", SPEAKING),
    C("resume, eager: an id, the open turn has none", EAGERED, resume("1"), "resume 1, cancel 1.1 RESUMED", SPEAKING),
]

ENDS = [
    C("end, idle: late", HEARD, end("go"), "report LATE", IDLE),
    C("end, idle: late, blank by turn_id", HEARD_1, end("", "1"), "report LATE", IDLE),
    C("end, idle: blank", [], end(""), "report MISSED_START", IDLE),
    C("end, idle: blank, no id", HEARD, end(" "), "report MISSED_START", IDLE),
    C("end, idle: else", [], end("hi"),
      "report MISSED_START, listen 1, hear 'hi' +'hi', think! 1.1 'hi', respond 1.1 SERVER 'hi'", IDLE),
    C("end, idle: goes on", [*SPOKE, EndNow(), ReplyDone()], end("go on"),
      "listen 2 (continues 1), hear 'go on' +'go on', think! 2.1 'go on', "
      "respond 2.1 SERVER 'go on' (continues 1)",
      IDLE),
    C("end, speaking: no thought", OPEN, end("go"),
      "hear 'go' +'go', think! 1.1 'go', respond 1.1 SERVER 'go'", IDLE),
    C("end, speaking: heard before", SPOKE, end("go"), "think! 1.1 'go', respond 1.1 SERVER 'go'", IDLE),
    C("end, speaking: no text, now or before", OPEN, end(" "), "abandon 1 EMPTY ''", IDLE),
    C("end, speaking: blank, with text before", SPOKE, end(" "),
      "report BLANK_END, think! 1.1 'go', respond 1.1 SERVER 'go'", IDLE),
    C("end, speaking: a kept thought, matched", KEPT, end("go"), "respond 1.1 SERVER 'go'", IDLE, KEEP),
    C("end, speaking: a kept thought, not matched", KEPT, end("go on"),
      "cancel 1.1 MISMATCHED, hear 'go on' +' on', think! 1.2 'go on', respond 1.2 SERVER 'go on'",
      IDLE, KEEP),
    C("end, speaking: a closed turn's", THEN_2, end("go", "1"), "report LATE", SPEAKING),
    C("end, speaking: a closed turn's, the open one has no id", [*HEARD_1, start()], end("go on", "1"),
      "report LATE", SPEAKING),
    C("end, speaking: another turn's", SPOKE_1, end("hey", "2"),
      "abandon 1 SUPERSEDED 'go', report MISSED_END, "
      "report MISSED_START, listen 2, hear 'hey' +'hey', think! 2.1 'hey', respond 2.1 SERVER 'hey'",
      IDLE),
    C("end, speaking: another turn's, blank", SPOKE_1, end("", "2"),
      "abandon 1 SUPERSEDED 'go', report MISSED_END, report MISSED_START", IDLE),
    C("end, eager: identical", EAGERED, end("go"), "respond 1.1 SERVER 'go'", IDLE),
    C("end, eager: matches", EAGERED, end("Go."), "hear 'Go.' revised, respond 1.1 SERVER 'Go.'", IDLE),
    C("end, eager: matched before", [*EAGERED, update("Go.")], end("Go."), "respond 1.1 SERVER 'Go.'", IDLE),
    C("end, eager: does not match", EAGERED, end("go on"),
      "cancel 1.1 MISMATCHED, hear 'go on' +' on', think! 1.2 'go on', respond 1.2 SERVER 'go on'",
      IDLE),
    C("end, eager: does not match, by policy", EAGERED, end("go"),
      "cancel 1.1 MISMATCHED, think! 1.2 'go', respond 1.2 SERVER 'go'",
      IDLE, Policy(match=never)),
    C("end, eager: the thought was cancelled", [*EAGERED, update("go on")], end("go on"),
      "think! 1.2 'go on', respond 1.2 SERVER 'go on'", IDLE),
    C("end, eager: thoughts are spent, one more at the end", EAGERED, end("go on"),
      "cancel 1.1 MISMATCHED, hear 'go on' +' on', think! 1.2 'go on', respond 1.2 SERVER 'go on'",
      IDLE, Policy(max_thoughts=1)),
    C("end, eager: speculate is off", EAGERED, end("go"),
      "think! 1.1 'go', respond 1.1 SERVER 'go'", IDLE, Policy(speculate=False)),
    C("end, eager: no text, now or before", [start(), eager("")], end(""), "abandon 1 EMPTY ''", IDLE),
    C("end, eager: blank", EAGERED, end(" "), "report BLANK_END, respond 1.1 SERVER 'go'", IDLE),
    C("end, eager: a closed turn's", THEN_2_EAGER, end("go", "1"), "report LATE", EAGER),
    C("end, eager: another turn's", EAGERED_1, end("hey", "2"),
      "cancel 1.1 SUPERSEDED, abandon 1 SUPERSEDED 'go', report MISSED_END, "
      "report MISSED_START, listen 2, hear 'hey' +'hey', think! 2.1 'hey', respond 2.1 SERVER 'hey'",
      IDLE),
    C("end, eager: an id, the open turn has none", EAGERED, end("go", "1"), "respond 1.1 SERVER 'go'", IDLE),
]

LOSSES = [
    C("disconnected, idle", HEARD, Disconnected(), "", IDLE),
    C("disconnected, speaking: ABANDON", SPOKE, Disconnected(), "abandon 1 LOST 'go'", IDLE),
    C("disconnected, speaking: ABANDON, no text", OPEN, Disconnected(), "abandon 1 LOST ''", IDLE),
    C("disconnected, speaking: ABANDON, kept", KEPT, Disconnected(),
      "cancel 1.1 LOST, abandon 1 LOST 'go'", IDLE, KEEP),
    C("disconnected, speaking: RESPOND", SPOKE, Disconnected(),
      "think! 1.1 'go', respond 1.1 LOST 'go'", IDLE, RESPOND),
    C("disconnected, speaking: RESPOND, no text", OPEN, Disconnected(), "abandon 1 EMPTY ''", IDLE, RESPOND),
    *(C(f"update, idle: all is forgotten, {policy.after_disconnect}", [*HEARD_1, start("2"), Disconnected()],
        update("stop", "1"), "report MISSED_START, listen 3, hear 'stop' +'stop'", SPEAKING, policy)
      for policy in (Policy(), RESPOND)),
    C("update, idle: all is forgotten, answered", [*HEARD_1, start("2"), update("hey"), Disconnected(), ReplyDone()],
      update("stop", "1"), "report MISSED_START, listen 3, hear 'stop' +'stop'", SPEAKING, RESPOND),
    C("disconnected, eager: ABANDON", EAGERED, Disconnected(), "cancel 1.1 LOST, abandon 1 LOST 'go'", IDLE),
    C("disconnected, eager: RESPOND", EAGERED, Disconnected(), "respond 1.1 LOST 'go'", IDLE, RESPOND),
    C("disconnected, eager: no text", [start(), eager("")], Disconnected(), "abandon 1 EMPTY ''", IDLE, RESPOND),
    C("end_now, idle", HEARD, EndNow(), "", IDLE),
    C("end_now, speaking", SPOKE, EndNow(), "think! 1.1 'go', respond 1.1 FORCED 'go'", IDLE),
    C("end_now, speaking: a kept thought", KEPT, EndNow(), "respond 1.1 FORCED 'go'", IDLE, KEEP),
    C("end_now, speaking: no text", OPEN, EndNow(), "abandon 1 EMPTY ''", IDLE),
    C("end_now, eager", EAGERED, EndNow(), "respond 1.1 FORCED 'go'", IDLE),
    C("end_now, eager: the thought failed", [*EAGERED, ThoughtFailed(1, 1)], EndNow(),
      "think! 1.2 'go', respond 1.2 FORCED 'go'", IDLE),
    C("end_now, eager: no text", [start(), eager("")], EndNow(), "abandon 1 EMPTY ''", IDLE),
]

THOUGHTS = [
    C("context_changed, idle", HEARD, ContextChanged(), "", IDLE),
    C("context_changed, speaking", SPOKE, ContextChanged(), "", SPEAKING),
    C("context_changed, speaking: kept", KEPT, ContextChanged(), "cancel 1.1 CONTEXT_CHANGED", SPEAKING, KEEP),
    C("context_changed, eager", EAGERED, ContextChanged(), "cancel 1.1 CONTEXT_CHANGED, think 1.2 'go'", EAGER),
    C("context_changed, eager: on the text of now", [*EAGERED, update("Go.")], ContextChanged(),
      "cancel 1.1 CONTEXT_CHANGED, think 1.2 'Go.'", EAGER),
    C("context_changed, eager: none is live", [*EAGERED, ThoughtFailed(1, 1)], ContextChanged(), "", EAGER),
    C("context_changed, eager: no thought is left", EAGERED, ContextChanged(),
      "cancel 1.1 CONTEXT_CHANGED", EAGER, Policy(max_thoughts=1)),
    C("thought_failed, idle", HEARD, ThoughtFailed(1, 1), "", IDLE),
    C("thought_failed, speaking", SPOKE, ThoughtFailed(1, 1), "", SPEAKING),
    C("thought_failed, speaking: kept", KEPT, ThoughtFailed(1, 1), "cancel 1.1 FAILED", SPEAKING, KEEP),
    C("thought_failed, eager: the live one", EAGERED, ThoughtFailed(1, 1), "cancel 1.1 FAILED", EAGER),
    C("thought_failed, eager: an earlier one", [*EAGERED, eager("stop")], ThoughtFailed(1, 1), "", EAGER),
    C("thought_failed, eager: one that never was", EAGERED, ThoughtFailed(1, 2), "", EAGER),
    C("thought_failed, eager: another turn's", [*HEARD, *EAGERED], ThoughtFailed(1, 1), "", EAGER),
    C("thought_failed, eager: its second", [*EAGERED, eager("stop")], ThoughtFailed(1, 2), "cancel 1.2 FAILED", EAGER),
]

OPEN_AT_1 = [(start(), 1.0)]
SPOKE_AT_1: list[tuple[Event, float]] = [*OPEN_AT_1, (update("go"), 1.0)]
EAGERED_AT_1: list[tuple[Event, float]] = [*OPEN_AT_1, (eager("go"), 1.0)]
TICKS = [
    C("tick, idle", [(end("go"), 1.0)], (Tick(), 100.0), "", IDLE, STALLS_END),
    C("tick, speaking: no time was given", SPOKE, Tick(), "", SPEAKING, STALLS_END),
    C("tick, speaking: no timeout", SPOKE_AT_1, (Tick(), 100.0), "", SPEAKING, Policy(after_stall=AfterStall.END)),
    C("tick, speaking: before the deadline", SPOKE_AT_1, (Tick(), 6.9), "", SPEAKING, STALLS_END),
    C("tick, speaking: at the deadline", SPOKE_AT_1, (Tick(), 7.0), "stall 1", SPEAKING, STALLS),
    C("tick, speaking: past the deadline", SPOKE_AT_1, (Tick(), 70.0), "stall 1", SPEAKING, STALLS),
    C("tick, speaking: past it, by what came before", [*SPOKE_AT_1, (StopReply(), 70.0)], Tick(),
      "stall 1", SPEAKING, STALLS),
    C("tick, speaking: once", [*SPOKE_AT_1, (Tick(), 7.0)], (Tick(), 8.0), "", SPEAKING, STALLS),
    C("tick, speaking: END", SPOKE_AT_1, (Tick(), 7.0),
      "stall 1, think! 1.1 'go', respond 1.1 STALLED 'go'", IDLE, STALLS_END),
    C("tick, speaking: before the deadline, no text", OPEN_AT_1, (Tick(), 6.9), "", SPEAKING, STALLS_END),
    C("tick, speaking: REPORT, no text", OPEN_AT_1, (Tick(), 7.0), "stall 1", SPEAKING, STALLS),
    C("tick, speaking: END, no text", OPEN_AT_1, (Tick(), 7.0), "stall 1, abandon 1 EMPTY ''", IDLE, STALLS_END),
    C("tick, eager: before the deadline", EAGERED_AT_1, (Tick(), 6.9), "", EAGER, STALLS_END),
    C("tick, eager: at the deadline", EAGERED_AT_1, (Tick(), 7.0), "stall 1", EAGER, STALLS),
    C("tick, eager: END", EAGERED_AT_1, (Tick(), 7.0), "stall 1, respond 1.1 STALLED 'go'", IDLE, STALLS_END),
    C("tick, eager: END, no text", [*OPEN_AT_1, (eager(""), 1.0)], (Tick(), 7.0),
      "stall 1, abandon 1 EMPTY ''", IDLE, STALLS_END),
]

REST = [
    *(C(f"error, {phase}", given, ServerError(status_code=500), "report SERVER_ERROR", phase)
      for phase, given in ((IDLE, HEARD), (SPEAKING, SPOKE), (EAGER, EAGERED))),
    *(C(f"unknown, {phase}", given, Unknown(kind="turn.sigh", fields={}), "report UNKNOWN_TYPE", phase)
      for phase, given in ((IDLE, HEARD), (SPEAKING, SPOKE), (EAGER, EAGERED))),
    *(C(f"use_policy, {phase}", given, UsePolicy(KEEP), "", phase)
      for phase, given in ((IDLE, HEARD), (SPEAKING, SPOKE), (EAGER, EAGERED))),
    C("use_policy, idle: from here on", [UsePolicy(Policy(speculate=False)), start()], eager("go"),
      "hear 'go' +'go'", EAGER),
    C("use_policy, speaking: from here on", [*SPOKE, UsePolicy(Policy(speculate=False))], eager("go"), "", EAGER),
    C("use_policy, eager: from here on", [*EAGERED, UsePolicy(KEEP)], resume(), "resume 1", SPEAKING),
    C("use_policy, eager: the thought lives on", [*EAGERED, UsePolicy(Policy(speculate=False))], end("go"),
      "respond 1.1 SERVER 'go'", IDLE),
]

A = [Connected(request_id="a")]
SPOKE_ON_A = [*A, start(on="a"), update("go", on="a")]
ON_B = [*A, Connected(request_id="b")]
CONNECTIONS = [
    C("connected, idle: first", [], Connected(request_id="a"), "", IDLE),
    C("connected, idle: without an id", [], Connected(), "", IDLE),
    C("connected, idle: the same again", A, Connected(request_id="a"), "report DUPLICATE_CONNECTED", IDLE),
    C("connected, idle: known by its turns", [end("go", on="a")], Connected(request_id="a"),
      "report DUPLICATE_CONNECTED", IDLE),
    C("connected, idle: another", A, Connected(request_id="b"), "", IDLE),
    C("connected, idle: none, twice", [Connected()], Connected(), "", IDLE),
    C("connected, speaking: the same again", SPOKE_ON_A, Connected(request_id="a"),
      "report DUPLICATE_CONNECTED", SPEAKING),
    C("connected, speaking: another", SPOKE_ON_A, Connected(request_id="b"), "abandon 1 LOST 'go'", IDLE),
    C("connected, speaking: without an id", SPOKE_ON_A, Connected(), "abandon 1 LOST 'go'", IDLE),
    C("connected, speaking: RESPOND", SPOKE_ON_A, Connected(request_id="b"),
      "think! 1.1 'go', respond 1.1 LOST 'go'", IDLE, RESPOND),
    C("connected, eager: the same again", [*A, *EAGERED], Connected(request_id="a"),
      "report DUPLICATE_CONNECTED", EAGER),
    C("connected, eager: another", [*A, *EAGERED], Connected(request_id="b"),
      "cancel 1.1 LOST, abandon 1 LOST 'go'", IDLE),
    C("connected: forgets the turns of the old one", [*A, *HEARD_1, Connected(request_id="b")], update("go", "1"),
      "report MISSED_START, listen 2, hear 'go' +'go'", SPEAKING),
    *(C(f"an earlier connection's, idle: {type(event).__name__}", ON_B, event, "report FOREIGN", IDLE)
      for event in (start(on="a"), update("go", on="a"), eager("go", on="a"), resume(on="a"), end("go", on="a"))),
    *(C(f"an earlier connection's, open: {type(event).__name__}", [*ON_B, *SPOKE], event, "report FOREIGN", SPEAKING)
      for event in (start(on="a"), update("on", on="a"), eager("on", on="a"), resume(on="a"), end("on", on="a"))),
    *(C(f"an earlier connection's, eager: {type(event).__name__}", [*ON_B, *EAGERED], event, "report FOREIGN", EAGER)
      for event in (start(on="a"), update("on", on="a"), eager("on", on="a"), resume(on="a"), end("on", on="a"))),
    C("an earlier connection's, after one without an id", [*A, Connected()], start(on="a"), "report FOREIGN", IDLE),
    C("an earlier one that comes again", [*ON_B, Connected(request_id="a")], start(on="a"), "listen 1", SPEAKING),
    C("and then the one between is earlier", [*ON_B, Connected(request_id="a")], start(on="b"), "report FOREIGN", IDLE),
    C("a new request_id, idle", A, start(on="b"), "listen 1", SPEAKING),
    C("a new request_id, speaking", SPOKE_ON_A, update("hey", on="b"),
      "abandon 1 LOST 'go', report MISSED_START, listen 2, hear 'hey' +'hey'", SPEAKING),
    C("a new request_id, speaking: RESPOND", SPOKE_ON_A, start(on="b"),
      "think! 1.1 'go', respond 1.1 LOST 'go', listen 2 (interrupted 1), interrupt 1", SPEAKING, RESPOND),
    C("a new request_id, eager", [*A, *EAGERED], resume(on="b"),
      "cancel 1.1 LOST, abandon 1 LOST 'go', report STRAY_RESUME", IDLE),
    C("a new request_id: forgets the turns of the old one", [*A, *HEARD_1], update("go", "1", on="b"),
      "report MISSED_START, listen 2, hear 'go' +'go'", SPEAKING),
    C("the first request_id seen, in a turn", SPOKE, update("go on", on="a"), "hear 'go on' +' on'", SPEAKING),
    C("the first request_id seen, in an eager end", EAGERED, end("go", on="a"), "respond 1.1 SERVER 'go'", IDLE),
    C("no request_id is the connection's", SPOKE_ON_A, end("go"), "think! 1.1 'go', respond 1.1 SERVER 'go'", IDLE),
    C("after a disconnect, turns without a request_id", [*SPOKE_ON_A, Disconnected()], start(), "listen 2", SPEAKING),
]

OVER_REPLY: list[Event] = [*AUDIBLE, start(), update("mhm")]  # under TWO_WORDS: the reply to turn 1 goes on
CUT = "listen 2 (interrupted 1), interrupt 1"
REPLIES = [
    C("a turn interrupts the reply in flight", ANSWERED, start(), CUT, SPEAKING),
    C("audible or not", AUDIBLE, start(), CUT, SPEAKING),
    C("an update that opens does too", ANSWERED, update("stop", "1"),
      f"report MISSED_START, {CUT}, hear 'stop' +'stop'", SPEAKING),
    C("none in flight after its ReplyDone", HEARD, start(), "listen 2", SPEAKING),
    C("nor after ReplyDone of whatever is", [*ANSWERED, ReplyDone(1)], start(), "listen 2", SPEAKING),
    C("nor after its Interrupt", [*ANSWERED, StopReply()], start(), "listen 2", SPEAKING),
    C("ReplyDone of another changes nothing", [*ANSWERED, ReplyDone(2)], start(), CUT, SPEAKING),
    C("a late one neither", [*ANSWERED, start(), end("hey"), ReplyDone(1)], start(),
      "listen 3 (interrupted 2), interrupt 2", SPEAKING),
    C("an abandoned turn has no reply", [start(), end("")], start(), "listen 2", SPEAKING),
    C("one that is not audible does not wait", ANSWERED, start(), CUT, SPEAKING, TWO_WORDS),
    C("ReplyStarted of another does not make it so", [*ANSWERED, ReplyStarted(2)], start(), CUT, SPEAKING, TWO_WORDS),
    C("nor does 0, of another", [*ANSWERED, ReplyStarted(0)], start(), CUT, SPEAKING, TWO_WORDS),
    C("ReplyStarted with none in flight begins none", [*HEARD, ReplyStarted(1)], start(), "listen 2", SPEAKING),
    C("but 0 does", [ReplyStarted(0)], start(), "listen 1 (interrupted 0), interrupt 0", SPEAKING),
    C("and it may wait too", [ReplyStarted(0)], start(), "listen 1", SPEAKING, TWO_WORDS),
    C("and be done", [ReplyStarted(0), ReplyDone(0)], start(), "listen 1", SPEAKING),
    C("one that was audible says nothing of the next", [*AUDIBLE, start(), end("hey you")], start(),
      "listen 3 (interrupted 2), interrupt 2", SPEAKING, TWO_WORDS),
    C("an audible one waits", AUDIBLE, start(), "listen 2", SPEAKING, TWO_WORDS),
    C("words that do not pass", [*AUDIBLE, start()], update("mhm"), "hear 'mhm' +'mhm'", SPEAKING, TWO_WORDS),
    C("words that pass", OVER_REPLY, update("mhm yes"), "hear 'mhm yes' +' yes', interrupt 1", SPEAKING, TWO_WORDS),
    C("words that pass at once", [*AUDIBLE, start()], update("stop"), "hear 'stop' +'stop', interrupt 1", SPEAKING,
      TWO_WORDS),
    C("words that pass, of an eager_end: then it thinks", OVER_REPLY, eager("mhm yes"),
      "hear 'mhm yes' +' yes', interrupt 1, think 2.1 'mhm yes'", EAGER, TWO_WORDS),
    C("interrupted once", [*OVER_REPLY, update("mhm yes")], update("mhm yes go"), "hear 'mhm yes go' +' go'", SPEAKING,
      TWO_WORDS),
    C("nothing is thought ahead while it is in flight", OVER_REPLY, eager("mhm"), "", EAGER, TWO_WORDS),
    C("nor of the application's own", [*SPOKE, ReplyStarted(0)], eager("go"), "", EAGER),
    C("nor again when the context changes", [*EAGERED, ReplyStarted(0)], ContextChanged(),
      "cancel 1.1 CONTEXT_CHANGED", EAGER),
    C("the server's end, of words that do not pass", OVER_REPLY, end("mhm"), "abandon 2 BACKCHANNEL 'mhm'", IDLE,
      TWO_WORDS),
    C("the same, in the end alone", [*AUDIBLE, start()], end("mhm"),
      "hear 'mhm' +'mhm', abandon 2 BACKCHANNEL 'mhm'", IDLE, TWO_WORDS),
    C("and the reply goes on", [*OVER_REPLY, end("mhm")], StopReply(), "interrupt 1", IDLE, TWO_WORDS),
    C("and can be interrupted by the next", [*OVER_REPLY, end("mhm"), start()], update("go on"),
      "hear 'go on' +'go on', interrupt 1", SPEAKING, TWO_WORDS),
    C("speech that began in the turn makes no backchannel of its end", [*EAGERED, ReplyStarted(0)], end("go"),
      "interrupt 0, respond 1.1 SERVER 'go' (interrupted 0)", IDLE, TWO_WORDS),
    C("nor of an end with other words", [*EAGERED, ReplyStarted(0)], end("oh"),
      "cancel 1.1 MISMATCHED, hear 'oh' revised, interrupt 0, think! 1.2 'oh', respond 1.2 SERVER 'oh' (interrupted 0)",
      IDLE, TWO_WORDS),
    C("speech that began in an earlier turn does", [start(), ReplyStarted(0), end(""), start()], end("go"),
      "hear 'go' +'go', abandon 2 BACKCHANNEL 'go'", IDLE, TWO_WORDS),
    C("blank at the end, words that do not pass", OVER_REPLY, end(""),
      "report BLANK_END, abandon 2 BACKCHANNEL 'mhm'", IDLE, TWO_WORDS),
    C("no words at all", [*AUDIBLE, start()], end(""), "abandon 2 EMPTY ''", IDLE, TWO_WORDS),
    C("the server's end, of words that pass", OVER_REPLY, end("mhm yes"),
      "hear 'mhm yes' +' yes', interrupt 1, think! 2.1 'mhm yes', respond 2.1 SERVER 'mhm yes' (interrupted 1)", IDLE,
      TWO_WORDS),
    C("the server's end, the reply was done before", [*OVER_REPLY, ReplyDone()], end("mhm"),
      "think! 2.1 'mhm', respond 2.1 SERVER 'mhm'", IDLE, TWO_WORDS),
    C("the server's end, over what is not to wait", [*SPOKE, ReplyStarted(0)], end("go"),
      "interrupt 0, think! 1.1 'go', respond 1.1 SERVER 'go' (interrupted 0)", IDLE),
    C("any other end interrupts and answers", OVER_REPLY, EndNow(),
      "interrupt 1, think! 2.1 'mhm', respond 2.1 FORCED 'mhm' (interrupted 1)", IDLE, TWO_WORDS),
    C("a lost connection's too", OVER_REPLY, Disconnected(),
      "interrupt 1, think! 2.1 'mhm', respond 2.1 LOST 'mhm' (interrupted 1)", IDLE,
      Policy(interrupts=min_words(2), after_disconnect=AfterDisconnect.RESPOND)),
    *(C(f"reply inputs, in flight, {phase}: {type(event).__name__}", [*ANSWERED, *given], event, "", phase, TWO_WORDS)
      for phase, given in ((IDLE, []), (SPEAKING, OPEN), (EAGER, EAGERED))
      for event in (ReplyStarted(1), ReplyDone(1))),
    C("stop_reply, idle", ANSWERED, StopReply(), "interrupt 1", IDLE),
    C("stop_reply, idle: none in flight", HEARD, StopReply(), "", IDLE),
    C("stop_reply, speaking", OVER_REPLY, StopReply(), "interrupt 1", SPEAKING, TWO_WORDS),
    C("stop_reply, speaking: none in flight", SPOKE, StopReply(), "", SPEAKING),
    C("stop_reply, eager: then it thinks", [*OVER_REPLY, eager("mhm")], StopReply(), "interrupt 1, think 2.1 'mhm'",
      EAGER, TWO_WORDS),
    C("stop_reply, eager: none in flight", EAGERED, StopReply(), "", EAGER, TWO_WORDS),
    C("reply_done, eager: then it thinks", [*OVER_REPLY, eager("mhm")], ReplyDone(1), "think 2.1 'mhm'",
      EAGER, TWO_WORDS),
    C("reply_done, eager: of another reply", [*OVER_REPLY, eager("mhm")], ReplyDone(2), "", EAGER, TWO_WORDS),
    C("law K: speech that begins in the turn is interrupted by its next words", [*SPOKE, ReplyStarted(0)],
      update("go on"), "hear 'go on' +' on', interrupt 0", SPEAKING),
    C("law K: not by the same words", [*SPOKE, ReplyStarted(0)], update("go"), "", SPEAKING),
    C("law K: or by its resume", [*EAGERED, ReplyStarted(0)], resume(),
      "resume 1, interrupt 0, cancel 1.1 RESUMED", SPEAKING),
    C("law K: a resume too asks the policy", [*EAGERED, ReplyStarted(0)], resume(), "resume 1, cancel 1.1 RESUMED",
      SPEAKING, TWO_WORDS),
    C("law K: by a policy of now", [*AUDIBLE, start(), UsePolicy(Policy())], update("mhm"),
      "hear 'mhm' +'mhm', interrupt 1", SPEAKING, TWO_WORDS),
]

WAITS = Policy(think_after=1.0, stall_timeout=1.0)
WAITS_KEEP = Policy(think_after=1.0, after_resume=AfterResume.KEEP)
WAITING: Given = [(start(), 0.0), (eager("go"), 0.0)]  # a thought is due at 1
THOUGHT: Given = [*WAITING, (Tick(), 1.0)]
WAITINGS = [
    C("think_after: nothing at the eager end", [(start(), 0.0)], (eager("go"), 0.0), "hear 'go' +'go'", EAGER, WAITS),
    C("think_after: without a time, at once", [start()], eager("go"), "hear 'go' +'go', think 1.1 'go'", EAGER, WAITS),
    C("think_after: not before", WAITING, (Tick(), 0.9), "", EAGER, WAITS),
    C("think_after: when it is over, before the stall that is due too", WAITING, (Tick(), 1.0), "think 1.1 'go'", EAGER,
      WAITS),
    C("think_after: then the stall", THOUGHT, (Tick(), 1.0), "stall 1", EAGER, WAITS),
    C("think_after: the policy is asked again", [*WAITING, UsePolicy(Policy(speculate=False))], (Tick(), 1.0), "",
      EAGER, WAITS),
    C("think_after: of now", [*WAITING, UsePolicy(Policy(think_after=0.5))], (Tick(), 0.5), "think 1.1 'go'",
      EAGER, WAITS),
    C("think_after: not over speech that began meanwhile", [*WAITING, ReplyStarted(0)], (Tick(), 1.0), "", EAGER,
      WAITS_KEEP),
    C("think_after: and after that speech at once", [*WAITING, ReplyStarted(0), (Tick(), 1.0)], (ReplyDone(), 1.0),
      "think 1.1 'go'", EAGER, WAITS_KEEP),
    C("think_after: a reply that ends meanwhile begins nothing", [*WAITING, ReplyStarted(0)], (ReplyDone(), 0.5), "",
      EAGER, WAITS),
    C("think_after: the same words again", WAITING, (eager("go"), 0.5), "", EAGER, WAITS),
    C("think_after: the same words after a failure, at once", [*THOUGHT, ThoughtFailed(1, 1)], (eager("go"), 1.5),
      "think 1.2 'go'", EAGER, WAITS),
    C("think_after: from the first eager end with these words", [*WAITING, (eager("go"), 0.5)], (Tick(), 1.0),
      "think 1.1 'go'", EAGER, WAITS),
    C("think_after: words that match go on waiting", [*WAITING, (eager("Go."), 0.5)], (Tick(), 1.0), "think 1.1 'Go.'",
      EAGER, WAITS_KEEP),
    C("think_after: an update that matches too", [*WAITING, (update("Go."), 0.5)], (Tick(), 1.0), "think 1.1 'Go.'",
      EAGER, WAITS_KEEP),
    C("think_after: other words wait anew", [*WAITING, (eager("go on"), 0.5)], (Tick(), 1.0), "", EAGER, WAITS_KEEP),
    C("think_after: and as long", [*WAITING, (eager("go on"), 0.5)], (Tick(), 1.5), "think 1.1 'go on'", EAGER,
      WAITS_KEEP),
    C("think_after: an update with other words ends it", [*WAITING, (update("go on"), 0.5)], (Tick(), 1.0), "",
      EAGER, WAITS_KEEP),
    C("think_after: an eager end after it waits anew",
      [*THOUGHT, (update("go on"), 2.0), (eager("go on"), 3.0)], (Tick(), 3.5), "", EAGER, WAITS_KEEP),
    C("think_after: and thinks", [*THOUGHT, (update("go on"), 2.0), (eager("go on"), 3.0)], (Tick(), 4.0),
      "think 1.2 'go on'", EAGER, WAITS_KEEP),
    C("think_after: a resume ends it without a cancel", WAITING, (resume(), 0.5), "resume 1", SPEAKING, WAITS),
    C("think_after: under KEEP as well", [*WAITING, (resume(), 0.5)], (Tick(), 1.0), "", SPEAKING, WAITS_KEEP),
    C("think_after: after a resume it starts anew", [*WAITING, (resume(), 0.5), (eager("go"), 1.0)], (Tick(), 1.5), "",
      EAGER, WAITS_KEEP),
    C("think_after: and is as long", [*WAITING, (resume(), 0.5), (eager("go"), 1.0)], (Tick(), 2.0), "think 1.1 'go'",
      EAGER, WAITS_KEEP),
    C("think_after: the end thinks at once, without a cancel", WAITING, (end("go"), 0.5),
      "think! 1.1 'go', respond 1.1 SERVER 'go'", IDLE, WAITS),
    C("think_after: a changed context does not move it", [*WAITING, (ContextChanged(), 0.5)], (Tick(), 1.0),
      "think 1.1 'go'", EAGER, WAITS),
    C("think_after: past it a changed context thinks at once", THOUGHT, (ContextChanged(), 2.0),
      "cancel 1.1 CONTEXT_CHANGED, think 1.2 'go'", EAGER, WAITS),
    C("think_after: from the eager end that a kept thought matches",
      [*THOUGHT, (resume(), 2.0), (eager("Go."), 3.0)], (ContextChanged(), 3.5), "cancel 1.1 CONTEXT_CHANGED", EAGER,
      WAITS_KEEP),
    C("think_after: no thought has failed", WAITING, ThoughtFailed(1, 0), "", EAGER, WAITS),
]

OWED = [*SPOKE, EndNow(), ReplyDone()]  # the server has yet to end the turn
OWED_1 = [*SPOKE_1, EndNow(), ReplyDone()]
ECHOES = [
    *(C(f"echo: {kind.__name__} {text!r}, {turn_id or 'no id'}", given, kind(text, turn_id), "", IDLE)
      for given, turn_id in ((OWED, None), (OWED_1, "1")) for kind in (update, eager, end)
      for text in ("Go.", "g", "")),
    C("echo: a resume", OWED_1, resume("1"), "", IDLE),
    C("echo: blank text without an id", OWED_1, end(""), "", IDLE),
    C("echo: not of another id", OWED_1, update("go", "2"), "report MISSED_START, listen 2, hear 'go' +'go'", SPEAKING),
    C("echo: no more after the server's end", [*OWED, end("Go.")], update("go"), "report LATE", IDLE),
    C("echo: no more after its late end", [*OWED_1, end("stop", "1")], update("go", "1"), "report LATE", IDLE),
    C("echo: a late end of another turn does not end it",
      [*HEARD_1, start("2"), update("hey", "2"), EndNow(), end("stop", "1")], update("hey", "2"), "", IDLE),
    C("echo: no more after another turn", [*OWED_1, start("2"), end("hey", "2")], update("go", "1"),
      "report LATE", IDLE),
    C("echo: no more after a lost connection", [*OWED_1, Disconnected()], update("go", "1"),
      "report MISSED_START, listen 2, hear 'go' +'go'", SPEAKING),
    C("echo: revised, with more words", OWED_1, end("stop it", "1"),
      "listen 2 (continues 1), hear 'stop it' +'stop it', think! 2.1 'stop it', "
      "respond 2.1 SERVER 'stop it' (continues 1)", IDLE),
    C("echo: revised, with as many words", OWED_1, update("stop", "1"), "report LATE", IDLE),
    C("echo: a resume of the turn that continues it", [*OWED_1, update("go on", "1")], resume("1"), "", SPEAKING),
    C("resume, eager: of the open turn's id, which a closed one had too", [*HEARD_1, start("1"), eager("go on", "1")],
      resume("1"), "resume 2, cancel 2.1 RESUMED", SPEAKING),
]
# fmt: on
CASES = [
    *WAITINGS,
    *ECHOES,
    *STARTS,
    *UPDATES,
    *EAGER_ENDS,
    *RESUMES,
    *ENDS,
    *LOSSES,
    *THOUGHTS,
    *TICKS,
    *REST,
    *CONNECTIONS,
    *REPLIES,
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.says)
def test_cell(case: Case) -> None:
    case.check()


def test_every_cell_has_a_case() -> None:
    met = set[tuple[type[Event], Phase]]()
    for case in CASES:
        event = case.event[0] if isinstance(case.event, tuple) else case.event
        met.add((type(event), after(case.given, case.policy).phase))
    assert met == {(kind, phase) for kind in KINDS.values() for phase in Phase}


def test_no_two_cases_say_the_same() -> None:
    assert len({case.says for case in CASES}) == len(CASES)


# -- what a guard remembers


def test_eight_closed_turns_are_remembered_and_the_ninth_is_not() -> None:
    machine = after([event for n in range(9) for event in (start(str(n)), end("go", str(n)))])
    machine.receive(ReplyDone())
    assert told(machine.receive(update("go", "1"))) == "report LATE"
    assert told(machine.receive(update("go", "0"))) == "report MISSED_START, listen 10, hear 'go' +'go'"


def test_without_ids_only_the_last_closed_turn_counts() -> None:
    machine = after([*HEARD, start(), end("stop"), ReplyDone()])
    assert told(machine.receive(update("go"))) == "report MISSED_START, listen 3, hear 'go' +'go'"


def test_of_two_closed_turns_with_one_id_the_later_counts() -> None:
    machine = after([*HEARD_1, start("1"), end("stop", "1"), ReplyDone()])
    assert told(machine.receive(update("stop it", "1"))).startswith("report MISSED_START, listen 3 (continues 2)")


@pytest.mark.parametrize("event", [update("go", "1"), eager("go", "1"), end("go", "1")])
def test_a_turn_without_an_id_takes_the_first_that_comes(event: Event) -> None:
    machine = after(OPEN)
    *_, last = machine.receive(event)
    assert last.turn.turn_id == "1"  # type: ignore[attr-defined]
    machine = after([*OPEN, update("go", "1")])
    assert told(machine.receive(update("go on", "2"))).startswith("abandon 1 SUPERSEDED 'go', report MISSED_END")


def test_a_resume_gives_its_id_too() -> None:
    machine = after([*EAGERED, resume("1")])
    assert machine.turn is not None
    assert machine.turn.turn_id == "1"


def test_a_resume_out_of_place_gives_none() -> None:
    machine = after([*SPOKE, resume("1")])
    assert machine.turn is not None
    assert machine.turn.turn_id is None


# -- the turn


def test_a_turn_says_what_it_is() -> None:
    machine = TurnMachine()
    machine.receive(Connected(request_id="a"), 1)
    [opened] = machine.receive(start("1", on="a"), 2)
    assert opened == Listen(Turn(1, turn_id="1", request_id="a", started_at=2))
    machine.receive(eager("go", "1", on="a"), 3)
    assert machine.turn == Turn(1, "go", "1", "a", started_at=2, latest_thought=1)
    [responded] = machine.receive(end("go", "1", on="a"), 4)
    assert isinstance(responded, Respond)
    assert responded.turn.ended_at == 4
    assert responded.turn.started_at == 2
    assert machine.turn is None


def test_its_request_id_is_the_connections_where_its_events_have_none() -> None:
    [opened] = after(A).receive(start())
    assert opened == Listen(Turn(1, request_id="a"))


def test_the_first_request_id_seen_becomes_the_open_turns() -> None:
    machine = after(SPOKE)
    [heard] = machine.receive(update("go on", on="a"))
    assert heard == Hear(Turn(1, "go on", request_id="a"), " on")


def test_without_now_there_are_no_times() -> None:
    machine = after(SPOKE, STALLS)
    assert machine.deadline is None
    _, responded = machine.receive(end("go"))
    assert isinstance(responded, Respond)
    assert (responded.turn.started_at, responded.turn.ended_at) == (None, None)


# -- reports


def test_a_report_holds_its_event_and_says_nothing_of_the_words() -> None:
    event = end("shibboleth")
    [report, *_] = TurnMachine().receive(event)
    assert isinstance(report, Report)
    assert report.event is event
    assert report.detail
    assert "shibboleth" not in report.detail


def test_a_match_that_raises_is_false_and_reported() -> None:
    machine = after(EAGERED, Policy(match=raises))
    actions = machine.receive(end("go"))
    assert told(actions) == ("report POLICY_ERROR, cancel 1.1 MISMATCHED, think! 1.2 'go', respond 1.2 SERVER 'go'")
    assert isinstance(actions[0], Report)
    assert "RuntimeError" in actions[0].detail
    assert "go" not in actions[0].detail


def test_an_interrupts_that_raises_is_true_and_reported() -> None:
    policy = Policy(interrupts=raises)
    machine = after([*AUDIBLE, start()], policy)
    assert told(machine.receive(update("mhm"))) == "hear 'mhm' +'mhm', report POLICY_ERROR, interrupt 1"
    machine = after([*AUDIBLE, start()], policy)
    said = told(machine.receive(end("mhm")))
    assert said.startswith("report POLICY_ERROR, hear 'mhm' +'mhm', interrupt 1, think! 2.1")


def test_a_speculate_that_raises_is_false_and_reported() -> None:
    machine = after(SPOKE, Policy(speculate=raises))
    assert told(machine.receive(eager("go"))) == "report POLICY_ERROR"


def raises_cancelled_error(*given: object) -> bool:
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    ("name", "before", "event", "said"),
    [
        ("speculate", SPOKE, eager("go"), "report POLICY_ERROR"),
        ("match", EAGERED, update("go now"), "report POLICY_ERROR, cancel 1.1 MOVED, hear 'go now' +' now'"),
        ("interrupts", [*AUDIBLE, start()], update("mhm"), "hear 'mhm' +'mhm', report POLICY_ERROR, interrupt 1"),
    ],
)
def test_f55_a_policy_function_that_raises_cancelled_error_has_failed(
    name: str, before: list[Event], event: Event, said: str
) -> None:
    """A future that it asked was cancelled; it awaits nothing, so nobody has cancelled it."""
    policy: Any = {name: raises_cancelled_error}
    assert told(after(before, Policy(**policy)).receive(event)) == said


def test_what_is_no_failure_of_a_policy_function_gets_out() -> None:
    def stops(*given: object) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        after(SPOKE, Policy(speculate=stops)).receive(eager("go"))


def test_the_deadline_is_the_earlier_of_think_after_and_stall_timeout() -> None:
    machine = after(WAITING, Policy(think_after=1.0, stall_timeout=6.0))
    assert machine.deadline == 1
    machine.receive(Tick(), 1.0)
    assert machine.deadline == 6
    assert after(WAITING, Policy(think_after=6.0, stall_timeout=1.0)).deadline == 1
    assert after([start(), eager("go")], Policy(think_after=1.0)).deadline is None


def test_so_many_earlier_connections_are_remembered() -> None:
    machine = after([Connected(request_id=str(n)) for n in range(66)])
    assert told(machine.receive(start(on="1"))) == "report FOREIGN"
    assert told(machine.receive(start(on="0"))) == "listen 1"
    assert len(machine.snapshot()["earlier"]) == 64
    assert len(json.dumps(machine.snapshot())) < 16 * 1024


# -- the deadline


def deadline(*given: tuple[Event, float]) -> float | None:
    return after(given, STALLS).deadline


def test_no_deadline_where_no_turn_is_open() -> None:
    assert deadline() is None
    assert deadline((start(), 1), (end("go"), 2)) is None


@pytest.mark.parametrize("what", [update("go on"), eager("go on")])
def test_the_deadline_is_after_the_last_change_of_the_text(what: Event) -> None:
    assert deadline((start(), 1)) == 7
    assert deadline((start(), 1), (update("go"), 2)) == 8
    assert deadline((start(), 1), (update("go"), 2), (what, 3)) == 9


@pytest.mark.parametrize(
    "what", [update("go"), update(" "), eager("go"), resume(), start("1"), ServerError(), ContextChanged(), Tick()]
)
def test_what_does_not_change_the_text_does_not_move_the_deadline(what: Event) -> None:
    assert deadline((start("1"), 1), (update("go", "1"), 2), (what, 3)) == 8


def test_a_resume_moves_the_deadline() -> None:
    assert deadline((start(), 1), (eager("go"), 2), (resume(), 3)) == 9


def test_no_deadline_after_a_stall_until_the_text_moves_or_a_resume() -> None:
    stalled: list[tuple[Event, float]] = [(start(), 1), (eager("go"), 2), (Tick(), 8)]
    assert deadline(*stalled) is None
    assert deadline(*stalled, (update("go"), 9)) is None
    assert deadline(*stalled, (update("go on"), 9)) == 15
    assert deadline(*stalled, (resume(), 9)) == 15


def test_a_second_stall_comes_where_the_text_moved_between() -> None:
    machine = after([*SPOKE_AT_1, (Tick(), 7.0), (update("go on"), 8.0)], STALLS)
    assert told(machine.receive(Tick(), 13.9)) == ""
    assert told(machine.receive(Tick(), 14)) == "stall 1"


def test_the_deadline_is_by_the_policy_of_now() -> None:
    machine = after(SPOKE_AT_1)
    assert machine.deadline is None
    machine.receive(UsePolicy(STALLS))
    assert machine.deadline == 7


def test_an_input_without_a_time_happens_at_the_last_one_seen() -> None:
    machine = after([(start(), 3.0)], STALLS)
    machine.receive(update("go"))
    assert machine.deadline == 9


@pytest.mark.parametrize("now", [2.0, -1.0, float("nan"), float("inf"), float("-inf")])
def test_a_time_that_runs_back_or_is_not_finite_counts_as_the_last_one_seen(now: float) -> None:
    machine = after([(start(), 3.0)], STALLS)
    machine.receive(update("go"), now)
    assert machine.deadline == 9
    *_, responded = machine.receive(end("go"), now)
    assert isinstance(responded, Respond)
    assert (responded.turn.started_at, responded.turn.ended_at) == (3, 3)


@pytest.mark.parametrize("now", [float("nan"), float("inf"), float("-inf")])
def test_a_first_time_that_is_not_finite_is_none(now: float) -> None:
    [opened] = TurnMachine().receive(start(), now)
    assert opened == Listen(Turn(1))


# -- refusals


class Lookalike:
    type = "turn.end"
    transcript = "go"
    turn_id = request_id = None


@pytest.mark.parametrize("event", [None, 1, "turn.start", {"type": "turn.start"}, Lookalike(), TurnStart, Event()])
def test_what_is_no_event_is_a_type_error_and_changes_nothing(event: Any) -> None:
    machine = after(EAGERED)
    before = machine.snapshot()
    with pytest.raises(TypeError, match="takes an event, not"):
        machine.receive(event)
    assert machine.snapshot() == before


@pytest.mark.parametrize("policy", [None, {}, Policy, "keep"])
def test_what_is_no_policy_is_refused(policy: Any) -> None:
    with pytest.raises(TypeError, match="policy must be a Policy"):
        TurnMachine(policy)
    with pytest.raises(TypeError, match="policy must be a Policy"):
        TurnMachine.restore(TurnMachine().snapshot(), policy)


GOOD = after(EAGERED).snapshot()


@pytest.mark.parametrize(
    "snapshot",
    [
        *(None, 1, "snapshot", [], [1], {}, {"phase": "idle"}),
        *({**TurnMachine().snapshot(), "thinking": 1}, {**TurnMachine().snapshot(), "owed": True}),
        *(GOOD | {"phase": "asleep"}, GOOD | {"number": "1"}, GOOD | {"turn": 1}, GOOD | {"closed": None}),
        *(GOOD | {"turn": None}, GOOD | {"phase": "idle"}),
        after([start()]).snapshot() | {"thinking": 1},  # whoever ends this turn would have an empty one to cancel
        *(GOOD | {"mood": "good"}, {name: value for name, value in GOOD.items() if name != "closed"}),
    ],
    ids=str,
)
def test_what_is_no_snapshot_is_refused(snapshot: Any) -> None:
    with pytest.raises(ValueError, match="not a snapshot of a TurnMachine"):
        TurnMachine.restore(snapshot, Policy())


# -- waiting to think


def test_the_same_eager_end_again_does_not_move_the_wait_of_a_text_that_it_matches() -> None:
    waits = Policy(think_after=1.0)
    machine = after([(start(), 0.0), (eager("go"), 0.0), (eager("Go."), 0.25)], waits)
    assert machine.deadline == 1
    assert machine.receive(eager("Go."), 0.5) == ()
    assert machine.deadline == 1


def test_words_that_come_back_after_other_words_wait_anew() -> None:
    machine = after([(start(), 0.0), (eager("go"), 0.0), (update("no"), 0.25)], Policy(think_after=1.0))
    assert told(machine.receive(eager("go"), 0.5)) == "hear 'go' revised"
    assert machine.deadline == 1.5


@pytest.mark.parametrize("after_resume", AfterResume)
def test_words_that_come_back_after_a_resume_wait_anew(after_resume: AfterResume) -> None:
    given = [(start(), 0.0), (eager("go"), 0.0), (resume(), 0.25), (eager("go"), 0.5)]
    assert after(given, Policy(think_after=1.0, after_resume=after_resume)).deadline == 1.5


def test_the_wait_counts_from_the_eager_end_after_the_resume_where_the_thought_was_kept() -> None:
    given: Given = [*THOUGHT, (resume(), 1.25), (eager("go"), 1.5)]
    machine = after(given, Policy(think_after=1.0, after_resume=AfterResume.KEEP))
    assert told(machine.receive(ContextChanged(), 1.75)) == "cancel 1.1 CONTEXT_CHANGED"
    assert machine.deadline == 2.5


def test_the_wait_counts_from_an_eager_end_without_words_too() -> None:
    """The words come later, and the reply in flight ends after them."""
    given: Given = [*HEARD, (start(), 0.0), ReplyStarted(0), (eager(""), 0.0), (update("go"), 0.25)]
    machine = after(given, Policy(think_after=1.0, interrupts=min_words(2)))
    assert told(machine.receive(ReplyDone(), 0.5)) == ""
    assert machine.deadline == 1
    assert told(machine.receive(Tick(), 1.0)) == "think 2.1 'go'"


# -- snapshots


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.says)
def test_a_machine_restored_from_json_does_the_same_in_every_cell(case: Case) -> None:
    machine = after(case.given, case.policy)
    event, now = case.event if isinstance(case.event, tuple) else (case.event, None)
    seen = max((item[1] for item in case.given if isinstance(item, tuple)), default=None)
    again = TurnMachine.restore(json.loads(json.dumps(machine.snapshot())), machine.policy, seen)
    assert told(again.receive(event, now)) == told(machine.receive(event, now))
    assert (again.phase, again.snapshot()) == (machine.phase, machine.snapshot())


def test_a_snapshot_says_times_as_ages() -> None:
    machine = after([(start(), 100.0), (update("go"), 101.0)], STALLS)
    snapshot = machine.snapshot(103.0)
    assert snapshot["turn"]["started_at"] == 3
    again = TurnMachine.restore(snapshot, STALLS, 13.0)
    assert again.deadline == 17
    assert again.turn == Turn(1, "go", started_at=10)


def test_a_machine_restored_without_a_time_has_none() -> None:
    again = TurnMachine.restore(after(SPOKE_AT_1, STALLS).snapshot(2.0), STALLS)
    assert again.deadline is None
    assert again.turn == Turn(1, "go")


@pytest.mark.parametrize("now", [float("nan"), float("inf"), float("-inf")])
def test_a_time_of_a_snapshot_that_is_not_finite_is_none(now: float) -> None:
    machine = after(SPOKE_AT_1, STALLS)
    assert machine.snapshot(now) == machine.snapshot()
    again = TurnMachine.restore(machine.snapshot(), STALLS, now)
    again.receive(update("go on"), 3)
    assert again.deadline == 9


def test_a_snapshot_does_not_hold_the_policy() -> None:
    snapshot = after(EAGERED, KEEP).snapshot()
    assert told(TurnMachine.restore(snapshot, Policy()).receive(resume())) == "resume 1, cancel 1.1 RESUMED"
    assert told(TurnMachine.restore(snapshot, KEEP).receive(resume())) == "resume 1"


def test_a_machine_says_its_policy_of_now() -> None:
    machine = TurnMachine(KEEP)
    assert machine.policy is KEEP
    machine.receive(UsePolicy(STALLS))
    assert machine.policy is STALLS
