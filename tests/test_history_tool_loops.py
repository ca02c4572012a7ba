"""F46: whatever is done in whatever order, the messages are valid for chat APIs and what was done is there once."""

import itertools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from inkturns.actions import Abandon, Respond, Turn
from inkturns.agent import Agent, Thought, committed, current_thought
from inkturns.events import TurnEagerEnd, TurnEnd, TurnStart
from inkturns.history import History, Spoken
from inkturns.testing import virtual_time
from tests.chat import Said, answered, call, check_valid, open_calls, result, results_of, turn, use, used, user

IDS = st.sampled_from("abc")
records = st.one_of(
    st.builds(call, IDS),
    st.builds(call, st.just("a"), st.just("b")),
    st.builds(use, IDS),
    st.builds(use, st.just("b"), st.just("c")),
    st.builds(result, IDS),
    st.builds(used, IDS),
    st.builds(used, st.just("b"), st.just("c")),
    st.builds(lambda n: {"role": "system", "content": f"note {n}"}, st.integers(0, 9)),
)


class Conversation(RuleBasedStateMachine):
    """A history to which anything is done in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.history = History()
        self.begun: list[Spoken] = [self.history.begin()]
        self.entered: list[Spoken] = []
        self.recorded: dict[int, list[Said]] = {}  # by the place of a Spoken in `begun`
        self.added: list[Said] = []
        self.number = 0

    @rule(answer=st.booleans(), continues=st.booleans(), text=st.sampled_from(("one", "two", "")))
    def turn(self, answer: bool, continues: bool, text: str) -> None:
        self.number += 1
        closed = turn(self.number, text, self.number - 1 if continues and self.number > 1 else None)
        self.history.tell(Respond(closed, 1) if answer and text else Abandon(closed))
        if answer and text:
            self.commit(len(self.begun) - 1)
        self.begun.append(self.history.begin())

    @rule(which=st.integers(0, 9))
    def commit(self, which: int) -> None:
        spoken = self.begun[which % len(self.begun)]
        self.history.commit(spoken)
        if spoken not in self.entered:
            self.entered.append(spoken)

    @rule(which=st.integers(0, 9), message=records)
    def record(self, which: int, message: Said) -> None:
        which %= len(self.begun)
        self.begun[which].record(message)
        self.recorded.setdefault(which, []).append(message)

    @rule(message=records)
    def add(self, message: Said) -> None:
        self.history.add(message)
        self.added.append(message)

    @rule(which=st.integers(0, 9), text=st.sampled_from(("so ", " ", "", "on")))
    def took(self, which: int, text: str) -> None:
        self.begun[which % len(self.begun)].took(text)

    @rule(which=st.integers(0, 9), text=st.sampled_from((None, "", " ", "as far as")))
    def heard(self, which: int, text: str | None) -> None:
        spoken = self.begun[which % len(self.begun)]
        spoken.sounds() if text is None else spoken.heard(text)

    @invariant()
    def valid_and_once(self) -> None:
        messages = self.history.messages()
        check_valid(messages)
        for number in range(self.number + 2):
            words = Turn(number, "the last words" if number else "")
            up_to = self.history.messages(words)
            check_valid(up_to)
            if number:
                assert up_to[-1] == user("the last words")
        given = [id(message) for message in messages]
        kept = [record for which, some in self.recorded.items() if self.begun[which] in self.entered for record in some]
        for message in [*kept, *self.added]:
            plain = not open_calls(message) and not results_of(message)
            assert given.count(id(message)) == 1 if plain else given.count(id(message)) <= 1
        dropped = [
            one for which, some in self.recorded.items() if self.begun[which] not in self.entered for one in some
        ]
        assert not {id(message) for message in dropped} & set(given)


TestConversation = Conversation.TestCase


@given(st.data(), st.lists(st.integers(1, 3), min_size=1, max_size=4), st.sampled_from(((call, result), (use, used))))
def test_f46_a_tool_loop_that_is_broken_off_anywhere_keeps_what_was_done_exactly_once(
    data: st.DataObject, loops: list[int], api: tuple[Any, Any]
) -> None:
    """Each turn's loop asks for some tools at once and records their results in any order; it is broken off anywhere;
    then the next turn is asked, while what is left of the loop goes on."""
    calls, results = api
    history, ids = History(), map(str, itertools.count())
    done: list[Said] = []
    late: list[tuple[Spoken, list[Said]]] = []
    for number, tools in enumerate(loops, 1):
        words = turn(number, f"turn {number}")
        messages = history.messages(words)
        check_valid(messages)
        assert [message for message in messages if open_calls(message) or results_of(message)] == done
        spoken = answered(history, words)
        mine = [next(ids) for _ in range(tools)]
        steps = [calls(*mine), *map(results, data.draw(st.permutations(mine)))]
        broken = data.draw(st.integers(0, len(steps)))
        for step in steps[:broken]:
            spoken.record(step)
            check_valid(history.messages(turn(number + 1, "next")))
        if broken == len(steps):
            done += steps
        else:
            late.append((spoken, steps[broken:]))
    for spoken, steps in late:
        for step in steps:
            spoken.record(step)
            check_valid(history.messages())
    given = [message for message in history.messages() if open_calls(message) or results_of(message)]
    assert len(given) == sum(loops) + len(loops)


# -- in a call


@attrs.define
class Diary:
    """What the tool has done, and what each thought was asked."""

    agent: Agent = attrs.field(factory=Agent)
    booked: int = 0
    prompts: list[list[Any]] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.agent.think(self.think)
        self.agent.respond(self.respond)

    async def think(self, turn: Turn) -> AsyncIterator[str]:
        """A loop with one tool that books a table, where the conversation says nothing of a booking."""
        messages = self.agent.history.messages(turn)
        self.prompts.append(messages)
        thought = current_thought()
        if not any(map(results_of, messages)):
            one = f"{turn.number}.{thought.number}"
            await anyio.sleep(0.1)
            thought.record(call(one))
            yield "One moment. "
            async with committed():
                await anyio.sleep(0.1)
                self.booked += 1
                await anyio.sleep(0.1)
                thought.record(result(one))
        yield "It is "
        await anyio.sleep(0.1)
        yield "booked."

    async def respond(self, turn: Turn, thought: Thought[str]) -> None:
        async for _ in thought:
            await anyio.sleep(0.05)

    async def frames(self, gap: float, barge_in: float, again: float) -> AsyncIterator[Any]:
        for pause in barge_in, again, 5.0:
            yield TurnStart()
            yield TurnEagerEnd(transcript="a table")
            await anyio.sleep(gap)
            yield TurnEnd(transcript="a table")
            await anyio.sleep(pause)
            check_valid(self.agent.history.messages())


def moments() -> Iterator[float]:
    yield from (n / 40 for n in range(25))


@pytest.mark.parametrize("backend", virtual_time.BACKENDS)
@pytest.mark.parametrize("gap", [0.0, 0.15])
def test_f46_a_table_is_booked_once_whenever_the_user_barges_in(backend: str, gap: float) -> None:
    """A barge-in at every moment of a reply with a tool, and at every moment of the next: whatever the tool has done
    stands in every later prompt once, so it is done once."""
    seen = set()
    for barge_in, again in itertools.product(moments(), (0.0, 0.12, 0.26, 0.4, 5.0)):
        diary = Diary()
        virtual_time.run(diary.agent.run, diary.frames(gap, barge_in, again), backend=backend)
        for prompt in diary.prompts:
            check_valid(prompt)
        assert diary.booked == 1
        last = diary.agent.history.messages()
        assert [sum(map(bool, map(which, last))) for which in (open_calls, results_of)] == [1, 1]
        seen.add(len(diary.prompts))
    assert len(seen) > 1
