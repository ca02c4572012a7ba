"""Messages as chat APIs have them, and what these APIs ask of a conversation."""

from typing import Any

from inkturns.actions import EndReason, Respond, Turn
from inkturns.history import History, Spoken

Said = dict[str, Any]


def user(text: str) -> Said:
    return {"role": "user", "content": text}


def assistant(text: str) -> Said:
    return {"role": "assistant", "content": text}


def call(*ids: str) -> Said:
    """An assistant's message as OpenAI has it."""
    return {"role": "assistant", "content": None, "tool_calls": [{"id": one, "type": "function"} for one in ids]}


def result(one: str) -> Said:
    return {"role": "tool", "tool_call_id": one, "content": f"result of {one}"}


def use(*ids: str) -> Said:
    """An assistant's message as Anthropic has it."""
    return {
        "role": "assistant",
        "content": [{"type": "text", "text": "so"}, *({"type": "tool_use", "id": i} for i in ids)],
    }


def used(*ids: str) -> Said:
    return {"role": "user", "content": [{"type": "tool_result", "tool_use_id": i} for i in ids]}


def turn(number: int, text: str, continues: int | None = None) -> Turn:
    return Turn(number, text, end=EndReason.SERVER, continues=continues)


def answered(history: History, turn: Turn) -> Spoken:
    """A turn and its reply, of which nothing is audible yet."""
    spoken = history.begin()
    history.tell(Respond(turn, 1))
    history.commit(spoken)
    return spoken


def open_calls(message: Said) -> set[str]:
    blocks = message["content"] if isinstance(message["content"], list) else []
    return {one["id"] for one in message.get("tool_calls", [])} | {b["id"] for b in blocks if b["type"] == "tool_use"}


def results_of(message: Said) -> set[str]:
    blocks = message["content"] if isinstance(message["content"], list) else []
    return (
        {message["tool_call_id"]}
        if message["role"] == "tool"
        else {b["tool_use_id"] for b in blocks if "tool_use_id" in b}
    )


def check_valid(messages: list[Any]) -> None:
    """What OpenAI and Anthropic ask of a conversation: after a message with calls come its results and nothing else
    until each call has one; no result stands anywhere else; no text is blank."""
    waiting: set[str] = set()
    for message in messages:
        results = results_of(message)
        assert bool(results) == bool(waiting), messages
        assert results <= waiting, messages
        waiting -= results
        waiting |= open_calls(message)
        if isinstance(message["content"], str):
            assert message["content"].strip(), messages
    assert not waiting, messages
