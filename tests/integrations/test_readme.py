"""The blocks of the adapters' README that need a framework."""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pipecat.processors.filters.identity_filter import IdentityFilter

from inkturns.actions import Think
from inkturns.adapters.pipecat import TurnGuard, TurnWatch
from inkturns.replay import replay
from inkturns.testing import virtual_time

from .livekit_agents import Ear, Mind, Silence
from .test_livekit import TURN, session_with

README = (Path(__file__).parent.parent.parent / "inkturns/adapters/README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def block(framework: str, path: Path, monkeypatch: pytest.MonkeyPatch, *, use: str = "watched") -> dict[str, Any]:
    """What the block defines that imports this framework, and uses that."""
    monkeypatch.chdir(path)
    blocks = [code for code in BLOCKS if re.search(rf"^from {framework}\b", code, re.MULTILINE)]
    (code,) = [code for code in blocks if re.search(rf"\b{use}(_pipeline)?\b", code)]
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


@pytest.mark.parametrize(("use", "kind"), [("watched", TurnWatch), ("guarded", TurnGuard)])
def test_pipecat(use: str, kind: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = block("pipecat", tmp_path, monkeypatch, use=use)
    first, stt, user, llm, tts, last, assistant = (IdentityFilter() for _ in range(7))  # type: ignore[no-untyped-call]
    transport = SimpleNamespace(input=lambda: first, output=lambda: last)
    pair = SimpleNamespace(user=lambda: user, assistant=lambda: assistant)

    async def made() -> Any:
        parts = (transport, stt, pair, llm, tts)
        return (
            names["watched_pipeline"](tmp_path / "call", *parts)
            if use == "watched"
            else names["guarded_pipeline"](*parts)
        )

    inside = asyncio.run(made()).processors[1:-1]  # between its source and its sink
    assert inside[:2] == [first, stt]
    assert isinstance(inside[2], kind)
    assert inside[3:] == [user, llm, tts, last, assistant]


def test_livekit_guarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = block("livekit", tmp_path, monkeypatch, use="guarded")
    asked = session_asks(names["GuardedAgent"]("call", instructions="Repeat."), names["guarded_session"])
    with (tmp_path / "call.jsonl").open("rb") as lines:
        thoughts = [action for one in replay(lines) for action in one.actions if isinstance(action, Think)]
    assert [thought.turn.transcript for thought in thoughts] == asked == ["book a", "book a table"]


def session_asks(agent: Any, session_of: Callable[..., Any]) -> list[str | None]:
    """What the mind is asked in a session of five seconds."""
    mind = Mind()

    async def call() -> None:
        session = session_of(stt=Ear(TURN), llm=mind)
        session.input.audio = Silence()
        await session.start(agent)
        await asyncio.sleep(5)
        await session.aclose()

    virtual_time.run(call)
    return [words for _, words in mind.asked]
