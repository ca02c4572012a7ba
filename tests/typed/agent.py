"""Right and wrong uses of the roles and of the agent's own hooks, for type checkers; see hooks.py."""

from collections.abc import AsyncIterator

from inkturns import Agent, Replied, Thought, Turn

agent = Agent()


# -- right


@agent.listen
async def listen(turn: Turn) -> None: ...


@agent.think
async def think(turn: Turn) -> AsyncIterator[str]:
    yield turn.transcript


@agent.respond
async def respond(turn: Turn, thought: Thought[str]) -> None:
    async for item in thought:
        item.upper()


@agent.on_failure
def failed(turn: Turn | None, error: Exception) -> None: ...


costs: list[float | None] = []
agent.think(lambda turn: turn.transcript)
agent.on_settled(lambda settled: costs.append(settled.finished))
agent.on_replied(lambda replied: costs.append(replied.saved))
agent.on_start(lambda turn: print(turn.transcript))


# -- wrong


@agent.think  # refused
async def no_turn() -> str:
    return ""


@agent.listen  # refused
async def two(turn: Turn, thought: Thought[str]) -> None: ...


@agent.respond  # refused
async def no_thought(turn: Turn) -> None: ...


@agent.on_settled  # refused
def another(replied: Replied) -> None: ...


@agent.on_failure  # refused
def without_turn(error: Exception) -> None: ...


agent.listen()  # refused
agent.think("yes")  # refused
agent.think(lambda turn: turn.words)  # refused
agent.on_settled(lambda settled: settled.tokens)  # refused
agent.on_replied(lambda: None)  # refused
Agent(max_ahead=3)  # refused
Agent(buffer_size="3")  # refused
