"""The server's turn events in a word, for the tests that write many."""

from inkturns.events import Event, TurnEagerEnd, TurnEnd, TurnResume, TurnStart, TurnUpdate

__all__ = ["eager", "end", "resume", "start", "update"]


def start(turn_id: str | None = None, *, on: str | None = None) -> Event:
    """`on`: the connection's request_id, here and below."""
    return TurnStart(turn_id=turn_id, request_id=on)


def update(text: str, turn_id: str | None = None, *, on: str | None = None) -> Event:
    return TurnUpdate(transcript=text, turn_id=turn_id, request_id=on)


def eager(text: str, turn_id: str | None = None, *, on: str | None = None) -> Event:
    return TurnEagerEnd(transcript=text, turn_id=turn_id, request_id=on)


def resume(turn_id: str | None = None, *, on: str | None = None) -> Event:
    return TurnResume(turn_id=turn_id, request_id=on)


def end(text: str, turn_id: str | None = None, *, on: str | None = None) -> Event:
    return TurnEnd(transcript=text, turn_id=turn_id, request_id=on)
