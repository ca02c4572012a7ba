"""Agent: from when a reply is audible, what its items say, and what is told of it when it is over."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from inkturns.actions import Turn
from inkturns.agent import Agent, Audible, Replied, ReplyOutcome, Thought, Usage, current_thought
from inkturns.events import Event, TurnEnd, TurnStart
from inkturns.policy import Policy

if TYPE_CHECKING:
    from tests.conftest import Call


HELLO: tuple[Event, ...] = (TurnStart(), TurnEnd(transcript="hello"))


async def frames(*items: Any) -> AsyncIterator[Any]:
    """Items, and seconds between them."""
    for item in items:
        if isinstance(item, float):
            await anyio.sleep(item)
        else:
            yield item


# -- F36, F50: audible


async def voice(call: "Call", thought: Thought[str]) -> None:
    """Takes all it is given at once; sounds 0.8 s later."""
    async for item in thought:
        call.see(f"takes {item}")
    await anyio.sleep(0.8)
    thought.sounding()
    call.see("sounds")
    await anyio.sleep(2)


@pytest.mark.parametrize("audible", Audible)
async def test_f36_f50_until_the_reply_sounds_any_word_interrupts_it(call: "Call", audible: Audible) -> None:
    agent = call.agent(audible=audible, policy=Policy(interrupts=lambda _: False))
    agent.think(lambda turn: turn.transcript)
    agent.respond(lambda turn, thought: voice(call, thought))
    agent.on_interrupt(lambda number: call.see(f"interrupt {number}"))
    async with agent:
        call.turn("book")
        await anyio.sleep(0.5)
        call.turn("for two")  # the user's last words, in the voice's own 0.8 s
        if audible is Audible.TOLD:
            assert agent.history.messages() == [{"role": "user", "content": text} for text in ("book", "for two")]
        await anyio.sleep(1.5)
        call.turn("mhm")  # and now it sounds
    told = [*[(0.0, "takes book"), (0.5, "interrupt 1"), (0.5, "takes for two"), (1.3, "sounds")]]
    assert call.seen == (told if audible is Audible.TOLD else [(0.0, "takes book"), (0.8, "sounds")])


async def test_f50_what_did_not_sound_was_not_heard(call: "Call") -> None:
    agent, replied = call.agent(audible=Audible.TOLD), list[Replied]()
    agent.on_replied(replied.append)
    agent.think(lambda turn: turn.transcript)
    agent.respond(lambda turn, thought: voice(call, thought))
    async with agent:
        call.turn("one")
        await anyio.sleep(0.5)
        call.turn("two")
        await anyio.sleep(1)
        agent.interrupt()
        await anyio.sleep(0.1)
    assert [(one.outcome, one.first_item, one.sounded_at, one.over_at, one.text) for one in replied] == [
        (ReplyOutcome.NOT_BEGUN, 0.0, None, 0.5, ""),
        (ReplyOutcome.INTERRUPTED, 0.5, 1.3, 1.5, "two"),
    ]
    assert agent.history.messages()[-1] == {"role": "assistant", "content": "two"}


async def test_heard_implies_sounding_and_counts_after_the_cut(call: "Call") -> None:
    agent = call.agent(audible=Audible.TOLD, policy=Policy(interrupts=lambda _: False))
    agent.think(lambda turn: "one two three")

    @agent.respond
    async def respond(turn: Turn, thought: Thought[str]) -> None:
        await thought
        thought.heard("one")
        try:
            await anyio.sleep(9)
        finally:
            thought.heard("one two")

    async with agent:
        call.turn("count")
        await anyio.sleep(1)
        call.turn("mhm")  # it is audible
        assert agent.history.messages()[-1] == {"role": "assistant", "content": "one"}
        agent.interrupt()
        await anyio.sleep(1)
    assert agent.history.messages()[-1] == {"role": "assistant", "content": "one two"}


@pytest.mark.parametrize("how", ["neither", "sounding", "heard"])
async def test_a_reply_that_tells_nothing_is_said_once_in_the_log(
    call: "Call", how: str, caplog: pytest.LogCaptureFixture
) -> None:
    agent = call.agent(audible=Audible.TOLD)
    agent.think(lambda turn: "a secret")

    @agent.respond
    async def respond(turn: Turn, thought: Thought[str]) -> None:
        text = await thought
        if how == "sounding":
            thought.sounding()
        elif how == "heard":
            thought.heard(text)

    async with agent:
        for _ in range(2):
            call.turn("hello")
            await anyio.sleep(1)
    said = [record.getMessage() for record in caplog.records]
    assert said == (["`respond` returned and called neither thought.sounding() nor thought.heard()"] * (how[0] == "n"))


# -- what is told


async def test_usage_adds_up(call: "Call") -> None:
    agent = call.speaks()

    @agent.think
    async def think(turn: Turn) -> str:
        thought = current_thought()
        if turn.number == 1:
            thought.usage(input_tokens=100, output_tokens=2, cached_tokens=5, cost=0.25)
            thought.usage(input_tokens=20, output_tokens=3, cached_tokens=10, cost=0.5)
        return "a"

    async with agent:
        call.turn("one")
        await anyio.sleep(1)
        call.turn("two")
    assert [settled.usage for settled in call.settled] == [
        Usage(input_tokens=120, output_tokens=5, cached_tokens=15, cost=0.75),
        None,
    ]


async def test_every_reply_is_told_when_it_is_over(call: "Call") -> None:
    agent, replied = call.agent(), list[Replied]()
    agent.on_replied(replied.append)
    agent.on_failure(lambda turn, error: None)

    @agent.think
    async def think(turn: Turn) -> AsyncIterator[str]:
        await anyio.sleep(0.5)
        yield "one "
        yield "two"

    @agent.respond
    async def respond(turn: Turn, thought: Thought[str]) -> None:
        if turn.number == 3:
            raise OSError("the line is cut")
        async for _ in thought:
            await anyio.sleep(1)

    async with agent:
        call.guess("heard")
        await anyio.sleep(1)
        call.end("heard")
        await anyio.sleep(3)
        call.turn("interrupted")
        await anyio.sleep(1)
        call.turn("failed")
        await anyio.sleep(1)
        call.turn("not begun")
        call.start()
        await anyio.sleep(1)
    times = [(one.turn.transcript, one.outcome.value, one.committed_at, one.first_item) for one in replied]
    assert times == [
        ("heard", "heard", 1.0, 1.0),
        ("interrupted", "interrupted", 4.0, 4.5),
        ("failed", "failed", 5.0, None),
        ("not begun", "not_begun", 6.0, None),
    ]
    assert [(one.thought, one.sounded_at, one.over_at, one.text, one.saved, one.head_start) for one in replied] == [
        (1, 1.0, 3.0, "one two", 0.5, 1.0),
        (1, 4.5, 5.0, "one ", 0.0, 0.0),
        (1, None, 5.0, "", None, 0.0),
        (1, None, 6.0, "", None, 0.0),
    ]


@pytest.mark.parametrize("reads", [True, False])
async def test_an_items_words_are_read_or_its_kind_is_said_once(
    call: "Call", reads: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def words(item: tuple[str, bytes]) -> str:
        return item[0]

    agent = call.agent(text=words) if reads else call.agent()

    @agent.think
    async def think(turn: Turn) -> AsyncIterator[tuple[str, bytes]]:
        yield ("a secret ", b"sound")
        yield ("of two", b"sound")

    @agent.respond
    async def respond(turn: Turn, thought: Thought[tuple[str, bytes]]) -> None:
        async for _ in thought:
            pass

    async with agent:
        call.turn("hello")
    said = [record.getMessage() for record in caplog.records]
    assert said == ([] if reads else ["items of type tuple leave no words in the history; Agent(text=…) reads them"])
    assert [message["content"] for message in agent.history.messages()][1:] == (["a secret of two"] if reads else [])


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("audible", "told", "audible must be Audible.FIRST_ITEM or Audible.TOLD, got 'told'"),
        ("text", "text", r"text\(item\) must be a function, got 'text'"),
        ("text", lambda: "", r"text\(item\) must be a function of 1 argument"),
    ],
)
def test_options_are_checked(option: str, value: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Agent(**{option: value})  # type: ignore[arg-type]


async def test_what_is_said_in_a_hook_that_closes_the_call_is_not_begun(call: "Call") -> None:
    agent, speeches = call.speaks(), list[Any]()

    @agent.on_start
    def on_start(turn: Turn) -> None:
        speeches.append(agent.say("never"))
        agent.close()

    async with agent:
        call.start()
        await anyio.sleep(1)
    assert [await speech for speech in speeches] == ["not_begun"]
    assert call.said == []


async def test_words_that_are_a_kind_of_str_are_words(call: "Call") -> None:
    class Word(str):
        pass

    agent = call.agent()
    agent.think(lambda turn: Word("hello"))

    @agent.respond
    async def respond(turn: Turn, thought: Thought[Word]) -> None:
        await thought
        if turn.number == 2:
            thought.heard("")

    async with agent:
        call.turn("one")
        await anyio.sleep(1)
        call.turn("two")
    assert [message["content"] for message in agent.history.messages()] == ["one", "hello", "two"]
