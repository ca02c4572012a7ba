"""What the type checkers see of the clients of chat models, which are installed here and never called."""

from collections.abc import Callable
from pathlib import Path

CLIENTS = Path(__file__).parent / "typed/clients.py"


def test_the_historys_messages_are_what_chat_models_clients_take(flagged: Callable[[Path], set[int]]) -> None:
    lines = CLIENTS.read_text(encoding="utf-8").splitlines()
    assert flagged(CLIENTS) == {number for number, line in enumerate(lines, start=1) if line.endswith("  # refused")}
