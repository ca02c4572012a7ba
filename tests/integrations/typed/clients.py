"""For type checkers: the history's messages are what the clients of chat models take. The lines that end in `# refused`
show that a checker looks; `test_types.py` runs mypy and pyright over this file."""

from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from inkturns import Turn
from inkturns.history import History


async def ask(history: History, turn: Turn, openai: AsyncOpenAI, anthropic: AsyncAnthropic) -> None:
    messages = history.messages(turn)
    await openai.chat.completions.create(model="gpt-5", messages=messages, stream=True)
    await openai.chat.completions.create(
        model="gpt-5", messages=[{"role": "system", "content": "Be brief."}, *history.messages()]
    )
    await anthropic.messages.create(model="claude", max_tokens=99, messages=messages)
    await anthropic.messages.create(model="claude", max_tokens=99, messages=history.messages(turn), stream=True)

    await openai.chat.completions.create(model="gpt-5", messages=turn)  # refused
    await anthropic.messages.create(model="claude", max_tokens=99, messages=turn)  # refused
