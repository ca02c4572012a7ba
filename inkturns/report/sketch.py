"""Draws the picture of a call: what happened in it, as lanes, marks and brackets, told in words.

Rules of this file: pure; what the recording does not hold is not drawn, and `not_known` says so; the caller's words and
the agent's pass through `_said`, which redacts them unless they were asked for.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial

from inkturns.actions import CancelReason
from inkturns.printable import printable
from inkturns.redact import redact
from inkturns.report.calls import RecordedCall, seconds
from inkturns.report.picture import Bar, BarKind, Bracket, Mark, MarkKind, Picture, PictureLane, TurnLine, moment
from inkturns.report.story import Happened, PastReply, PastThought, PastTurn, Story, story_of

__all__ = ["picture_of"]

Said = Callable[[str], str]

WHY = {
    CancelReason.RESUMED: "the user went on",
    CancelReason.MOVED: "the words went on",
    CancelReason.SUPERSEDED: "an eager end with other words came",
    CancelReason.MISMATCHED: "the turn ended with other words",
    CancelReason.BACKCHANNEL: "there was nothing to answer",
    CancelReason.LOST: "the connection went away",
    CancelReason.CONTEXT_CHANGED: "what it was based on has changed",
    CancelReason.FAILED: "it raised an error",
}
MARKS = {
    MarkKind.WORDS: "Heard: ",
    MarkKind.REVISED: "Heard anew: ",
    MarkKind.EAGER_END: "Eager end: the user may be done",
    MarkKind.RESUME: "Resume: the user goes on",
    MarkKind.STALL: "Stall: the words have not moved",
    MarkKind.FIRST_ITEM: "First item of the thought",
    MarkKind.REPORT: "Report: ",
    MarkKind.LOST: "Connection lost: ",
    MarkKind.PAUSE: "Recorder paused, inputs that are missing here: ",
}
BEFORE = 0.15  # seconds of a row before the turn that begins it
BESIDE = (MarkKind.REPORT, MarkKind.LOST, MarkKind.PAUSE)  # what is not the user's


def picture_of(call: RecordedCall, *, words: bool = False) -> Picture:
    """Draws a call. Its words are redacted, letters to x and digits to 0, unless `words`. Raises RecordingError where
    no input has a time: then there is nothing to place anything by."""
    story, said = story_of(call), partial(_said, words)
    thoughts = [*story.thoughts.values()]
    brackets = [_bracket(reply) for reply in story.replies if reply.number and reply.sound is not None]
    spoken = story.noted or story.sounds
    lanes = [
        PictureLane(
            "User",
            tuple(_turn(turn, story.now, said) for turn in story.turns),
            tuple(_mark(mark, said) for mark in story.marks if mark.kind not in BESIDE),
        ),
        PictureLane("Thoughts", tuple(_thought(one, story.now) for one in thoughts), tuple(_first_items(thoughts))),
        PictureLane("Reply", tuple(_reply(one, story.now, said) for one in story.replies) if spoken else (), ()),
        PictureLane("Reports", (), tuple(_mark(mark, printable) for mark in story.marks if mark.kind in BESIDE)),
    ]
    header = call.header
    labels = header.labels if header is not None and isinstance(header.labels, dict) else {}
    about = [("started", _date(None if header is None else header.started)), ("lasted", _s(story.now)), *labels.items()]
    return Picture(
        title=printable("A call" if call.name is None else f"Call {call.name}"),
        about=tuple((printable(str(name)), printable(str(value))) for name, value in about if value is not None),
        answer=_answer(story, brackets),
        seconds=story.now,
        lanes=tuple(lane for lane in lanes if lane.name != "Reports" or lane.marks),
        brackets=tuple(brackets),
        turns=tuple(_line(turn, story, said) for turn in story.turns if turn.ended is not None),
        uncut=tuple(_uncut(story)),
        not_known=tuple(_not_known(story, header is not None and header.redacted)),
    )


def _date(started: object) -> object:
    """Seconds since 1970 as a date; text as it is."""
    since = seconds(started)
    try:
        return started if since is None else datetime.fromtimestamp(since, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):  # a year that no calendar has
        return started


def _said(shown: bool, text: str) -> str:
    return printable(" ".join((text if shown else redact(text)).split()))


def _mark(one: Happened, said: Said) -> Mark:
    return Mark(one.kind, one.at, ((MARKS[one.kind] + said(one.text)).removesuffix(": "), moment(one.at)))


def _first_items(thoughts: list[PastThought]) -> Iterator[Mark]:
    for one in thoughts:
        if one.first_item is not None:
            yield _mark(Happened(MarkKind.FIRST_ITEM, one.first_item), printable)


def _turn(turn: PastTurn, now: float, said: Said) -> Bar:
    words = said(turn.words)
    ends = _until(turn.ended, turn.unseen, now)
    tip = [f"Turn {turn.number}", f"“{words}”" if words else "no words"]
    tip.append(f"{moment(turn.begun)} to {moment(ends)}, {_s(ends - turn.begun)}")
    tip.append(_unknown("still open", turn.unseen) if turn.ended is None else _end(turn))
    if turn.continues is not None:
        tip.append(f"goes on from turn {turn.continues}")
    if turn.interrupted is not None:
        tip.append(f"interrupts {'reply ' + str(turn.interrupted) if turn.interrupted else 'the application'}")
    return Bar(
        kind=BarKind.TURN,
        turn=turn.number,
        begins=turn.begun,
        until=turn.begun,
        ends=ends,
        caption=words or f"({turn.end or 'no words yet'})",
        tip=tuple(tip),
        open=turn.ended is None,
    )


def _until(known: float | None, unseen: float | None, now: float) -> float:
    return known if known is not None else now if unseen is None else unseen


def _unknown(what: str, unseen: float | None) -> str:
    return f"{what} when the recording ended" if unseen is None else "what became of it was not recorded"


def _end(turn: PastTurn) -> str:
    return f"{'answered' if turn.answered else 'not answered'} ({turn.end})"


def _thought(one: PastThought, now: float) -> Bar:
    decided = _until(one.decided, one.unseen, now)
    held = max(0.0, decided - one.asked)
    kind, ends, fate, caption = BarKind.HELD, decided, _unknown("undecided", one.unseen), ""
    if one.adopted:
        kind, ends = BarKind.ADOPTED, max(decided, _until(one.finished, one.cut, decided))
        fate = "adopted: it is the reply"
        caption = f"{_s(held)} ahead" if one.speculative else "asked at the end"
    elif one.reason is not None:
        kind = BarKind.FAILED if one.reason is CancelReason.FAILED else BarKind.CANCELLED
        caption = one.reason.replace("_", " ")
        fate = f"cancelled ({caption}): {WHY[one.reason]}"
    tip = [f"Thought {one.number} of turn {one.turn}, begun {'ahead' if one.speculative else 'at the end'}"]
    if one.speculative:
        tip.append(f"held for {_s(held)}")
    if one.first_item is not None:
        tip.append(f"first item after {_s(max(0.0, one.first_item - one.asked))}")
    tip.append(fate)
    if one.error is not None:
        tip.append(f"raised {printable(one.error)}")
    if one.items is not None:
        tip.append(_many(one.items, "item"))
    tip += [f"{name.replace('_', ' ')}: {count:g}" for name, count in one.usage.items()]
    return Bar(
        kind=kind,
        turn=one.turn,
        begins=one.asked,
        until=decided,
        ends=ends,
        caption=caption,
        tip=tuple(tip),
        open=kind is BarKind.HELD,
    )


def _reply(one: PastReply, now: float, said: Said) -> Bar:
    over = max(_until(one.over, one.unseen, now), one.begun)
    sound = over if one.sound is None else min(one.sound, over)
    words = said(one.words or "")
    tip = [f"Reply to turn {one.number}" if one.number else "Said by the application itself"]
    if words:
        tip.append(f"“{words}”")
    heard = f"heard from {moment(sound)} to {moment(over)}, {_s(over - sound)}"
    tip.append("not heard" if one.sound is None else heard)
    if one.cut:
        tip.append("interrupted")
    elif one.failed:
        tip.append("failed")
    elif one.over is None:
        tip.append(_unknown("not over", one.unseen))
    return Bar(
        kind=BarKind.CUT if one.cut or one.failed else BarKind.REPLY,
        turn=one.number,
        begins=one.begun,
        until=sound,
        ends=over,
        caption="not heard" if one.sound is None else f"{words} —" if words and one.cut else words,
        tip=tuple(tip),
        open=one.over is None,
    )


def _bracket(reply: PastReply) -> Bracket:
    assert reply.sound is not None
    wait = max(0.0, reply.sound - reply.begun)
    saved = None if reply.thought is None else reply.thought.saved
    tip = [f"Turn {reply.number}: first sound {_s(wait)} after the end"]
    if saved is None:
        tip.append("without thinking ahead: not known")
    elif saved:
        tip.append(f"without thinking ahead {_s(wait + saved)}: {_s(saved)} saved")
    else:
        tip.append("nothing was saved here")
    caption = f"{_s(wait)}, without {_s(wait + saved)}" if saved else _s(wait)
    without = round(reply.sound + saved, 4) if saved else None
    return Bracket(reply.number, reply.begun, reply.sound, without, caption, tuple(tip))


def _line(turn: PastTurn, story: Story, said: Said) -> TurnLine:
    assert turn.ended is not None
    reply = next((one for one in story.replies if one.number == turn.number), None)
    wait = None if reply is None or reply.sound is None else max(0.0, reply.sound - reply.begun)
    saved = None if reply is None or reply.thought is None else reply.thought.saved
    without = None if wait is None or saved is None else wait + saved
    return TurnLine(turn.number, turn.ended, said(turn.words), _end(turn), turn.thoughts, wait, without, saved)


def _uncut(story: Story) -> Iterator[tuple[float, float]]:
    """From the beginning of each turn to its end, or the first sound of its reply; what overlaps, as one."""
    sounds = {reply.number: reply.sound for reply in story.replies}
    begins = ends = -1.0
    for turn in story.turns:
        over = sounds.get(turn.number) or _until(turn.ended, turn.unseen, story.now)
        if turn.begun - BEFORE > ends:
            if ends > 0:
                yield begins, ends
            begins = round(max(0.0, turn.begun - BEFORE), 4)
        ends = max(ends, over)
    if ends > 0:
        yield begins, ends


def _not_known(story: Story, redacted: bool) -> Iterator[str]:
    if story.thoughts and not story.noted:
        yield "When the first item of a thought came, and so what thinking ahead gained: no Agent wrote this recording."
    if any(turn.answered for turn in story.turns) and not (story.noted or story.sounds):
        yield "When replies began to sound: no ReplyStarted was recorded, so there are neither replies nor brackets."
    if any(mark.kind is MarkKind.PAUSE for mark in story.marks):
        yield "What happened while the recorder was paused."
    if redacted:
        yield "The words: they were redacted when the call was recorded."


def _answer(story: Story, brackets: list[Bracket]) -> str:
    """What the call shows, in two or three sentences."""
    answered = sum(turn.answered for turn in story.turns)
    cancelled = sum(one.reason is not None for one in story.thoughts.values())
    said = [f"{_many(answered, 'turn')} answered, {_many(len(story.thoughts), 'thought')}, {cancelled} cancelled."]
    if brackets:
        saved = [one.without - one.sound for one in brackets if one.without is not None]
        waits = [one.sound - one.end for one in brackets]
        said.append(f"The first sound came {_range(waits)} after the end of the turn.")
        if saved:
            replies = f"{len(saved)} of {_many(len(brackets), 'reply')}"
            said.append(f"Thinking ahead made {replies} begin earlier, by {_range(saved)}.")
    return " ".join(said)


def _range(values: list[float]) -> str:
    low, high = f"{min(values):.2f}", f"{max(values):.2f}"
    return f"{high} s" if low == high else f"{low} to {high} s"


def _many(n: int, what: str) -> str:
    return f"{n} {what if n == 1 else what[:-1] + 'ies' if what.endswith('y') else what + 's'}"


def _s(value: float) -> str:
    return f"{value:.2f} s"
