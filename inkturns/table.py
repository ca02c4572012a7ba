"""The phases and the rows: the library.

Rules of this file:
- Everything that depends on the phase is a row. A guard asks and an effect acts; neither looks at the phase.
- The first row that passes wins. The phase changes first, then the effects run in the order in which they are named.
- A guard is an expression, an effect is a function of (state, event, out). Rows name them; `machine.py` refuses, at
  import, a name that does not exist. An effect's second word is a member of the enum in its signature.
- An effect has the name of the action that it emits; a guard reads as a yes-or-no question.
- Blank text (nothing but white space) changes nothing, and every guard reads it as the turn's own text.

To change what an input does, find its row by the first two columns: an update after an eager end is `UPDATE, EAGER`.
Two effects stand in `machine.py`, since they ask the table again: `again` takes the same event in the new phase,
`disconnect` does what Disconnected does.
CHOICE marks a comment where the code decides something that nothing else says; "law K" is in `testing/oracle.py`, F30
in `tests/README.md`.
"""

from collections.abc import Callable
from enum import StrEnum, auto

import attrs
from msgspec.structs import replace

from inkturns.actions import (
    Abandon,
    Action,
    Cancel,
    CancelReason,
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
from inkturns.errors import is_failure
from inkturns.events import (
    EndNow,
    Event,
    ReplyStarted,
    ServerEvent,
    Tick,
    TurnEagerEnd,
    TurnEnd,
    TurnUpdate,
    UsePolicy,
)
from inkturns.policy import AfterDisconnect, AfterResume, AfterStall, Policy, reduced  # noqa: F401 (guards name them)

__all__ = ["EFFECTS", "GUARDS", "ROWS", "TIMES", "TURN_TIMES", "Phase", "State", "deadline"]


class Phase(StrEnum):
    """Cartesia's own names."""

    IDLE = auto()  # nobody speaks
    SPEAKING = auto()  # a turn is open
    EAGER_ENDED = auto()  # a turn is open, and may be over


IDLE, SPEAKING, EAGER = ((phase,) for phase in Phase)
OPEN = SPEAKING + EAGER
ANY = IDLE + OPEN
SAME = ("=",)  # the phase stays

START, UPDATE, EAGER_END, RESUME, END = (
    (f"turn.{name}",) for name in ("start", "update", "eager_end", "resume", "end")
)
UNFINISHED = UPDATE + EAGER_END
TEXT = UNFINISHED + END
TURN = START + TEXT + RESUME
CONNECTED, DISCONNECTED, END_NOW, TICK = (("connected",), ("disconnected",), ("end_now",), ("tick",))
CONTEXT_CHANGED, THOUGHT_FAILED = (("context_changed",), ("thought_failed",))
REPLY_STARTED, REPLY_DONE, STOP_REPLY = (("reply_started",), ("reply_done",), ("stop_reply",))
USE_POLICY, ERROR, UNKNOWN = (("use_policy",), ("error",), ("unknown",))

# fmt: off
ROWS = (
    # on             in        to        where                        do
    # -- which connection is it? the first request_id seen is the connection's
    (TURN,            ANY,      SAME,     "unknown_connection, past_connection", "report FOREIGN"),
    (TURN,            ANY,      SAME,     "unknown_connection, has_connection", "disconnect, again"),
    (TURN,            ANY,      SAME,     "unknown_connection",        "remember_connection, again"),
    (CONNECTED,       ANY,      SAME,     "same_connection",           "report DUPLICATE_CONNECTED"),
    (CONNECTED,       ANY,      SAME,     "",                          "disconnect, remember_connection"),
    (DISCONNECTED,    IDLE,     SAME,     "",                          "forget_connection"),
    (DISCONNECTED,    OPEN,     IDLE,     "policy_abandons",           "abandon LOST, forget_connection"),
    (DISCONNECTED,    OPEN,     IDLE,     "has_no_text",               "abandon EMPTY, forget_connection"),
    (DISCONNECTED,    OPEN,     IDLE,     "",                          "respond LOST, forget_connection"),
    # -- which turn is it? one without a turn_id takes the first that comes
    (START,           IDLE,     SPEAKING, "",                          "open"),
    (START,           OPEN,     SAME,     "same_turn",                 "report DUPLICATE_START"),
    (START,           OPEN,     SPEAKING, "",                          "abandon SUPERSEDED, report MISSED_END, open"),
    (TEXT,            OPEN,     SAME,     "other_turn_id, of_closed_turn", "report LATE"),
    (TEXT,            OPEN,     IDLE,     "other_turn_id, turn_has_id", "abandon SUPERSEDED, report MISSED_END, again"),
    (TEXT,            OPEN,     SAME,     "other_turn_id",             "adopt_turn_id, again"),
    (RESUME,          EAGER,    SAME,     "other_turn_id, of_closed_turn", "report STRAY_RESUME"),
    (RESUME,          EAGER,    SAME,     "other_turn_id, turn_has_id", "report STRAY_RESUME"),
    (RESUME,          EAGER,    SAME,     "other_turn_id",             "adopt_turn_id, again"),
    # -- text while no turn is open: the rest of a closed turn, or a turn whose start was missed
    (UNFINISHED,      IDLE,     SAME,     "echo",                      ""),
    (END,             IDLE,     SAME,     "echo",                      "settle_owed"),
    (UNFINISHED,      IDLE,     SAME,     "late",                      "report LATE"),
    (END,             IDLE,     SAME,     "late",                      "report LATE, settle_owed"),
    (UPDATE,          IDLE,     SAME,     "blank",                     ""),
    (EAGER_END + END, IDLE,     SAME,     "blank",                     "report MISSED_START"),
    (TEXT,            IDLE,     SPEAKING, "continues_owed",            "open, again"),
    (TEXT,            IDLE,     SPEAKING, "",                          "report MISSED_START, open, again"),
    # -- an update of the open turn
    (UPDATE,          SPEAKING, SAME,     "thinking, same_text",       ""),
    (UPDATE,          SPEAKING, SAME,     "thinking, !matches",        "cancel MOVED, hear"),
    (UPDATE,          SPEAKING, SAME,     "",                          "hear"),
    (UPDATE,          EAGER,    SAME,     "same_text",                 ""),
    (UPDATE,          EAGER,    SAME,     "thinking, matches",         "hear"),
    (UPDATE,          EAGER,    SAME,     "",                          "cancel MOVED, hear"),
    # -- its eager end
    (EAGER_END,       SPEAKING, EAGER,    "thinking, matches",         "hear, start_wait"),
    (EAGER_END,       SPEAKING, EAGER,    "",                          "cancel MOVED, hear, start_wait, think"),
    (EAGER_END,       EAGER,    SAME,     "thinking, same_text",       ""),
    (EAGER_END,       EAGER,    SAME,     "thinking, matches",         "hear"),
    (EAGER_END,       EAGER,    SAME,     "",                          "cancel SUPERSEDED, hear, start_wait, think"),
    # -- its resume
    (RESUME,          IDLE,     SAME,     "owed",                      ""),
    (RESUME,          IDLE,     SAME,     "",                          "report STRAY_RESUME"),
    (RESUME,          SPEAKING, SAME,     "turn_continues",            ""),
    (RESUME,          SPEAKING, SAME,     "",                          "report STRAY_RESUME"),
    (RESUME,          EAGER,    SPEAKING, "policy_keeps",              "resume"),
    (RESUME,          EAGER,    SPEAKING, "",                          "resume, cancel RESUMED"),
    # -- its end
    (END,             OPEN,     IDLE,     "has_no_text",               "abandon EMPTY"),
    (END,             OPEN,     IDLE,     "blank, backchannel",        "report BLANK_END, abandon BACKCHANNEL"),
    (END,             OPEN,     IDLE,     "blank",                     "report BLANK_END, respond SERVER"),
    (END,             OPEN,     IDLE,     "backchannel",               "hear, abandon BACKCHANNEL"),
    (END,             OPEN,     IDLE,     "",                          "respond SERVER"),
    (END_NOW,         IDLE,     SAME,     "",                          ""),
    (END_NOW,         OPEN,     IDLE,     "has_no_text",               "abandon EMPTY"),
    (END_NOW,         OPEN,     IDLE,     "",                          "respond FORCED"),
    # -- time has passed: a Tick does one thing
    (TICK,            EAGER,    SAME,     "think_due",                 "stop_waiting, think"),
    (TICK,            OPEN,     IDLE,     "stall_due, policy_ends, has_no_text", "stall, abandon EMPTY"),
    (TICK,            OPEN,     IDLE,     "stall_due, policy_ends",    "stall, respond STALLED"),
    (TICK,            OPEN,     SAME,     "stall_due",                 "stall"),
    (TICK,            ANY,      SAME,     "",                          ""),
    # -- the thought
    (CONTEXT_CHANGED, EAGER,    SAME,     "thinking",                  "cancel CONTEXT_CHANGED, think"),
    (CONTEXT_CHANGED, ANY,      SAME,     "",                          "cancel CONTEXT_CHANGED"),
    (THOUGHT_FAILED,  OPEN,     SAME,     "its_thought",               "cancel FAILED"),
    (THOUGHT_FAILED,  ANY,      SAME,     "",                          ""),
    # -- the reply in flight
    (REPLY_STARTED,   ANY,      SAME,     "its_reply",                 "reply_audible"),
    (REPLY_STARTED,   ANY,      SAME,     "own_speech",                "reply_audible"),
    (REPLY_STARTED,   ANY,      SAME,     "",                          ""),
    (REPLY_DONE,      EAGER,    SAME,     "its_reply",                 "reply_over, think"),
    (REPLY_DONE,      ANY,      SAME,     "its_reply",                 "reply_over"),
    (REPLY_DONE,      ANY,      SAME,     "",                          ""),
    (STOP_REPLY,      EAGER,    SAME,     "replying",                  "interrupt, think"),
    (STOP_REPLY,      ANY,      SAME,     "replying",                  "interrupt"),
    (STOP_REPLY,      ANY,      SAME,     "",                          ""),
    # -- the rest
    (USE_POLICY,      ANY,      SAME,     "",                          "use_policy"),
    (ERROR,           ANY,      SAME,     "",                          "report SERVER_ERROR"),
    (UNKNOWN,         ANY,      SAME,     "",                          "report UNKNOWN_TYPE"),
)
# fmt: on


@attrs.define(eq=False, weakref_slot=False)
class State:
    """All that a machine knows. A turn's part of it is built at its opening, never patched (F15)."""

    policy: Policy
    phase: Phase = Phase.IDLE
    number: int = 0  # of the latest turn
    turn: Turn | None = None  # the open one: rows for an open turn find one
    thinking: int | None = None  # the live thought's number; WAITS: its thought waits for `think_after`
    thought_text: str = ""  # what the live thought was begun on, or waits with
    eager_text: str = ""  # the text of the eager end from which `think_after` counts
    eager_at: float | None = None  # and its time; None: no time was given, or there is no such eager end
    reply: int | None = None  # the turn whose reply is in flight; 0: the application's own speech
    audible: bool = False  # whether that reply is heard by now
    began_in: int = 0  # `number` when the application's own speech began
    closed: tuple[Turn, ...] = ()  # the last turns of this connection, the latest at the end
    owed: bool = False  # the application closed the last of them, and the server has not ended it yet
    request_id: str | None = None  # the connection's
    earlier: tuple[str, ...] = ()  # the request_ids of earlier connections
    now: float | None = None  # the last time seen
    progress: float | None = None  # when the turn last moved; None: no time was given, or it has stalled


# The times of a State and of the turns in it: a snapshot says them as ages.
TIMES = ("eager_at", "now", "progress")
TURN_TIMES = ("started_at", "ended_at")

WAITS = 0  # thoughts count from 1
CLOSED_TURNS = 8  # that are remembered
EARLIER_CONNECTIONS = 64  # that are remembered


# A guard is an expression over the state `s`, the event `e` and the actions so far, `out`. It is put into its cell as
# it stands, because a call for each guard would cost more than all the rest.
GUARDS = {
    # -- which connection, which turn
    "unknown_connection": "e.request_id is not None and e.request_id != s.request_id",
    "past_connection": "e.request_id in s.earlier",
    "has_connection": "s.request_id is not None",
    "same_connection": "e.request_id is not None and e.request_id == s.request_id",
    "same_turn": "e.turn_id == s.turn.turn_id and (e.turn_id is not None or not s.turn.transcript)",
    "other_turn_id": "e.turn_id is not None and e.turn_id != s.turn.turn_id",
    "of_closed_turn": "closed_turn(s, e) is not None",
    "turn_has_id": "s.turn.turn_id is not None",
    "turn_continues": "s.turn.continues is not None",
    # -- after a turn was closed
    "owed": "s.owed",
    "echo": "is_echo(s, e)",
    "late": "is_late(s, e)",
    "continues_owed": "owed_turn(s, e) is not None and continued(s, e) is not None",
    # -- the text, the thought, the reply
    "blank": "is_blank(e.transcript)",
    "has_no_text": "not s.turn.transcript and is_blank(text(s, e))",  # neither now nor before (F07)
    "same_text": "e.transcript == s.turn.transcript or is_blank(e.transcript)",
    "thinking": "s.thinking is not None",  # live or waiting; in SPEAKING only a kept thought can be
    "matches": "policy_says(s, e, out, 'match', s.thought_text, text(s, e))",
    "its_thought": "s.thinking and e.thought == s.thinking and e.number == s.number",
    "replying": "s.reply is not None",
    "its_reply": "s.reply is not None and e.number in (None, s.reply)",  # a late one of another changes nothing (F42)
    "own_speech": "s.reply is None and e.number == 0",
    "backchannel": "s.reply is not None and is_backchannel(s, e, out)",
    # -- the policy, the clock
    "policy_keeps": "s.thinking and s.policy.after_resume is AfterResume.KEEP",  # a thought that waits is not kept
    "policy_abandons": "s.policy.after_disconnect is AfterDisconnect.ABANDON",
    "policy_ends": "s.policy.after_stall is AfterStall.END",
    "think_due": "s.thinking == WAITS and think_is_due(s)",
    "stall_due": "stall_is_due(s)",
}


# -- effects: functions of the state, the event, the actions so far and, for some, the word that follows in the row

Out = list[Action]
Effect = Callable[..., object]
Text = TurnUpdate | TurnEagerEnd | TurnEnd


def remember_connection(s: State, e: ServerEvent, out: Out) -> None:
    s.request_id = e.request_id
    if s.turn is not None:
        s.turn = replace(s.turn, request_id=e.request_id)


def forget_connection(s: State, e: Event, out: Out) -> None:
    """The connection is an earlier one now. CHOICE: what it says after Disconnected is FOREIGN too, until it announces
    itself again."""
    if s.request_id is not None:
        others = [request_id for request_id in s.earlier if request_id != s.request_id]
        s.earlier = (*others[1 - EARLIER_CONNECTIONS :], s.request_id)
    s.request_id = None
    s.closed = ()
    s.owed = False


def open(s: State, e: ServerEvent, out: Out) -> None:
    may_go_on = s.audible and s.policy.interrupts is not None  # then the words decide
    cut = None if may_go_on else s.reply
    before = continued(s, e) if s.closed else None
    s.number += 1
    s.owed = False
    s.progress = s.now
    s.turn = Turn(
        s.number,
        turn_id=e.turn_id,
        request_id=s.request_id,
        started_at=s.now,
        continues=None if before is None else before.number,
        interrupted=cut,
    )
    out.append(Listen(s.turn))
    if cut is not None:
        interrupt(s, e, out)


def adopt_turn_id(s: State, e: ServerEvent, out: Out) -> None:
    s.turn = replace(opened(s), turn_id=e.turn_id)


def hear(s: State, e: Text, out: Out) -> None:
    """The turn's text becomes the event's. Emits Hear where that changes it, and Interrupt where the words stop the
    reply (law K)."""
    turn = s.turn
    assert turn is not None
    old, said = turn.transcript, e.transcript
    delta: str | None = said.removeprefix(old)
    if not delta:
        return
    if len(delta) == len(said):  # nothing to add to, or another text
        if said.isspace():
            return
        delta = None if old else said
    s.turn = turn = replace(turn, transcript=said)
    s.progress = s.now
    out.append(Hear(turn, delta))
    if s.reply is not None and type(e) is not TurnEnd and not may_go_on(s, e, out, turn):  # at the end, rows decide
        cut_off(s, e, out)


def start_wait(s: State, e: Event, out: Out) -> None:
    """The wait counts from the first eager end with these words. Other words, or a resume, start it again."""
    text = opened(s).transcript
    if s.eager_at is None or text != s.eager_text:  # the words of an eager end may be blank
        s.eager_text, s.eager_at = text, s.now


def stop_waiting(s: State, e: Event, out: Out) -> None:
    s.thinking = None


def think(s: State, e: Event, out: Out) -> None:
    """Begins a speculative thought, at once or after `think_after`, where there is text, the policy allows it, no
    thought is live, and no reply is in flight (F19)."""
    turn = opened(s)
    if s.thinking is not None or s.reply is not None or not turn.transcript or not may_speculate(s, e, out):
        return
    if think_is_due(s):
        begin(s, out, speculative=True)
    else:
        s.thinking, s.thought_text = WAITS, turn.transcript


def cancel(s: State, e: Event, out: Out, reason: CancelReason) -> None:
    """Emits no Cancel for a thought that still waits: it never began."""
    if s.thinking:
        out.append(Cancel(opened(s), s.thinking, reason))
    s.thinking = None
    if reason is CancelReason.MOVED:
        s.eager_text = ""  # the next eager end starts a wait, also where the words of the last one come back


def resume(s: State, e: Event, out: Out) -> None:
    """Emits Resume, and Interrupt where that stops the reply (law K)."""
    turn = opened(s)
    s.progress = s.now  # F32
    s.eager_text, s.eager_at = "", None
    out.append(Resume(turn))
    if s.reply is not None and not may_go_on(s, e, out, turn):
        cut_off(s, e, out)


def stall(s: State, e: Event, out: Out) -> None:
    s.progress = None
    out.append(Stall(opened(s)))


def respond(s: State, e: Event, out: Out, end: EndReason) -> None:
    """Emits Respond with the live thought where it matches, else with one that begins now, in the same tuple."""
    if s.thinking == WAITS or (s.thinking and not policy_says(s, e, out, "match", s.thought_text, text(s, e))):
        cancel(s, e, out, CancelReason.MISMATCHED)
    if type(e) is TurnEnd:
        hear(s, e, out)
    if s.reply is not None:
        cut_off(s, e, out)
    thought = s.thinking or begin(s, out, speculative=False)
    turn = close(s, e, end)
    s.reply, s.audible = turn.number, False
    out.append(Respond(turn, thought))


def abandon(s: State, e: Event, out: Out, end: EndReason) -> None:
    if s.thinking is not None:
        cancel(s, e, out, CancelReason(end))
    out.append(Abandon(close(s, e, end)))


def settle_owed(s: State, e: Text, out: Out) -> None:
    """The server has ended the turn that the application closed."""
    if owed_turn(s, e) is not None:
        s.owed = False


def reply_audible(s: State, e: ReplyStarted, out: Out) -> None:
    if s.reply is None:
        s.began_in = s.number
    s.reply, s.audible = e.number, True


def reply_over(s: State, e: Event, out: Out) -> None:
    s.reply = None


def interrupt(s: State, e: Event, out: Out) -> None:
    assert s.reply is not None
    out.append(Interrupt(s.reply))
    s.reply = None


def use_policy(s: State, e: UsePolicy, out: Out) -> None:
    s.policy = e.policy


def report(s: State, e: Event, out: Out, kind: ReportKind) -> None:
    out.append(Report(kind, e, DETAILS[kind]))


EFFECTS: dict[str, Effect] = {
    effect.__name__: effect
    for effect in (
        *(remember_connection, forget_connection, open, adopt_turn_id, hear, start_wait, stop_waiting, think, cancel),
        *(resume, stall, respond, abandon, settle_owed, reply_audible, reply_over, interrupt, use_policy, report),
    )
}

DETAILS = {
    ReportKind.UNKNOWN_TYPE: "an event of an unknown type; ignored",
    ReportKind.SERVER_ERROR: "the server sent an error",
    ReportKind.LATE: "text of a turn that is closed, which adds nothing to it; ignored",
    ReportKind.FOREIGN: "an event of an earlier connection; ignored",
    ReportKind.MISSED_START: "an event of a turn that never started; taken as its start where it has text",
    ReportKind.MISSED_END: "the next turn began before this one ended; this one was closed with its text",
    ReportKind.DUPLICATE_START: "a second start of the open turn; ignored",
    ReportKind.DUPLICATE_CONNECTED: "the same connection was announced twice; ignored",
    ReportKind.STRAY_RESUME: "a resume without an eager end of its turn; ignored",
    ReportKind.BLANK_END: "an end without text after updates with text; their text is used",
}


# -- what guards and effects are made of


def opened(s: State) -> Turn:
    """The open turn, in rows that find one."""
    assert s.turn is not None
    return s.turn


def is_blank(text: str) -> bool:
    return not text or text.isspace()


def text(s: State, e: Event) -> str:
    """The event's text; where it is blank or has none, the turn's own."""
    said: str = getattr(e, "transcript", "")
    return opened(s).transcript if not said or said.isspace() else said


def closed_turn(s: State, e: ServerEvent) -> Turn | None:
    """The closed turn that the event belongs to: the one with its turn_id; where neither the event nor the last closed
    turn has one, that turn, unless the text is blank."""
    if e.turn_id is not None:
        return next((turn for turn in reversed(s.closed) if turn.turn_id == e.turn_id), None)
    if s.closed and s.closed[-1].turn_id is None and not is_blank(getattr(e, "transcript", "")):
        return s.closed[-1]
    return None


def owed_turn(s: State, e: Text) -> Turn | None:
    """The turn that the server has yet to end, where the event belongs to it. Blank text without a turn_id does."""
    if not s.owed:
        return None
    turn = s.closed[-1]
    return turn if e.turn_id == turn.turn_id or (e.turn_id is None and is_blank(e.transcript)) else None


def begins_with(text: str, beginning: str) -> bool:
    """`beginning` has the same words as `text`, or as its beginning."""
    return text.startswith(beginning) or reduced(text).startswith(reduced(beginning))


def is_echo(s: State, e: Text) -> bool:
    """The server still sends a turn that the application closed, and adds nothing to its words (F47).
    CHOICE: text without a letter or digit is an echo of an EMPTY turn; there is nothing to answer in it."""
    turn = owed_turn(s, e)
    return turn is not None and (is_blank(e.transcript) or begins_with(turn.transcript, e.transcript))


def is_late(s: State, e: Text) -> bool:
    """It belongs to a closed turn and adds nothing to its words (F06, F30)."""
    turn = closed_turn(s, e)
    if turn is None or continued(s, e) is not None:
        return False
    return e.turn_id is not None or begins_with(turn.transcript, e.transcript)


def continued(s: State, e: ServerEvent) -> Turn | None:
    """The closed turn that the event's words add to. An owed turn is continued by a revised text with more words
    too."""
    said: str = getattr(e, "transcript", "")  # a start has none
    turn = None if is_blank(said) else closed_turn(s, e)
    if turn is None or turn.end is EndReason.EMPTY:
        return turn
    now, before = reduced(said), reduced(turn.transcript)
    if now.startswith(before):
        return turn if len(now) > len(before) else None
    return turn if s.owed and turn is s.closed[-1] and len(now.split()) > len(before.split()) else None


def may_go_on(s: State, e: Event, out: Out, turn: Turn) -> bool:
    """The reply in flight is audible, and the policy says that the turn's words do not stop it (F36)."""
    return s.audible and s.policy.interrupts is not None and not policy_says(s, e, out, "interrupts", turn)


def is_backchannel(s: State, e: TurnEnd, out: Out) -> bool:
    """The turn was said over a reply that goes on. Where that reply began in the turn (a re-prompt), the turn may be
    the answer to it, and is no backchannel."""
    if s.began_in == s.number:
        return False
    return may_go_on(s, e, out, replace(opened(s), transcript=text(s, e)))


def may_speculate(s: State, e: Event, out: Out) -> bool:
    policy, turn = s.policy, opened(s)
    if policy.max_thoughts is not None and turn.latest_thought >= policy.max_thoughts:
        return False
    return policy.speculate if isinstance(policy.speculate, bool) else policy_says(s, e, out, "speculate", turn)


def policy_says(s: State, e: Event, out: Out, name: str, *given: str | Turn) -> bool:
    try:
        return bool(getattr(s.policy, name)(*given))
    except BaseException as error:  # the user's function; the machine is total (law G)
        if not is_failure(error):
            raise
        answer = name == "interrupts"  # the user has the floor
        detail = f"Policy.{name} raised {type(error).__name__}; taken as {answer}"
        out.append(Report(ReportKind.POLICY_ERROR, e, detail))
        return answer


def begin(s: State, out: Out, *, speculative: bool) -> int:
    turn = opened(s)
    thought = turn.latest_thought + 1
    s.turn = turn = replace(turn, latest_thought=thought)
    s.thinking, s.thought_text = thought, turn.transcript
    out.append(Think(turn, thought, speculative))
    return thought


def cut_off(s: State, e: Event, out: Out) -> None:
    """The open turn interrupts the reply."""
    s.turn = replace(opened(s), interrupted=s.reply)
    interrupt(s, e, out)


def close(s: State, e: Event, end: EndReason) -> Turn:
    turn = replace(opened(s), end=end, ended_at=s.now)
    s.turn = s.thinking = s.progress = s.eager_at = None
    s.thought_text = s.eager_text = ""
    s.closed = (*s.closed[1 - CLOSED_TURNS :], turn)
    s.owed = type(e) in (EndNow, Tick)
    return turn


def think_at(s: State) -> float | None:
    """When `think_after` is over; None: no time was given, and nothing is waited for."""
    return None if s.eager_at is None else s.eager_at + s.policy.think_after


def stall_at(s: State) -> float | None:
    if s.progress is None or s.policy.stall_timeout is None:
        return None
    return s.progress + s.policy.stall_timeout


def think_is_due(s: State) -> bool:
    at = think_at(s)
    return at is None or (s.now is not None and s.now >= at)


def stall_is_due(s: State) -> bool:
    at = stall_at(s)
    return at is not None and s.now is not None and s.now >= at


def deadline(s: State) -> float | None:
    """When a Tick is due, derived from the state: it cannot outlive what it guards (F08)."""
    if s.policy.stall_timeout is None and s.thinking != WAITS:  # most of the time
        return None
    ends, thinks = stall_at(s), think_at(s) if s.thinking == WAITS else None
    return thinks if ends is None else ends if thinks is None else min(ends, thinks)
