"""The phases and the rows: the library.

Rules of this file:
- Everything that depends on the phase is a row. A guard reads and an effect does; neither knows the phase.
- The first row that passes wins. The phase changes first, then the effects run in the order in which they are named.
- A guard is an expression, an effect a function of (state, event, out). Rows name them, and `machine.py` refuses at
  import a name that does not exist. An effect's second word is a member of the enum in its signature.
- Blank text (nothing but white space) changes nothing, and every guard reads it as the turn's own.

Where the design leaves a choice, the comment beside the code that makes it says CHOICE.
"""

from collections.abc import Callable
from enum import StrEnum, auto
from typing import Any

from msgspec import Struct, field
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
from inkturns.events import TurnEnd
from inkturns.policy import OnLost, OnResume, OnStall, Policy  # noqa: F401 (guards name them)

__all__ = ["EFFECTS", "GUARDS", "ROWS", "Phase", "State"]


class Phase(StrEnum):
    """Cartesia's own names."""

    IDLE = auto()  # nobody speaks
    SPEAKING = auto()  # a turn is open
    EAGER_ENDED = auto()  # a turn is open, and may be over


IDLE, SPEAKING, EAGER = ((phase,) for phase in Phase)
OPEN = SPEAKING + EAGER
ANY = IDLE + OPEN
SAME = ("=",)

START, UPDATE, EAGER_END, RESUME, END = (
    (f"turn.{name}",) for name in ("start", "update", "eager_end", "resume", "end")
)
TEXT = UPDATE + EAGER_END + END
TURN = START + TEXT + RESUME

# fmt: off
ROWS = (
    # on                    in        to        where                    do
    # -- which connection is it? the first request_id seen is the connection's
    (TURN,                  ANY,      SAME,     "stranger, foreign",     "report FOREIGN"),
    (TURN,                  ANY,      SAME,     "stranger, connected",   "disconnect, again"),
    (TURN,                  ANY,      SAME,     "stranger",              "remember, again"),
    (("connected",),        ANY,      SAME,     "repeated",              "report DUPLICATE_CONNECTED"),
    (("connected",),        ANY,      SAME,     "",                      "disconnect, remember"),
    (("disconnected",),     IDLE,     SAME,     "",                      "forget"),
    (("disconnected",),     OPEN,     IDLE,     "abandons",              "lose LOST, forget"),
    (("disconnected",),     OPEN,     IDLE,     "silent",                "lose EMPTY, forget"),
    (("disconnected",),     OPEN,     IDLE,     "",                      "answer LOST, forget"),
    # -- which turn is it? one without a turn_id takes the first that comes
    (START,                 IDLE,     SPEAKING, "",                      "open"),
    (START,                 OPEN,     SAME,     "same",                  "report DUPLICATE_START"),
    (START,                 OPEN,     SPEAKING, "",                      "lose SUPERSEDED, report MISSED_END, open"),
    (TEXT,                  OPEN,     SAME,     "elsewhere, closed",     "report LATE"),
    (TEXT,                  OPEN,     IDLE,     "elsewhere, other",      "lose SUPERSEDED, report MISSED_END, again"),
    (TEXT,                  OPEN,     SAME,     "elsewhere",             "take, again"),
    (RESUME,                EAGER,    SAME,     "elsewhere, closed",     "report STRAY_RESUME"),
    (RESUME,                EAGER,    SAME,     "elsewhere, other",      "report STRAY_RESUME"),
    (RESUME,                EAGER,    SAME,     "elsewhere",             "take, again"),
    # -- words with no turn open
    (TEXT,                  IDLE,     SAME,     "late",                  "report LATE"),
    (UPDATE,                IDLE,     SAME,     "blank",                 ""),
    (EAGER_END + END,       IDLE,     SAME,     "blank",                 "report MISSED_START"),
    (TEXT,                  IDLE,     SPEAKING, "goes_on",               "open, again"),
    (TEXT,                  IDLE,     SPEAKING, "",                      "report MISSED_START, open, again"),
    # -- words of the open turn
    (UPDATE,                SPEAKING, SAME,     "thinking, identical",   "hear"),
    (UPDATE,                SPEAKING, SAME,     "thinking, !matches",    "drop MOVED, hear"),
    (UPDATE,                SPEAKING, SAME,     "",                      "hear"),
    (UPDATE,                EAGER,    SAME,     "identical",             "hear"),
    (UPDATE,                EAGER,    SAME,     "thinking, matches",     "hear"),
    (UPDATE,                EAGER,    SAME,     "",                      "drop MOVED, hear"),
    (EAGER_END,             SPEAKING, EAGER,    "thinking, matches",     "hear"),
    (EAGER_END,             SPEAKING, EAGER,    "",                      "drop MOVED, hear, think"),
    (EAGER_END,             EAGER,    SAME,     "identical",             "hear, think"),
    (EAGER_END,             EAGER,    SAME,     "thinking, matches",     "hear, think"),
    (EAGER_END,             EAGER,    SAME,     "",                      "drop SUPERSEDED, hear, think"),
    (RESUME,                IDLE,     SAME,     "",                      "report STRAY_RESUME"),
    (RESUME,                SPEAKING, SAME,     "",                      "report STRAY_RESUME"),
    (RESUME,                EAGER,    SPEAKING, "keeps",                 "resume"),
    (RESUME,                EAGER,    SPEAKING, "",                      "resume, drop RESUMED"),
    # -- its end
    (END,                   OPEN,     IDLE,     "silent",                "lose EMPTY"),
    (END,                   OPEN,     IDLE,     "blank, backchannel",    "report BLANK_END, lose BACKCHANNEL"),
    (END,                   OPEN,     IDLE,     "blank",                 "report BLANK_END, answer SERVER"),
    (END,                   OPEN,     IDLE,     "backchannel",           "drop BACKCHANNEL, hear, lose BACKCHANNEL"),
    (END,                   OPEN,     IDLE,     "",                      "answer SERVER"),
    (("end_now",),          IDLE,     SAME,     "",                      ""),
    (("end_now",),          OPEN,     IDLE,     "silent",                "lose EMPTY"),
    (("end_now",),          OPEN,     IDLE,     "",                      "answer FORCED"),
    (("tick",),             OPEN,     IDLE,     "due, ends, silent",     "stall, lose EMPTY"),
    (("tick",),             OPEN,     IDLE,     "due, ends",             "stall, answer STALLED"),
    (("tick",),             OPEN,     SAME,     "due",                   "stall"),
    (("tick",),             ANY,      SAME,     "",                      ""),
    # -- its thought
    (("context_changed",),  EAGER,    SAME,     "thinking",              "drop CONTEXT_CHANGED, think"),
    (("context_changed",),  ANY,      SAME,     "",                      "drop CONTEXT_CHANGED"),
    (("thought_failed",),   OPEN,     SAME,     "its_thought",           "drop FAILED"),
    (("thought_failed",),   ANY,      SAME,     "",                      ""),
    # -- the reply in flight, and the rest
    (("reply_started",),    ANY,      SAME,     "its_reply",             "sound"),
    (("reply_started",),    ANY,      SAME,     "unasked",               "sound"),
    (("reply_started",),    ANY,      SAME,     "",                      ""),
    (("reply_done",),       ANY,      SAME,     "its_reply",             "fall_silent"),
    (("reply_done",),       ANY,      SAME,     "",                      ""),
    (("stop_reply",),       ANY,      SAME,     "replying",              "interrupt"),
    (("stop_reply",),       ANY,      SAME,     "",                      ""),
    (("use_policy",),       ANY,      SAME,     "",                      "adopt"),
    (("error",),            ANY,      SAME,     "",                      "report SERVER_ERROR"),
    (("unknown",),          ANY,      SAME,     "",                      "report UNKNOWN_TYPE"),
)
# fmt: on


class State(Struct):
    """All that a machine knows. A turn's part of it is built at its opening, never patched (F15)."""

    policy: Policy
    phase: Phase = Phase.IDLE
    number: int = 0  # of the latest turn
    turn: Any = None  # the open Turn, or None: rows for an open turn find one
    thinking: int | None = None  # the live thought's number
    thought_text: str = ""  # what it was begun on
    reply: int | None = None  # whose reply is in flight; 0: the application's own speech
    audible: bool = False  # whether it can be heard by now
    closed: tuple[Turn, ...] = ()  # the last eight of this connection
    request_id: str | None = None  # the connection's
    earlier: dict[str, None] = field(default_factory=dict)  # the request_ids of earlier connections
    now: float | None = None  # the last time seen
    progress: float | None = None  # when the turn last moved; None: no time was given, or it has stalled


# A guard is an expression over the state `s`, the event `e` and what goes `out`, put into its cell as it stands: a call
# for each would cost more than all the rest.
GUARDS = {
    # -- which connection, which turn
    "stranger": "e.request_id is not None and e.request_id != s.request_id",  # not the connection that we know
    "foreign": "e.request_id in s.earlier",
    "connected": "s.request_id is not None",
    "repeated": "e.request_id is not None and e.request_id == s.request_id",
    "same": "s.turn.turn_id == e.turn_id and (e.turn_id is not None or not s.turn.transcript)",
    "elsewhere": "e.turn_id is not None and e.turn_id != s.turn.turn_id",  # not the turn that is open
    "closed": "belongs_to(s, e) is not None",
    "other": "s.turn.turn_id is not None",
    "late": "is_late(s, e)",
    "goes_on": "(turn := continued(s, e)) is not None and turn.end not in BY_SERVER",
    # -- the text, the thought, the reply
    "blank": "is_blank(e.transcript)",
    "silent": "is_blank(text(s, e))",  # no text, now or before (F07)
    "identical": "text(s, e) == s.turn.transcript",
    "thinking": "s.thinking is not None",  # in SPEAKING only a kept thought can be live
    "matches": "policy_says(s, e, out, 'match', s.thought_text, text(s, e))",
    "its_thought": "e.thought == s.thinking and e.number == s.number",
    "replying": "s.reply is not None",
    "its_reply": "s.reply is not None and e.number in (None, s.reply)",  # a late one of another changes nothing (F42)
    "unasked": "s.reply is None and e.number == 0",
    "backchannel": "may_wait(s) and not policy_says(s, e, out, 'interrupts', text(s, e))",  # F36: over a reply alone
    # -- the policy, the clock
    "keeps": "s.policy.on_resume is OnResume.KEEP",
    "abandons": "s.policy.on_lost is OnLost.ABANDON",
    "ends": "s.policy.on_stall is OnStall.END",
    "due": "is_due(s)",
}


# -- effects: functions of the state, the event, what goes out and, for some, the word that follows in the row

Out = list[Action]
Effect = Callable[..., object]


def remember(s: State, e: Any, out: Out) -> None:
    s.request_id = e.request_id
    if s.turn is not None:
        s.turn = replace(s.turn, request_id=e.request_id)


def forget(s: State, e: Any, out: Out) -> None:
    """The connection is one of the earlier. CHOICE: so are its frames that come after Disconnected, unless it announces
    itself again."""
    if s.request_id is not None:
        s.earlier[s.request_id] = None
    s.request_id = None
    s.closed = ()


def open(s: State, e: Any, out: Out) -> None:
    s.number += 1
    cut = None if may_wait(s) else s.reply
    before = continued(s, e)
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


def take(s: State, e: Any, out: Out) -> None:
    s.turn = replace(s.turn, turn_id=e.turn_id)


def hear(s: State, e: Any, out: Out) -> None:
    """The text becomes the event's, and Hear where that changed it, and the Interrupt that the words earn."""
    old = s.turn.transcript
    said = e.transcript
    delta = said.removeprefix(old)
    if not delta:
        return
    if len(delta) == len(said):  # not what was there, and more
        if said.isspace():
            return
        delta = None if old else said
    s.turn = turn = replace(s.turn, transcript=said)
    s.progress = s.now
    out.append(Hear(turn, delta))
    if s.reply is None or type(e) is TurnEnd:  # at its end the rows decide
        return
    if may_wait(s) and policy_says(s, e, out, "interrupts", said):
        cut_off(s, e, out)


def resume(s: State, e: Any, out: Out) -> None:
    s.progress = s.now  # F32
    out.append(Resume(s.turn))


def stall(s: State, e: Any, out: Out) -> None:
    s.progress = None
    out.append(Stall(s.turn))


def answer(s: State, e: Any, out: Out, end: EndReason) -> None:
    """Respond with the live thought where it matches, else with one begun now, in the same tuple."""
    if s.thinking is not None and not policy_says(s, e, out, "match", s.thought_text, text(s, e)):
        drop(s, e, out, CancelReason.MISMATCHED)
    if type(e) is TurnEnd:
        hear(s, e, out)
    if s.reply is not None:
        cut_off(s, e, out)
    if s.thinking is None:
        begin(s, out, speculative=False)
    thought: Any = s.thinking
    s.thinking = None
    turn = close(s, end)
    s.reply, s.audible = turn.number, False
    out.append(Respond(turn, thought))


def lose(s: State, e: Any, out: Out, end: EndReason) -> None:
    if s.thinking is not None:
        drop(s, e, out, CancelReason(end))
    # A turn in which nothing was said may get its words yet, unless the server itself has ended it.
    out.append(Abandon(close(s, end, remembered=end is not EndReason.EMPTY or type(e) is TurnEnd)))


def think(s: State, e: Any, out: Out) -> None:
    """Begin a thought, where the policy allows, the text is not blank, none is live and no reply is in flight (F19)."""
    policy, turn = s.policy, s.turn
    if (
        policy.speculate
        and s.thinking is None
        and s.reply is None
        and turn.transcript
        and (policy.max_thoughts is None or turn.thoughts < policy.max_thoughts)
        and (not policy.min_words or len(turn.transcript.split()) >= policy.min_words)
    ):
        begin(s, out, speculative=True)


def drop(s: State, e: Any, out: Out, reason: CancelReason) -> None:
    if s.thinking is not None:
        out.append(Cancel(s.turn, s.thinking, reason))
        s.thinking = None


def sound(s: State, e: Any, out: Out) -> None:
    s.reply, s.audible = e.number, True


def fall_silent(s: State, e: Any, out: Out) -> None:
    s.reply = None


def interrupt(s: State, e: Any, out: Out) -> None:
    number: Any = s.reply
    out.append(Interrupt(number))
    s.reply = None


def adopt(s: State, e: Any, out: Out) -> None:
    s.policy = e.policy


def report(s: State, e: Any, out: Out, kind: ReportKind) -> None:
    out.append(Report(kind, e, DETAILS[kind]))


EFFECTS: dict[str, Effect] = {
    effect.__name__: effect
    for effect in (
        *(remember, forget, open, take, hear, resume, stall, answer, lose),
        *(think, drop, sound, fall_silent, interrupt, adopt, report),
    )
}

DETAILS = {
    ReportKind.UNKNOWN_TYPE: "a type that is not known; passed over",
    ReportKind.SERVER_ERROR: "the server sent an error",
    ReportKind.LATE: "of a turn that is closed, and adds nothing to it",
    ReportKind.FOREIGN: "of an earlier connection; passed over",
    ReportKind.MISSED_START: "of a turn that never started; taken as its start where it has words",
    ReportKind.MISSED_END: "the next turn began and this one had not ended; closed, with its words",
    ReportKind.DUPLICATE_START: "a start of the turn that is open",
    ReportKind.DUPLICATE_CONNECTED: "the connection was announced before",
    ReportKind.STRAY_RESUME: "a resume after no eager end of its turn",
    ReportKind.BLANK_END: "an end without text, though text came before; that text is answered",
}


# -- what guards and effects are made of

BY_SERVER = (EndReason.SERVER, EndReason.EMPTY, EndReason.BACKCHANNEL)  # `lose` remembers no other EMPTY
REMEMBERED = 8  # closed turns


def is_blank(text: str) -> bool:
    return not text or text.isspace()


def text(s: State, e: Any) -> str:
    """The event's text, or where it is blank or has none, the turn's own."""
    said: str = getattr(e, "transcript", "")
    return s.turn.transcript if not said or said.isspace() else said


def extends(text: str, earlier: str) -> bool:
    return len(text) > len(earlier) and text.startswith(earlier) and not text.isspace()


def belongs_to(s: State, e: Any) -> Turn | None:
    """The closed turn that the event belongs to: by turn_id one of the last eight; with none, the last, if it has none
    either and the event has words."""
    if e.turn_id is not None:
        return next((turn for turn in reversed(s.closed) if turn.turn_id == e.turn_id), None)
    if s.closed and s.closed[-1].turn_id is None and not is_blank(e.transcript):
        return s.closed[-1]
    return None


def is_late(s: State, e: Any) -> bool:
    """It belongs to a closed turn and does not go on from it (F06, F30)."""
    turn = belongs_to(s, e)
    if turn is None or extends(e.transcript, turn.transcript):
        return False
    return e.turn_id is not None or turn.transcript.startswith(e.transcript)


def continued(s: State, e: Any) -> Turn | None:
    """The closed turn whose words the event's go on from."""
    said = getattr(e, "transcript", "")  # a start has none
    turn = None if is_blank(said) else belongs_to(s, e)
    return turn if turn is not None and extends(said, turn.transcript) else None


def may_wait(s: State) -> bool:
    """A reply is heard, and the policy has a say in whether the user's words stop it."""
    return s.reply is not None and s.audible and s.policy.interrupts is not None


def policy_says(s: State, e: Any, out: Out, name: str, *texts: str) -> bool:
    try:
        return bool(getattr(s.policy, name)(*texts))
    except Exception as error:  # the user's function; the machine is total (law G)
        out.append(Report(ReportKind.POLICY_ERROR, e, f"Policy.{name} raised {type(error).__name__}; taken as False"))
        return False


def begin(s: State, out: Out, *, speculative: bool) -> None:
    s.turn = turn = replace(s.turn, thoughts=s.turn.thoughts + 1)
    s.thinking, s.thought_text = turn.thoughts, turn.transcript
    out.append(Think(turn, turn.thoughts, speculative))


def cut_off(s: State, e: Any, out: Out) -> None:
    """The open turn interrupts the reply."""
    s.turn = replace(s.turn, interrupted=s.reply)
    interrupt(s, e, out)


def close(s: State, end: EndReason, *, remembered: bool = True) -> Turn:
    turn: Turn = replace(s.turn, end=end, ended_at=s.now)
    s.turn = s.progress = None
    if remembered:
        s.closed = (*s.closed[1 - REMEMBERED :], turn)
    return turn


def deadline(s: State) -> float | None:
    """One deadline, derived from the state: it cannot outlive what it guards (F08)."""
    if s.turn is None or s.progress is None or s.policy.stall_timeout is None:
        return None
    return s.progress + s.policy.stall_timeout


def is_due(s: State) -> bool:
    at = deadline(s)
    return at is not None and s.now is not None and s.now >= at
