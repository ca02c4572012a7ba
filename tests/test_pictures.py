"""The picture of a call, from recordings whose every time is known."""

import msgspec
import pytest

from inkturns.errors import RecordingError
from inkturns.events import (
    Connected,
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
)
from inkturns.policy import Policy
from inkturns.report.calls import calls_of
from inkturns.report.picture import Bar, BarKind, Mark, MarkKind, Picture, moment, rows
from inkturns.report.sketch import picture_of
from tests.recorded import Recorded, answered, monologue, no_fault


def drawn(recorded: Recorded, *, words: bool = True) -> Picture:
    [call] = calls_of(recorded.lines, no_fault)
    return picture_of(call, words=words)


def lane(picture: Picture, name: str) -> tuple[Bar, ...]:
    return next((lane.bars for lane in picture.lanes if lane.name == name), ())


def marks(picture: Picture, name: str) -> list[tuple[MarkKind, float]]:
    return [(mark.kind, mark.at) for lane in picture.lanes if lane.name == name for mark in lane.marks]


def tips(bars: tuple[Bar, ...] | tuple[Mark, ...]) -> list[str]:
    return ["\n".join(bar.tip) for bar in bars]


def texts(value: object) -> list[str]:
    """Every text in these values."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        value = [*value, *value.values()]
    return [text for one in value for text in texts(one)] if isinstance(value, list | tuple) else []


def whole() -> Recorded:
    """One answered turn, end at 2.0 s, thought about from 1.5 s, first item at 2.3 s, sound at 2.4 s, over at 4 s."""
    call = answered(Recorded(call="7f3a", started="2026-01-02T03:04:05", labels={"arm": "b"}))
    call.note(102.3, "first", 1, thought=1)
    call.at(102.4, ReplyStarted(1)).note(103.0, "finished", 1, thought=1, items=7)
    call.note(103.0, "settled", 1, settled={"thought": 1, "outcome": "adopted", "items": 7}, saved=0.5)
    call.note(104.0, "heard", 1, text="Gladly.", whole=True)
    return call.at(104.0, ReplyDone(1))


# -- the bracket that everyone looks for


def test_the_bracket_goes_from_the_end_to_the_first_sound_and_on_to_where_it_would_have_been() -> None:
    """End 2.0, sound 2.4: a wait of 0.4 s. The thought began 0.5 s before the end and needed 0.8 s: 0.5 s saved, so the
    sound would have come at 2.9, after 0.9 s."""
    [bracket] = drawn(whole()).brackets
    assert (bracket.turn, bracket.end, bracket.sound, bracket.without) == (1, 2.0, 2.4, 2.9)
    assert bracket.caption == "0.40 s, without 0.90 s"
    assert bracket.tip == ("Turn 1: first sound 0.40 s after the end", "without thinking ahead 0.90 s: 0.50 s saved")
    [line] = drawn(whole()).turns
    assert (line.turn, line.at, line.words, line.end, line.thoughts) == (1, 2.0, "book a table", "answered (server)", 1)
    assert [line.wait, line.without, line.saved] == pytest.approx([0.4, 0.9, 0.5])


def test_what_was_saved_is_the_part_of_the_head_start_that_the_first_item_needed() -> None:
    """No word of the agent's about it. First item 0.3 s after the thought began, which is before the end: 0.3 s."""
    call = Recorded().at(0, TurnStart()).at(1, TurnEagerEnd("hi")).note(1.2, "began", 1, thought=1)
    call.note(1.5, "first", 1, thought=1).at(2, TurnEnd("hi")).at(2, ReplyStarted(1))
    [bracket] = drawn(call).brackets
    assert (bracket.sound, bracket.without) == (2.0, 2.3)
    later = answered(Recorded()).note(102.3, "first", 1, thought=1).at(102.4, ReplyStarted(1))
    assert drawn(later).brackets[0].without == pytest.approx(2.9)


def test_what_was_saved_counts_from_the_think_where_nobody_says_when_the_thought_began() -> None:
    call = Recorded().at(0, TurnStart()).at(1, TurnEagerEnd("hi")).at(2, TurnEnd("hi"))
    call.note(2.5, "first", 1, thought=1).at(2.5, ReplyStarted(1))
    assert drawn(call).brackets[0].without == 3.5


def test_a_thought_that_was_begun_at_the_end_saves_nothing() -> None:
    call = answered(Recorded(Policy(speculate=False)))
    call.note(102.6, "first", 1, thought=1).at(102.7, ReplyStarted(1))
    picture = drawn(call)
    [bracket] = picture.brackets
    assert (bracket.without, bracket.caption, bracket.tip[1]) == (None, "0.70 s", "nothing was saved here")
    [thought] = lane(picture, "Thoughts")
    assert (thought.kind, thought.begins, thought.until, thought.caption) == (BarKind.ADOPTED, 2, 2, "asked at the end")
    assert picture.turns[0].saved == 0


def test_a_reply_that_was_not_heard_has_no_bracket() -> None:
    call = whole()
    answered(call, 2, 110).at(113, TurnStart(turn_id="3"))
    picture = drawn(call)
    assert [bracket.turn for bracket in picture.brackets] == [1]
    cut = lane(picture, "Reply")[1]
    assert (cut.kind, cut.begins, cut.until, cut.ends, cut.caption) == (BarKind.CUT, 12, 13, 13, "not heard")
    assert tips((cut,)) == ["Reply to turn 2\nnot heard\ninterrupted"]
    assert (picture.turns[1].wait, picture.turns[1].without) == (None, None)


# -- the user's lane


def test_the_users_lane_shows_words_eager_ends_and_resumes() -> None:
    call = Recorded().at(10, TurnStart()).at(11, TurnUpdate("Hi")).at(11.5, TurnEagerEnd("Hi"))
    call.at(12, TurnResume()).at(12.5, TurnUpdate("Hi you")).at(13, TurnUpdate("Hey you")).at(14, TurnEnd("Hey you"))
    picture = drawn(call)
    assert marks(picture, "User") == [
        (MarkKind.WORDS, 1),
        (MarkKind.EAGER_END, 1.5),
        (MarkKind.RESUME, 2),
        (MarkKind.WORDS, 2.5),
        (MarkKind.REVISED, 3),
    ]
    assert tips(picture.lanes[0].marks) == [
        "Heard: Hi\n0:01.00",
        "Eager end: the user may be done\n0:01.50",
        "Resume: the user goes on\n0:02.00",
        "Heard: you\n0:02.50",
        "Heard anew: Hey you\n0:03.00",
    ]
    [turn] = lane(picture, "User")
    assert (turn.kind, turn.begins, turn.ends, turn.caption, turn.open) == (BarKind.TURN, 0, 4, "Hey you", False)
    assert turn.tip == ("Turn 1", "“Hey you”", "0:00.00 to 0:04.00, 4.00 s", "answered (server)")


def test_a_turn_that_nobody_ended_is_open() -> None:
    picture = drawn(Recorded().at(0, TurnStart()).at(1, TurnUpdate("well")).at(3, Tick()))
    [turn] = lane(picture, "User")
    assert (turn.ends, turn.open) == (3, True)
    assert turn.tip[-1] == "still open when the recording ended"
    assert picture.turns == ()
    [silent] = lane(drawn(Recorded().at(0, TurnStart())), "User")
    assert (silent.caption, silent.tip[1]) == ("(no words yet)", "no words")


def test_a_turn_tells_how_it_closed_what_it_continues_and_what_it_interrupts() -> None:
    call = answered(Recorded()).at(102.5, EndNow(), ReplyStarted(1)).at(103, TurnStart(turn_id="2"))
    call.at(104, EndNow())
    _, second = lane(drawn(call), "User")
    assert second.caption == "(empty)"
    assert second.tip[-2:] == ("not answered (empty)", "interrupts reply 1")
    call = Recorded().at(0, TurnStart(turn_id="1")).at(1, TurnUpdate("book", turn_id="1"), EndNow())
    call.at(2, TurnUpdate("book a table", turn_id="1"))
    _, goes_on = lane(drawn(call), "User")
    assert "goes on from turn 1" in goes_on.tip
    say = Recorded().at(0, ReplyStarted(0)).at(1, TurnStart()).at(2, TurnEnd("No"))
    assert "interrupts the application" in lane(drawn(say), "User")[0].tip


def test_a_stall_and_an_eager_end_that_belongs_to_no_open_turn() -> None:
    call = Recorded(Policy(stall_timeout=2.0)).at(0, TurnStart(), TurnUpdate("hm")).at(3, Tick())
    assert (MarkKind.STALL, 3) in marks(drawn(call), "User")
    late = answered(Recorded()).at(103, TurnEagerEnd("book a table", turn_id="1"))
    assert marks(drawn(late), "User").count((MarkKind.EAGER_END, 3)) == 0
    assert marks(drawn(late), "Reports") == [(MarkKind.REPORT, 3)]


# -- thoughts


def test_an_adopted_thought_is_held_until_the_end_and_goes_on_until_it_is_finished() -> None:
    picture = drawn(whole())
    [thought] = lane(picture, "Thoughts")
    assert (thought.kind, thought.begins, thought.until, thought.ends) == (BarKind.ADOPTED, 1.5, 2.0, 3.0)
    assert thought.caption == "0.50 s ahead"
    assert thought.tip == (
        "Thought 1 of turn 1, begun ahead",
        "held for 0.50 s",
        "first item after 0.80 s",
        "adopted: it is the reply",
        "7 items",
    )
    assert marks(picture, "Thoughts") == [(MarkKind.FIRST_ITEM, 2.3)]


def test_a_cancelled_thought_says_why() -> None:
    call = Recorded().at(0, TurnStart()).at(1, TurnEagerEnd("Hi")).at(2, TurnResume()).at(3, TurnEagerEnd("Hi you"))
    call.at(3.5, TurnEnd("Hi you all"))
    resumed, mismatched, last = lane(drawn(call), "Thoughts")
    assert (resumed.kind, resumed.begins, resumed.ends, resumed.caption) == (BarKind.CANCELLED, 1, 2, "resumed")
    assert "cancelled (resumed): the user went on" in resumed.tip
    assert (mismatched.caption, mismatched.ends) == ("mismatched", 3.5)
    assert (last.kind, last.caption) == (BarKind.ADOPTED, "asked at the end")


def test_a_failed_thought_and_one_that_nobody_decided() -> None:
    call = Recorded().at(0, TurnStart()).at(1, TurnEagerEnd("Hi"))
    call.note(1.5, "failed", 1, thought=1, error="TimeoutError").at(1.5, ThoughtFailed(1, 1))
    call.at(2, TurnEagerEnd("Hi you"))
    failed, held = lane(drawn(call.at(4, Tick())), "Thoughts")
    assert (failed.kind, failed.caption) == (BarKind.FAILED, "failed")
    assert (held.kind, held.begins, held.ends, held.open, held.caption) == (BarKind.HELD, 2, 4, True, "")
    assert "undecided when the recording ended" in held.tip


def test_what_settled_tells_is_shown() -> None:
    call = answered(Recorded())
    settled = {"thought": 1, "began": 101.6, "first_item": 101.9, "finished": 102.5, "items": 1}
    usage = {"input_tokens": 120, "output_tokens": 30, "cost": 0.002, "cached_tokens": None, "secret": "x"}
    call.at(102, ReplyStarted(1)).note(103, "settled", 1, settled={**settled, "usage": usage})
    picture = drawn(call)
    [thought] = lane(picture, "Thoughts")
    assert thought.ends == 2.5
    assert thought.tip[-4:] == ("1 item", "input tokens: 120", "output tokens: 30", "cost: 0.002")
    assert marks(picture, "Thoughts") == [(MarkKind.FIRST_ITEM, 1.9)]
    assert picture.brackets[0].without == pytest.approx(2.3)  # 0.3 s from when it began to its first item


@pytest.mark.parametrize(
    ("what", "turn", "facts"),
    [
        ("first", 7, {"thought": 1}),
        ("first", 1, {"thought": 7}),
        ("first", 1, {"thought": "1"}),
        ("first", 1, {}),
        ("heard", 7, {"text": "x"}),
        ("settled", 1, {"thought": 1, "settled": 3}),
        ("settled", 1, {"settled": {"thought": 1, "first_item": "soon", "usage": 3, "items": "many"}}),
        ("something else", 1, {"thought": 1}),
    ],
)
def test_notes_that_say_nothing_change_nothing(what: str, turn: int, facts: dict[str, object]) -> None:
    plain = answered(Recorded())
    noted = answered(Recorded()).note(102, what, turn, **facts)
    assert drawn(noted) == drawn(plain)


def test_times_that_a_note_cannot_mean_are_kept_within_the_call() -> None:
    call = answered(Recorded())
    settled = {"thought": 1, "began": -5.0, "first_item": 1e9, "finished": 1e12}
    picture = drawn(call.note(103, "settled", 1, settled=settled))
    assert marks(picture, "Thoughts") == [(MarkKind.FIRST_ITEM, 3)]
    assert lane(picture, "Thoughts")[0].ends == 3


# -- replies


def test_a_reply_is_silent_then_heard_then_over_or_cut() -> None:
    [reply] = lane(drawn(whole()), "Reply")
    assert (reply.kind, reply.begins, reply.until, reply.ends) == (BarKind.REPLY, 2.0, 2.4, 4.0)
    assert reply.caption == "Gladly."
    assert reply.tip == ("Reply to turn 1", "“Gladly.”", "heard from 0:02.40 to 0:04.00, 1.60 s")
    call = answered(Recorded()).at(103, ReplyStarted(1)).at(104, StopReply())
    call.note(104, "replied", 1, replied={"text": "One mo", "outcome": "interrupted"}, thought=1)
    [cut] = lane(drawn(call), "Reply")
    assert (cut.kind, cut.ends, cut.caption, cut.tip[-1]) == (BarKind.CUT, 4, "One mo —", "interrupted")


def test_what_replied_tells_counts() -> None:
    call = answered(Recorded()).at(102.5, ReplyStarted(1)).at(105, ReplyDone(1))
    call.note(105, "replied", 1, replied={"sounded_at": 102.7, "over_at": 104.5, "text": 7})
    [reply] = lane(drawn(call), "Reply")
    assert [reply.until, reply.ends] == pytest.approx([2.7, 4.5])
    assert reply.caption == ""


def test_a_reply_that_goes_on_and_one_by_the_application() -> None:
    call = Recorded().at(0, ReplyStarted(0)).note(1, "heard", 0, text="Hello!").at(1, ReplyDone())
    call = answered(call).at(103, ReplyStarted(1), ReplyStarted(1), ReplyDone(7)).at(104, Connected())
    greeting, reply = lane(drawn(call), "Reply")
    assert (greeting.begins, greeting.ends, greeting.caption) == (0, 1, "Hello!")
    assert greeting.tip[0] == "Said by the application itself"
    assert (reply.open, reply.ends, reply.tip[-1]) == (True, 104, "not over when the recording ended")


def test_a_second_start_of_a_reply_that_is_over_changes_nothing() -> None:
    late = whole().at(105, ReplyStarted(1), ReplyDone(1))
    assert lane(drawn(late), "Reply") == lane(drawn(whole()), "Reply")


def test_how_a_reply_ended_is_told() -> None:
    call = answered(Recorded()).at(102.5, ReplyStarted(1)).at(103, ReplyDone(1))
    failed = {"outcome": "failed", "sounded_at": 102.5, "over_at": 103, "text": "Wel", "saved": 0.2}
    picture = drawn(call.note(103, "replied", 1, replied=failed))
    [reply] = lane(picture, "Reply")
    assert (reply.kind, reply.tip[-1]) == (BarKind.CUT, "failed")
    assert picture.brackets[0].without == 2.7
    call = answered(Recorded()).at(102.5, ReplyStarted(1)).at(103, Disconnected())
    cut = {"outcome": "interrupted", "sounded_at": 102.5, "over_at": 103, "text": "Wel"}
    [reply] = lane(drawn(call.note(103, "replied", 1, replied=cut)), "Reply")
    assert (reply.kind, reply.ends, reply.caption) == (BarKind.CUT, 3, "Wel —")


def test_what_was_never_said_changes_nothing_of_what_was() -> None:
    call = Recorded().at(0, ReplyStarted(0)).at(1, ReplyDone(0))
    call.note(1, "replied", 0, replied={"outcome": "heard", "sounded_at": 0, "over_at": 1, "text": "Hello"})
    call.note(5, "replied", 0, replied={"outcome": "not_begun", "over_at": 5, "text": "", "sounded_at": None})
    [reply] = lane(drawn(call), "Reply")
    assert (reply.ends, reply.caption, reply.kind) == (1, "Hello", BarKind.REPLY)


def test_a_committed_thought_that_was_cut_or_failed() -> None:
    call = answered(Recorded()).at(102.5, ReplyStarted(1)).at(104, StopReply())
    settled = {"thought": 1, "cancelled_at": 104, "finished": None, "error": "Time\x1bout"}
    [thought] = lane(drawn(call.note(104, "settled", 1, settled=settled)), "Thoughts")
    assert (thought.kind, thought.ends) == (BarKind.ADOPTED, 4)
    assert "raised Time\ufffdout" in thought.tip


# -- reports, and connections


def test_reports_and_lost_connections_have_a_lane_where_there_are_any() -> None:
    assert "Reports" not in [lane.name for lane in drawn(whole()).lanes]
    call = Recorded().at(0, TurnResume()).at(1, Disconnected("1006")).at(2, Connected()).at(3, Disconnected("bye"))
    call.at(4, ServerError(title="Quota", status_code=429))
    picture = drawn(call.at(5, Disconnected(), ReplyDone()))
    assert marks(picture, "Reports") == [
        (MarkKind.REPORT, 0),
        (MarkKind.LOST, 1),
        (MarkKind.LOST, 3),
        (MarkKind.REPORT, 4),
    ]
    picture = drawn(call.note(6, "report", 0, report={"kind": "stuck_task", "detail": "thought 1 of turn 1 goes on"}))
    assert tips(picture.lanes[-1].marks)[-1] == "Report: stuck task: thought 1 of turn 1 goes on\n0:06.00"
    stray, lost, _, error, _ = tips(picture.lanes[-1].marks)
    assert stray.startswith("Report: stray resume: ")
    assert lost == "Connection lost: 1006\n0:01.00"
    assert error.startswith("Report: server error: ")


# -- words


def test_words_are_redacted_unless_they_are_asked_for() -> None:
    secret = answered(Recorded(), words="My card is 4242, please").at(102.1, ReplyStarted(1))
    secret.note(103, "heard", 1, text="Thanks, Zoë").at(103, ReplyDone(1))
    hidden, shown = str(drawn(secret, words=False)), str(drawn(secret))
    assert "xx xxxx xx 0000, xxxxxx" in hidden
    assert "xxxxxx, xxx" in hidden
    for word in ("card", "4242", "Thanks", "Zoë"):
        assert word not in hidden
        assert word in shown


def test_what_was_redacted_when_it_was_recorded_is_said() -> None:
    picture = drawn(answered(Recorded(redact=True)))
    assert any("redacted when the call was recorded" in sentence for sentence in picture.not_known)


def test_nothing_of_a_recording_is_shown_that_a_terminal_obeys() -> None:
    evil = "\x1b[2J\u202efoo\r\nbar"
    call = answered(Recorded(call=evil, labels={evil: evil}), words=evil).at(110, Disconnected(evil))
    call.at(111, Connected())
    said = texts(msgspec.to_builtins(drawn(call)))
    assert len([text for text in said if "foo" in text]) > 5
    assert not set("".join(said)) & set("\x1b\u202e\r\n")


# -- what the recording does not hold


def test_a_watcher_tells_what_it_does_not_know() -> None:
    call = Recorded().at(0, TurnStart()).at(1, TurnEagerEnd("hi")).at(2, TurnEnd("hi")).at(3, TurnStart())
    picture = drawn(call)
    assert lane(picture, "Reply") == ()
    assert picture.brackets == ()
    first, second = picture.not_known
    assert "no Agent wrote this recording" in first
    assert "no ReplyStarted was recorded" in second
    assert picture.answer == "1 turn answered, 1 thought, 0 cancelled."
    assert (picture.turns[0].wait, picture.turns[0].saved) == (None, None)


def test_a_watcher_that_is_told_of_sounds_has_brackets_and_no_saving() -> None:
    call = Recorded().at(0, TurnStart()).at(1, TurnEagerEnd("hi")).at(2, TurnEnd("hi")).at(2.5, ReplyStarted(1))
    picture = drawn(call)
    [bracket] = picture.brackets
    assert (bracket.sound, bracket.without, bracket.tip[1]) == (2.5, None, "without thinking ahead: not known")
    assert len(picture.not_known) == 1
    assert picture.turns[0].wait == 0.5


def test_an_agents_recording_knows_it_all() -> None:
    assert drawn(whole()).not_known == ()


def test_the_header_is_told() -> None:
    picture = drawn(whole())
    assert picture.title == "Call 7f3a"
    assert picture.about == (("started", "2026-01-02T03:04:05"), ("lasted", "4.00 s"), ("arm", "b"))
    [bare] = calls_of([b'{"inkturns": 1, "policy": {}}', *Recorded().at(0, TurnStart()).lines[1:]], no_fault)
    assert (picture_of(bare).title, picture_of(bare).about) == ("A call", (("lasted", "0.00 s"),))


@pytest.mark.parametrize(
    ("started", "shown"),
    [(1767323045.5, "2026-01-02T03:04:05+00:00"), ("monday", "monday"), (1e15, "1000000000000000.0")],
)
def test_the_beginning_is_a_date(started: str | float, shown: str) -> None:
    assert drawn(Recorded(started=started).at(0, TurnStart())).about[0] == ("started", shown)


def test_the_answer_counts_and_ranges() -> None:
    call = answered(whole(), 2, 110).note(112.5, "first", 2, thought=1).at(112.8, ReplyStarted(2)).at(114, ReplyDone(2))
    assert drawn(call).answer == (
        "2 turns answered, 2 thoughts, 0 cancelled. The first sound came 0.40 to 0.80 s after the end of the turn. "
        "Thinking ahead made 2 of 2 replies begin earlier, by 0.50 s."
    )


@pytest.mark.parametrize("events", [(), (TurnStart(), TurnEnd("hi"))])
def test_a_call_without_times_has_no_picture(events: tuple[Event, ...]) -> None:
    with pytest.raises(RecordingError, match="no input of the call has a time"):
        drawn(Recorded().at(None, *events))


def test_an_input_without_a_time_happens_when_the_last_one_did_and_time_never_runs_backwards() -> None:
    call = Recorded().at(5, TurnStart()).at(None, TurnUpdate("a")).at(3, TurnUpdate("a b")).at(6, TurnEnd("a b"))
    picture = drawn(call)
    assert marks(picture, "User") == [(MarkKind.WORDS, 0), (MarkKind.WORDS, 0)]
    assert picture.seconds == 1


def test_a_backchannel_is_a_turn_without_an_answer() -> None:
    policy = Policy(interrupts=lambda _: False)
    call = answered(Recorded(policy)).at(102, ReplyStarted(1))
    call.at(103, TurnStart(turn_id="2")).at(103.5, TurnEnd("Mhm", turn_id="2")).at(105, ReplyDone(1))
    picture = drawn(call)
    assert lane(picture, "User")[1].tip[-1] == "not answered (backchannel)"
    assert lane(picture, "Reply")[0].ends == 5


def test_what_became_of_things_in_a_pause_is_not_known() -> None:
    """A turn and its thought are open, and the application speaks, when the recorder is paused at 2 s."""
    call = Recorded().at(0, ReplyStarted(0)).at(0.5, TurnStart(turn_id="1")).at(1, TurnEagerEnd("hi", turn_id="1"))
    call.at(2, Tick()).pause().at(3, TurnEnd("hi", turn_id="1")).at(4, ReplyStarted(1)).resume()
    picture = drawn(answered(call, 2, 10))
    assert marks(picture, "Reports") == [(MarkKind.PAUSE, 2)]
    assert tips(picture.lanes[-1].marks) == ["Recorder paused, inputs that are missing here: 2\n0:02.00"]
    first, second = lane(picture, "User")
    assert (first.begins, first.ends, first.tip[-1]) == (0.5, 2, "what became of it was not recorded")
    assert (second.begins, second.ends) == (10, 12)
    lost, _ = lane(picture, "Thoughts")
    assert (lost.kind, lost.begins, lost.ends) == (BarKind.HELD, 1, 2)
    assert "What happened while the recorder was paused." in picture.not_known
    assert [line.turn for line in picture.turns] == [2]


def test_a_reply_that_is_in_flight_in_a_pause_is_drawn_until_the_pause() -> None:
    call = answered(Recorded()).at(102.5, ReplyStarted(1)).pause().at(104, ReplyDone(1)).resume()
    call.at(105, TurnStart(turn_id="2"))
    [reply] = lane(drawn(call), "Reply")
    assert (reply.ends, reply.open, reply.tip[-1]) == (2.5, True, "what became of it was not recorded")


def test_a_turn_that_opens_in_an_open_one_ends_what_is_seen_of_that() -> None:
    call = Recorded().at(0, TurnStart(turn_id="1")).at(1, TurnEagerEnd("hi", turn_id="1"))
    other = Recorded().at(3, TurnStart(turn_id="2")).at(4, TurnEnd("hey", turn_id="2"))
    [torn] = calls_of(call.lines + other.lines[1:], no_fault)
    first, second = lane(picture_of(torn), "User")
    assert (first.ends, first.open) == (3, True)
    assert (second.begins, second.ends, second.open) == (3, 4, False)


def test_a_recording_that_lacks_the_beginning_of_a_turn_is_drawn_from_where_it_begins() -> None:
    """Its actions name a turn and a thought that nobody has opened and begun."""
    call = Recorded().at(0, TurnStart()).at(1, TurnEagerEnd("hi")).at(2, TurnUpdate("hi you")).at(3, TurnEagerEnd("hi"))
    call.at(4, TurnEnd("hi")).at(5, ReplyStarted(1)).at(6, TurnStart())
    header, _, _, moved, thought, end, *rest = call.lines
    [cut] = calls_of([header, moved, thought, end, *rest], no_fault)
    picture = picture_of(cut, words=True)
    assert [turn.turn for turn in lane(picture, "User")] == [2]
    assert [(one.begins, one.ends, one.kind) for one in lane(picture, "Thoughts")] == [(1, 2, BarKind.ADOPTED)]
    [no_thought] = calls_of([header, end, *rest], no_fault)
    assert picture_of(no_thought).brackets[0].without is None
    assert picture_of(no_thought).turns == ()


# -- rows


def test_a_row_ends_before_what_would_be_cut() -> None:
    call = answered(answered(Recorded(), 1, 100), 2, 109)  # the second turn is from 9 to 11
    picture = drawn(call.at(130, Connected()))
    assert picture.uncut == ((0, 2), (8.85, 11))
    assert rows(picture, 10) == [0, 8.85, 18.85, 28.85]
    assert rows(picture, 30) == [0]
    assert rows(picture, 20) == [0, 20]


def test_a_row_that_would_be_too_short_is_cut_where_it_ends() -> None:
    picture = drawn(monologue())
    assert picture.uncut == ((2.85, 47),)
    assert rows(picture, 10) == [0, 10, 20, 30, 40]
    assert rows(picture, 5) == [0, 2.85, *(7.85 + 5 * n for n in range(8))]


def test_turns_that_overlap_are_not_parted() -> None:
    call = answered(Recorded()).at(102.05, TurnStart(turn_id="2"))
    assert drawn(call.at(104, TurnEnd("no", turn_id="2"))).uncut == ((0, 4),)
    assert drawn(Recorded().at(0, Connected())).uncut == ()


@pytest.mark.parametrize(("at", "said"), [(0, "0:00.00"), (59.999, "1:00.00"), (61.5, "1:01.50"), (3600, "60:00.00")])
def test_moments(at: float, said: str) -> None:
    assert moment(at) == said
