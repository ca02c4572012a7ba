"""History: each turn of the user's once, with its final words; each reply as far as it was heard."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import anyio
import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inkturns.actions import Abandon, Action, Cancel, CancelReason, EndReason, Hear, Listen, Respond, Think, Turn
from inkturns.agent import Agent, Thought
from inkturns.events import Disconnected, Event, TurnEagerEnd, TurnEnd, TurnResume, TurnStart
from inkturns.history import History, Spoken
from inkturns.machine import TurnMachine
from inkturns.policy import AfterDisconnect, Policy, min_words
from inkturns.testing import virtual_time
from inkturns.testing.strategies import hostile_sessions, policies
from tests.chat import assistant, user

if TYPE_CHECKING:
    from tests.conftest import Call


def heard(history: History) -> Spoken:
    """A reply that is audible."""
    spoken = history.begin()
    history.commit(spoken)
    spoken.sounds()
    return spoken


def turn(number: int, text: str, end: EndReason | None = EndReason.SERVER) -> Turn:
    return Turn(number, text, end=end)


# -- alone


def test_a_closed_turn_is_written_down_once_and_a_reply_as_far_as_it_is_heard() -> None:
    history = History()
    one = turn(1, "hello")
    told: list[Action] = [Listen(one), Hear(one, "hello"), Think(one, 1, True), Cancel(one, 1, CancelReason.MOVED)]
    for action in [*told, Think(one, 2, False), Respond(one, 2)]:
        history.tell(action)
    assert history.messages() == [user("hello")]
    spoken = heard(history)
    assert history.messages() == [user("hello")]  # nothing was heard yet
    spoken.took("hi ")
    spoken.took("there")
    assert history.messages() == [user("hello"), assistant("hi there")]


@pytest.mark.parametrize("end", EndReason)
def test_words_that_nobody_answered_stand_where_they_were_said_and_backchannels_nowhere(end: EndReason) -> None:
    history = History()
    history.tell(Abandon(turn(1, "hello", end)))
    history.tell(Respond(turn(2, "you"), 1))
    assert history.messages() == [*([] if end is EndReason.BACKCHANNEL else [user("hello")]), user("you")]


def test_a_turn_without_words_is_none() -> None:
    history = History()
    history.tell(Abandon(turn(1, "", EndReason.EMPTY)))
    assert history.messages() == []
    assert history.messages(turn(2, "", None)) == []


def test_messages_go_up_to_and_include_the_turn_as_it_is_given() -> None:
    history = History()
    history.tell(Respond(turn(1, "one"), 1))
    heard(history).took("re: one")
    assert history.messages(turn(2, "tw", None)) == [user("one"), assistant("re: one"), user("tw")]  # open
    assert history.messages(turn(1, "on", None)) == [user("on")]
    history.tell(Respond(turn(2, "two"), 1))
    heard(history).took("re: two")
    history.tell(Respond(turn(4, "four"), 1))
    assert history.messages(turn(2, "two")) == [user("one"), assistant("re: one"), user("two")]  # closed
    assert history.messages(turn(3, "three", None)) == [
        *[user("one"), assistant("re: one"), user("two"), assistant("re: two"), user("three")]
    ]
    assert history.messages() == [*[user("one"), assistant("re: one"), user("two"), assistant("re: two"), user("four")]]


def test_what_the_application_says_by_itself_stands_where_it_was_heard() -> None:
    history = History()
    heard(history).took("welcome")
    history.tell(Respond(turn(1, "hello"), 1))
    heard(history).took("still there?")
    assert history.messages() == [assistant("welcome"), user("hello"), assistant("still there?")]
    assert history.messages(turn(1, "hello")) == [assistant("welcome"), user("hello")]


def test_messages_are_the_callers_own() -> None:
    history = History()
    history.tell(Respond(turn(1, "hello"), 1))
    history.messages()[0]["content"] = "changed"
    history.messages().clear()
    assert history.messages() == [user("hello")]


def test_what_is_said_to_have_been_heard_counts_instead_of_what_went_out() -> None:
    spoken = Spoken()
    spoken.sounds()
    spoken.took("hello you")
    spoken.heard("hel")
    spoken.took(", how are you")  # went out; was not heard yet
    assert spoken.text == "hel"
    spoken.heard("hello you, how")
    assert spoken.text == "hello you, how"


@pytest.mark.parametrize("text", [None, 3, b"hello"])
def test_what_was_heard_is_a_text(text: Any) -> None:
    spoken = Spoken()
    spoken.sounds()
    spoken.took("hello")
    with pytest.raises(TypeError, match="what was heard must be a str"):
        spoken.heard(text)
    assert spoken.text == "hello"


@given(hostile_sessions(), policies())
def test_of_every_session_each_turn_is_there_once_in_order_with_its_final_words(
    session: list[tuple[Event, float | None]], policy: Policy
) -> None:
    """Whatever comes in; and each thought is asked with the words of its turn once, at the end. No reply was heard, so
    a turn that another continues is left out."""

    def asked(turns: list[Turn]) -> list[dict[str, str]]:
        kept = [turn for turn in turns if turn.transcript and turn.end is not EndReason.BACKCHANNEL]
        continued = {turn.continues for turn in kept}
        return [user(turn.transcript) for turn in kept if turn.number not in continued]

    machine, history = TurnMachine(policy), History()
    closed: list[Turn] = []
    for event, now in session:
        for action in machine.receive(event, now):
            history.tell(action)
            if isinstance(action, Respond | Abandon):
                closed.append(action.turn)
            if isinstance(action, Think):
                assert history.messages(action.turn) == asked([*closed, action.turn])
    assert history.messages() == asked(closed)


# -- in a call


async def test_heard_in_respond_says_how_far_it_got(call: "Call") -> None:
    """What goes out runs ahead of what is heard; a barge-in stops both."""
    agent = call.agent()

    @agent.think
    async def think(turn: Turn) -> AsyncIterator[str]:
        for word in "one ", "two ", "three ":
            yield word

    @agent.respond
    async def respond(turn: Turn, thought: Thought[Any]) -> None:
        said = "".join([word async for word in thought])
        try:
            for i in range(len(said)):
                await anyio.sleep(0.1)
                thought.heard(said[: i + 1])
        finally:
            thought.heard(f"{said[: i + 1]}-")  # in its clean-up, too

    async with agent:
        call.turn("count")
        await anyio.sleep(0.55)
        assert agent.history.messages() == [user("count"), assistant("one t")]
        call.start()
        await anyio.sleep(1)
        assert agent.history.messages() == [user("count"), assistant("one tw-")]


async def test_heard_before_the_first_item_does_not_hide_that_a_reply_is_audible(call: "Call") -> None:
    agent = call.agent(policy=Policy(interrupts=min_words(2)))
    agent.on_abandon(lambda turn: call.see(f"{turn.end}"))
    agent.think(lambda turn: "a")

    @agent.respond
    async def respond(turn: Turn, thought: Thought[Any]) -> None:
        thought.heard("")
        await thought
        await anyio.sleep(1)

    async with agent:
        call.turn("count")
        await anyio.sleep(0.5)
        call.turn("mhm")
    assert call.said == ["backchannel"]


async def test_a_reply_of_another_kind_than_text_is_heard_only_as_far_as_it_says(call: "Call") -> None:
    agent = call.agent()
    agent.think(lambda turn: b"audio")

    @agent.respond
    async def respond(turn: Turn, thought: Thought[Any]) -> None:
        await thought
        if turn.number == 2:
            thought.heard("two")

    async with agent:
        call.turn("a")
        await anyio.sleep(1)
        call.turn("b")
    assert agent.history.messages() == [user("a"), user("b"), assistant("two")]


@attrs.frozen
class Spell:
    """A turn of the user's: its texts, each of which but the last is an eager end; how it ends, and how long after."""

    texts: list[str]
    end: str
    pauses: list[float]
    quiet: float


WORDS = ("one", "two words", "mhm", "three words here", "no")
spells = st.builds(
    Spell,
    texts=st.lists(st.sampled_from(WORDS), min_size=1, max_size=3),
    end=st.sampled_from(("end", "end", "end", "lost", "superseded", "now")),
    pauses=st.lists(st.sampled_from((0.0, 0.1, 0.3, 0.7)), min_size=3, max_size=3),
    quiet=st.sampled_from((0.0, 0.2, 0.5, 1.1, 5.0)),
)


@pytest.mark.parametrize("backend", virtual_time.BACKENDS)
@given(
    st.lists(spells, max_size=5),
    st.sampled_from((None, min_words(2), min_words(3))),
    st.sampled_from(AfterDisconnect),
    st.sampled_from((0.0, 0.15, 0.6)),
)
def test_of_every_call_the_history_is_what_the_world_heard(
    backend: str, call: list[Spell], interrupts: Any, after_disconnect: AfterDisconnect, latency: float
) -> None:
    """Each user turn once, in order, with its final words, its thought speculative or not; each reply as far as it was
    heard; no backchannel. The world keeps its own book: of what closed, from the hooks, and of what it was told."""
    book: list[tuple[int, dict[str, str]]] = []  # by the number of the turn; 0: the agent's
    asked: list[tuple[list[Any], list[Any]]] = []
    agent = Agent(policy=Policy(interrupts=interrupts, after_disconnect=after_disconnect))

    @agent.on_end
    def on_end(turn: Turn) -> None:
        book.append((turn.number, user(turn.transcript)))

    @agent.on_abandon
    def on_abandon(turn: Turn) -> None:
        if turn.transcript and turn.end is not EndReason.BACKCHANNEL:
            book.append((turn.number, user(turn.transcript)))

    @agent.think
    async def think(turn: Turn) -> AsyncIterator[str]:
        before = [message.copy() for number, message in book if number != turn.number]
        asked.append((agent.history.messages(turn), [*before, user(turn.transcript)]))
        await anyio.sleep(latency)
        for letter in "abc":
            yield f"{turn.number}{letter} "
            await anyio.sleep(0.2)

    @agent.respond
    async def respond(turn: Turn, thought: Thought[Any]) -> None:
        mine = assistant("")
        async for item in thought:
            if not mine["content"]:
                book.append((0, mine))
            mine["content"] += item
        await anyio.sleep(0.1)

    async def frames() -> AsyncIterator[Event]:
        for spell in call:
            yield TurnStart()
            for text, pause in zip(spell.texts, spell.pauses, strict=False):
                yield TurnEagerEnd(transcript=text)
                await anyio.sleep(pause)
                yield TurnResume()
            match spell.end:
                case "end":
                    yield TurnEnd(transcript=spell.texts[-1])
                case "lost":
                    yield Disconnected()
                case "now":
                    agent.end_now()
            await anyio.sleep(spell.quiet)

    virtual_time.run(agent.run, frames(), backend=backend)
    assert agent.history.messages() == [message for _, message in book]
    for messages, expected in asked:
        assert messages == expected
