"""The README's blocks that need a framework."""

import asyncio
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pipecat.processors.filters.identity_filter import IdentityFilter

from inkturns import Think, replay
from inkturns.adapters.pipecat import TurnWatch

from .test_livekit import session_with

README = (Path(__file__).parent.parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def block(framework: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the block defines that imports this framework."""
    monkeypatch.chdir(path)
    (code,) = [code for code in BLOCKS if re.search(rf"^from {framework}\b", code, re.MULTILINE)]
    names: dict[str, Any] = {"__name__": "readme"}
    exec(compile(code, framework, "exec"), names)
    return names


def test_livekit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = block("livekit", tmp_path, monkeypatch)
    seen, asked = session_with(names["MyAgent"]("call", instructions="Repeat."))
    assert ("said", "book a table") in [one[1:] for one in seen]
    with (tmp_path / "call.jsonl").open("rb") as lines:
        inputs = list(replay(lines))
    assert None not in [one.t for one in inputs]
    thoughts = [action for one in inputs for action in one.actions if isinstance(action, Think)]
    assert [thought.turn.transcript for thought in thoughts] == [text for _, text in asked]


def test_pipecat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = block("pipecat", tmp_path, monkeypatch)["watched"]
    first, stt, user, llm, tts, last, assistant = (IdentityFilter() for _ in range(7))  # type: ignore[no-untyped-call]
    transport = SimpleNamespace(input=lambda: first, output=lambda: last)
    pair = SimpleNamespace(user=lambda: user, assistant=lambda: assistant)

    async def made() -> Any:
        return watched(tmp_path / "call", transport, stt, pair, llm, tts)

    inside = asyncio.run(made()).processors[1:-1]  # between its source and its sink
    assert inside[:2] == [first, stt]
    assert isinstance(inside[2], TurnWatch)
    assert inside[3:] == [user, llm, tts, last, assistant]
