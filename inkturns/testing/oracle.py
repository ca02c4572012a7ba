"""Oracle: the laws A to J, as a reader of events and actions who knows nothing of the machine.

Rules of this file: it is read off the laws, never off the table; each judgement names the letter of its law; it
remembers the open turn and the reply in flight, nothing of what is settled, so that a session of any length costs the
same. What the laws say of a whole session is said here at the first step that breaks it: E makes a turn's text the
server's last, so words that no turn has after their own event, nor a LATE or FOREIGN report, are lost (I). G, that the
machine is total and deterministic, is not for an onlooker to see.
"""

from collections.abc import Hashable, Iterable
from typing import Never

import msgspec
from msgspec.structs import fields

from inkturns.actions import (
    Abandon,
    Action,
    Cancel,
    EndReason,
    Hear,
    Interrupt,
    Listen,
    Report,
    ReportKind,
    Respond,
    Resume,
    Stall,
    Think,
    Turn,
)
from inkturns.events import Event, ReplyDone, ReplyStarted, TurnEagerEnd, TurnEnd, TurnUpdate

__all__ = ["Oracle", "check", "shown"]

TEXT = (TurnUpdate, TurnEagerEnd, TurnEnd)
ANSWERED = (EndReason.SERVER, EndReason.FORCED, EndReason.STALLED, EndReason.LOST)
ABANDONED = (EndReason.EMPTY, EndReason.SUPERSEDED, EndReason.LOST, EndReason.BACKCHANNEL)
SHOWN_STEPS = 40  # of a broken trace, the last ones


class Oracle(msgspec.Struct, kw_only=True):
    """Whether a session keeps the laws: `step` each input with its actions, in order, from the session's beginning.

    `lawful=True` says that the server keeps its promises, and adds law J. The other fields are what it has seen. Two
    oracles that are equal judge every continuation alike; `copy.copy` of one is independent of it."""

    lawful: bool = False
    number: int = 0  # the latest turn's
    open: bool = False  # the next seven are of that turn, while it is
    text: str = ""
    turn_id: str | None = None
    request_id: str | None = None
    started: float | None = None
    thoughts: int = 0  # the latest thought's number
    live: int | None = None  # the live one's
    reply: int | None = None  # whose reply is in flight; 0: the application's own speech
    time: float | None = None  # the latest in any turn

    def step(self, event: Event | None, actions: Iterable[Action]) -> None:
        """Takes one input (None: a frame that was no event) and what came of it.

        Raises AssertionError, its message beginning with "law X:", at the first action that breaks one. After that the
        oracle is of no more use."""
        text = event.transcript if isinstance(event, TEXT) else ""
        if isinstance(event, ReplyDone) and event.number in (None, self.reply):
            self.reply = None
        elif isinstance(event, ReplyStarted) and event.number == 0 and self.reply is None:
            self.reply = 0
        heard = False  # has the open turn been heard in this tuple?
        begun: bool | None = None  # did the live thought begin in this tuple, and was it speculative?
        kept: str | None = None  # the text of the turn that this tuple closed last
        reported = False  # do the event's words stand in a report?
        for action in actions:
            match action:
                case Listen(turn):
                    self._open(turn)
                    heard = False
                case Hear(turn, delta):
                    self._seen(turn, turn.transcript)
                    self._hear(turn, delta, event, text)
                    heard = True
                case Think(turn, thought, speculative):
                    self._think(turn, thought)
                    begun = speculative
                case Cancel(turn, thought):
                    if not self.open or turn.number != self.number or thought != self.live:
                        _broken("B", f"Cancel of thought {thought} of turn {turn.number}, which is not live")
                    if heard:
                        _broken("F", f"Cancel of thought {thought} after the Hear that made it so")
                    self._seen(turn)
                    self.live = begun = None
                case Respond(turn, thought):
                    self._respond(turn, thought)
                    if begun:
                        _broken("A", f"thought {thought}, begun and answered in one tuple, is called speculative")
                    begun, kept = None, self._close(turn)
                case Abandon(turn):
                    self._seen(turn, ends=ABANDONED)
                    if self.live is not None:
                        _broken("B", f"turn {turn.number} is closed with thought {self.live} live")
                    kept = self._close(turn)
                case Resume(turn) | Stall(turn):
                    self._seen(turn)
                case Interrupt(number):
                    if number != self.reply:
                        _broken("H", f"Interrupt of the reply to turn {number}, in flight is {self.reply}")
                    self.reply = None
                case Report(kind, about):
                    if self.lawful:
                        _broken("J", f"Report {kind.name} of lawful traffic")
                    reported |= kind in (ReportKind.LATE, ReportKind.FOREIGN) and about == event
                case _:
                    pass  # an action of a later version says nothing about these laws
        if begun is False:
            _broken("A", f"thought {self.live} is not speculative, and no Respond came with it")
        if self.open:
            kept = self.text
        if not _blank(text) and not reported and kept != text:
            if kept is not None and kept.startswith(text):
                _broken("E", f"the turn's text is {kept!r}, the server's last {text!r}")
            _broken("I", f"{text!r} is in no turn, and in no LATE or FOREIGN report")

    def key(self, now: float | None = None) -> Hashable:
        """All that it goes by, with ages before `now` for times where that is given: equal keys, equal verdicts."""
        started, time = self.started, self.time
        if now is not None:
            started, time = (None if t is None else now - t for t in (started, time))
        turn = (self.number, self.open, self.text, self.turn_id, self.request_id, started, self.thoughts, self.live)
        return (self.lawful, *turn, self.reply, time)

    def _open(self, turn: Turn) -> None:
        if self.open:
            _broken("C", f"turn {turn.number} opens while turn {self.number} is open")
        if turn.number <= self.number or (self.number == 0 and turn.number != 1):
            _broken("D", f"turn {turn.number} comes after turn {self.number}")
        if turn.thoughts:
            _broken("D", f"turn {turn.number} opens with thoughts")
        if turn.transcript:
            _broken("F", f"turn {turn.number} opens with text, before any Hear")
        self._timed(turn.started_at)
        self.number, self.open, self.started = turn.number, True, turn.started_at
        self._seen(turn)

    def _seen(self, turn: Turn, text: str | None = None, *, ends: tuple[EndReason, ...] = ()) -> None:
        """What holds of a turn in every action: it is the open one, as the actions before this one left it, with the
        `text` that it is about to have, and has ended where that action closes it."""
        if not self.open or turn.number != self.number:
            _broken("C", f"turn {turn.number} is not open")
        if turn.end not in (ends or (None,)):
            _broken("C", f"turn {turn.number} has end {turn.end}")
        if self.turn_id not in (None, turn.turn_id):
            _broken("C", f"turn {turn.number} had turn_id {self.turn_id!r}, and now {turn.turn_id!r}")
        if self.request_id not in (None, turn.request_id):  # a turn never spans connections
            _broken("C", f"turn {turn.number} had request_id {self.request_id!r}, and now {turn.request_id!r}")
        if turn.started_at != self.started:
            _broken("D", f"turn {turn.number} began at {self.started}, and now at {turn.started_at}")
        if turn.thoughts != self.thoughts:
            _broken("D", f"turn {turn.number} has {turn.thoughts} thoughts, its latest is {self.thoughts}")
        if text is None and turn.transcript != self.text:
            _broken("E", f"turn {turn.number} has {turn.transcript!r}, what was heard last is {self.text!r}")
        self.turn_id, self.request_id = turn.turn_id, turn.request_id

    def _hear(self, turn: Turn, delta: str | None, event: Event | None, text: str) -> None:
        now = turn.transcript
        if now != text or _blank(text):
            _broken("E", f"Hear of {now!r}, the server's text is {text!r}")
        if now == self.text:
            _broken("F", f"Hear of {now!r}, which is no change")
        if delta is None and now.startswith(self.text):
            _broken("F", f"{now!r} only adds to {self.text!r}, and the delta is None")
        if delta is not None and self.text + delta != now:
            _broken("F", f"{self.text!r} and the delta {delta!r} are not {now!r}")
        for name in ("turn_id", "request_id"):
            its, theirs = getattr(turn, name), getattr(event, name)
            if None not in (its, theirs) and its != theirs:  # so they do not revise it: they were another turn's
                _broken("I", f"the turn of {name} {its!r} takes the words of {theirs!r}")
        self.text = now

    def _think(self, turn: Turn, thought: int) -> None:
        if self.live is not None:
            _broken("B", f"thought {thought} begins while {self.live} is live")
        if thought <= self.thoughts or (self.thoughts == 0 and thought != 1):
            _broken("D", f"thought {thought} comes after thought {self.thoughts}")
        self.thoughts = thought
        self._seen(turn)
        if _blank(self.text):
            _broken("E", f"thought {thought} begins on blank text")
        self.live = thought

    def _respond(self, turn: Turn, thought: int) -> None:
        self._seen(turn, ends=ANSWERED)
        if _blank(self.text):
            _broken("E", f"turn {turn.number} is answered on blank text")
        if thought != self.live:
            _broken("A", f"Respond with thought {thought}, the live one is {self.live}")
        if self.reply is not None:  # else two replies would want the one Interrupt that the next turn gives
            _broken("H", f"turn {turn.number} is answered over the reply to turn {self.reply}")
        self.live, self.reply = None, turn.number

    def _close(self, turn: Turn) -> str:
        self._timed(turn.ended_at)
        text, self.text = self.text, ""
        self.open, self.turn_id, self.request_id, self.started, self.thoughts = False, None, None, None, 0
        return text

    def _timed(self, time: float | None) -> None:
        if time is not None:
            if self.time is not None and time < self.time:
                _broken("D", f"the time runs back from {self.time} to {time}")
            self.time = time


def check(trace: Iterable[tuple[Event | None, Iterable[Action]]], *, lawful: bool = False) -> None:
    """Raises AssertionError where a trace, each input with its actions, breaks a law: the law first, then the shortest
    prefix that breaks it, a line a step (the last ones of a long prefix). A trace may stop while a turn is open."""
    oracle, prefix = Oracle(lawful=lawful), list[tuple[Event | None, tuple[Action, ...]]]()
    for event, actions in trace:
        prefix.append((event, tuple(actions)))
        try:
            oracle.step(*prefix[-1])
        except AssertionError as broken:
            raise AssertionError(f"{broken}\n{_lines(prefix)}") from None


def shown(value: object) -> str:
    """An event, an action or a turn as one would write it: only the fields that say something."""
    if not isinstance(value, msgspec.Struct):
        return value.name if isinstance(value, EndReason) else repr(value)
    said = ((f.name, getattr(value, f.name), f.default) for f in fields(value))
    return f"{type(value).__name__}({', '.join(f'{name}={shown(v)}' for name, v, default in said if v != default)})"


def _lines(prefix: list[tuple[Event | None, tuple[Action, ...]]]) -> str:
    first = max(0, len(prefix) - SHOWN_STEPS)
    lines = [f"  … {first} steps before"] if first else []
    for i, (event, actions) in enumerate(prefix[first:], first + 1):
        lines.append(f"{i:>4}  {'a bad frame' if event is None else shown(event)}")
        lines += [f"        -> {shown(action)}" for action in actions]
    return "\n".join(lines)


def _blank(text: str) -> bool:
    return not text or text.isspace()


def _broken(letter: str, what: str) -> Never:
    raise AssertionError(f"law {letter}: {what}")
