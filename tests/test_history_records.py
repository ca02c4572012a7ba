"""Where what the application did stands in the history, and when a call of a tool is given out (F46)."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from inkturns.actions import Abandon, Respond, Turn
from inkturns.history import History
from tests.chat import Said, answered, assistant, call, result, turn, use, used, user

# -- where a message stands


def test_a_message_that_is_added_stands_where_it_was_added_and_is_the_same_object() -> None:
    history = History()
    messages: list[Mapping[str, Any]] = [{"role": "system", "content": "be brief"}, {"any": ["thing"]}, {}]
    history.add(messages[0])
    answered(history, turn(1, "hello")).heard("hi")
    history.add(messages[1])
    history.add(messages[2])
    got = history.messages(turn(2, "bye"))
    assert got == [messages[0], user("hello"), assistant("hi"), messages[1], messages[2], user("bye")]
    assert [got[0] is messages[0], got[3] is messages[1], got[4] is messages[2]] == [True] * 3


def test_a_record_stands_between_the_pieces_that_went_out_before_and_after_it() -> None:
    history = History()
    spoken = answered(history, turn(1, "a table"))
    spoken.sounds()
    for part in "One ", "moment. ":
        spoken.took(part)
    note = {"role": "system", "content": "booked"}
    spoken.record(note)
    spoken.took("Done.")
    assert history.messages() == [user("a table"), assistant("One moment. "), note, assistant("Done.")]
    assert spoken.text == "One moment. Done."


def test_records_stand_before_the_words_where_heard_says_how_far_the_reply_got() -> None:
    history = History()
    spoken = answered(history, turn(1, "a table"))
    spoken.took("One moment. ")
    spoken.record(result := {"role": "system", "content": "booked"})
    spoken.heard("One mo")
    spoken.took("Done.")
    assert history.messages() == [user("a table"), result, assistant("One mo")]
    assert spoken.text == "One mo"


def test_f36_before_a_reply_sounds_its_words_are_not_there_and_its_records_are() -> None:
    history = History()
    spoken = answered(history, turn(1, "a table"))
    spoken.took("Done.")
    spoken.record(note := {"role": "system", "content": "booked"})
    assert spoken.text == ""
    assert history.messages() == [user("a table"), note]
    spoken.sounds()
    assert history.messages() == [user("a table"), assistant("Done."), note]


def test_nothing_of_a_reply_is_there_before_its_commit() -> None:
    history = History()
    kept, dropped = history.begin(), history.begin()
    for spoken in kept, dropped:
        spoken.record({"role": "system", "content": "guessed"})
        spoken.heard("hi")
    assert history.messages() == []
    history.tell(Respond(turn(1, "hello"), 2))
    history.commit(kept)
    assert history.messages() == [user("hello"), {"role": "system", "content": "guessed"}, assistant("hi")]


def test_a_second_commit_changes_nothing() -> None:
    history = History()
    spoken = answered(history, turn(1, "hello"))
    spoken.heard("hi")
    history.commit(spoken)
    assert history.messages() == [user("hello"), assistant("hi")]


def test_speech_that_the_application_begins_stands_where_it_becomes_audible() -> None:
    history = History()
    greeting = history.begin()
    greeting.took("welcome")
    history.tell(Abandon(turn(1, "hello")))
    history.commit(greeting)
    greeting.sounds()
    assert history.messages() == [user("hello"), assistant("welcome")]
    assert history.messages(Turn(0)) == [user("hello"), assistant("welcome")]  # what its `respond` may ask


def test_f46_what_was_done_stays_when_the_reply_is_cut_and_what_is_recorded_after_it_comes_in() -> None:
    history = History()
    spoken = answered(history, turn(1, "book a table"))
    spoken.record(call("a"))
    assert history.messages(turn(2, "wait")) == [user("book a table"), user("wait")]  # a call without its result
    history.tell(Respond(turn(2, "wait"), 1))
    spoken.record(result("a"))
    assert history.messages(turn(2, "wait")) == [user("book a table"), call("a"), result("a"), user("wait")]


def test_messages_of_a_turn_end_with_its_words_without_its_own_thoughts_records() -> None:
    history = History()
    spoken = answered(history, turn(1, "book a table"))
    spoken.record(call("a"))
    spoken.record(result("a"))
    assert history.messages(turn(1, "book a table")) == [user("book a table")]


def test_words_without_a_letter_between_two_records_are_no_message() -> None:
    """Anthropic refuses a text that is white space alone."""
    history = History()
    spoken = answered(history, turn(1, "hello"))
    spoken.sounds()
    records = [{"role": "system", "content": text} for text in "ab"]
    for part in ("Hi", records[0], " \n", records[1], " there"):
        spoken.took(part) if isinstance(part, str) else spoken.record(part)
    assert history.messages() == [user("hello"), assistant("Hi"), *records, assistant(" there")]


@pytest.mark.parametrize("message", [None, "hello", ["role"], SimpleNamespace(role="tool")])
def test_a_message_must_be_a_mapping(message: Any) -> None:
    history = History()
    for take in (history.add, history.begin().record):
        with pytest.raises(TypeError, match=r"must be a mapping such as .*, got .*model_dump"):
            take(message)
    assert history.messages() == []


# -- turns that go on


def test_a_turn_that_another_continues_is_left_out_where_nothing_of_its_reply_is_there() -> None:
    history = History()
    cut = answered(history, turn(1, "a table"))
    cut.took("Gladly")  # never sounded
    later = turn(2, "a table for two", continues=1)
    assert history.messages(later) == [user("a table for two")]
    assert history.messages(turn(1, "a table")) == [user("a table")]
    answered(history, later)
    third = turn(3, "a table for two tonight", continues=2)
    assert history.messages(third) == [user("a table for two tonight")]
    history.tell(Abandon(third))
    assert history.messages() == [user("a table for two tonight")]


@pytest.mark.parametrize(
    ("heard", "stays"), [("Gladly", [assistant("Gladly")]), ("", []), (None, [{"role": "system", "content": "done"}])]
)
def test_a_turn_that_another_continues_stays_where_its_reply_left_something(
    heard: str | None, stays: list[Said]
) -> None:
    history = History()
    spoken = answered(history, turn(1, "a table"))
    if heard is None:
        spoken.record(stays[0])
    else:
        spoken.heard(heard)
    before = [user("a table"), *stays] if stays else []
    assert history.messages(turn(2, "a table for two", continues=1)) == [*before, user("a table for two")]


@pytest.mark.parametrize("replied", [True, False])
def test_what_the_application_said_by_itself_is_no_reply_to_the_turn_before_it(replied: bool) -> None:
    history = History()
    if replied:
        answered(history, turn(1, "a table"))  # never sounded
    else:
        history.tell(Abandon(turn(1, "a table")))
    prompt = history.begin()
    history.commit(prompt)
    prompt.heard("Are you there?")
    later = turn(2, "a table for two", continues=1)
    assert history.messages(later) == [assistant("Are you there?"), user("a table for two")]


# -- calls and results


@pytest.mark.parametrize(("calls", "results"), [(call, result), (use, used)])
def test_a_call_without_all_its_results_is_left_out_with_those_that_it_has(calls: Any, results: Any) -> None:
    history = History()
    spoken = answered(history, turn(1, "hello"))
    spoken.record(calls("a", "b"))
    spoken.record(results("a"))
    assert history.messages() == [user("hello")]
    spoken.record(results("b"))
    assert history.messages() == [user("hello"), calls("a", "b"), results("a"), results("b")]


@pytest.mark.parametrize(("calls", "results"), [(call, result), (use, used)])
def test_results_stand_right_after_their_call_whatever_came_between(calls: Any, results: Any) -> None:
    history = History()
    spoken = answered(history, turn(1, "hello"))
    spoken.sounds()
    spoken.took("One ")
    spoken.record(calls("a"))
    spoken.took("moment")
    spoken.record(calls("b"))
    spoken.record(results("b"))
    spoken.record(results("a"))
    spoken.took(".")
    order = [assistant("One "), calls("a"), results("a"), assistant("moment"), calls("b"), results("b"), assistant(".")]
    assert history.messages() == [user("hello"), *order]


def test_words_around_a_call_that_is_left_out_are_one_message() -> None:
    history = History()
    spoken = answered(history, turn(1, "hello"))
    spoken.sounds()
    spoken.took("One ")
    spoken.record(call("a"))
    spoken.took("moment")
    assert history.messages() == [user("hello"), assistant("One moment")]


@pytest.mark.parametrize(
    "records",
    [
        [result("a")],  # without a call
        [used("a", "b")],
        [result("a"), call("a")],  # before its call
        [call("a"), call("b"), used("a", "b")],  # of two calls' messages at once
        [call("a"), used("a", "b")],
        [call("a", "b"), call("a"), used("a", "b")],
        [{"role": "tool", "content": "?"}],
        [call("a"), {"role": "tool", "content": "?"}],
    ],
)
def test_results_that_no_chat_api_would_take_are_left_out(records: list[Said]) -> None:
    history = History()
    for record in records:
        history.add(record)
    assert history.messages() == []


def test_of_two_results_of_a_call_the_first_counts() -> None:
    history = History()
    for record in (call("a"), result("a"), result("a") | {"content": "again"}):
        history.add(record)
    assert history.messages() == [call("a"), result("a")]


def test_an_id_may_be_used_again_and_a_result_belongs_to_the_last_call_with_it() -> None:
    history = History()
    first, second = call("a"), call("a") | {"content": "second"}
    for record in (first, first, result("a"), second, result("a")):
        history.add(record)
    assert history.messages() == [first, result("a"), second, result("a")]


def test_the_blocks_of_a_message_may_be_an_sdks_objects() -> None:
    """`{"role": "assistant", "content": response.content}` is what Anthropic's own examples append."""
    text, block = SimpleNamespace(type="text", text="so"), SimpleNamespace(type="tool_use", id="a")
    message = {"role": "assistant", "content": [text, block]}
    openai = {"role": "assistant", "tool_calls": (SimpleNamespace(id="b"),)}
    history = History()
    history.add(message)
    history.add(openai)
    assert history.messages() == []
    history.add(used("a"))
    history.add(result("b"))
    assert history.messages() == [message, used("a"), openai, result("b")]


@pytest.mark.parametrize("calls", [[], None, "a", ()])
def test_a_message_without_calls_is_a_message_like_any_other(calls: Any) -> None:
    history = History()
    history.add(message := {"role": "assistant", "content": "hi", "tool_calls": calls})
    assert history.messages() == [message]
