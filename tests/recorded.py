"""Recordings made by hand: what a test says happened, when, as the lines of a Recorder."""

import io
from typing import Any

from inkturns.errors import RecordingError
from inkturns.events import (
    Connected,
    Disconnected,
    Event,
    ReplyDone,
    ReplyStarted,
    StopReply,
    ThoughtFailed,
    Tick,
    TurnEagerEnd,
    TurnEnd,
    TurnResume,
    TurnStart,
    TurnUpdate,
)
from inkturns.policy import Policy
from inkturns.recording import Recorder
from inkturns.turns import Turns

__all__ = ["EVIL", "Recorded", "answered", "eventful", "hostile", "long", "monologue", "no_fault", "ten_minutes"]

EVIL = "\"'></script><script>alert(1)</script><img src=//evil.example onerror='alert(2)'>\"'&]]><!--"


class Recorded:
    """One call. `at` feeds events at a time; `note` writes what an Agent would."""

    def __init__(self, policy: Policy | None = None, **about: Any) -> None:
        self.file = io.BytesIO()
        self.recorder = Recorder(self.file, **{"started": "2026-01-02T03:04:05", **about})
        self.turns = Turns(policy or Policy(), recorder=self.recorder)

    def at(self, t: float | None, *events: Event | str) -> "Recorded":
        for event in events:
            self.turns.feed(event, t)
        return self

    def note(self, t: float, what: str, turn: int, **facts: Any) -> "Recorded":
        self.recorder.note({"t": t, "agent": what, "turn": turn, **facts})
        return self

    def pause(self) -> "Recorded":
        """What comes after this is not written, until `resume`."""
        self.recorder.pause()
        return self

    def resume(self) -> "Recorded":
        self.recorder.resume()
        return self

    @property
    def lines(self) -> list[bytes]:
        return self.file.getvalue().splitlines(keepends=True)


def no_fault(error: RecordingError) -> None:
    """For `calls_of`, where every line can be read."""
    raise error


def answered(call: Recorded, number: int = 1, begun: float = 100.0, words: str = "book a table") -> Recorded:
    """A turn of 2 s, thought about 0.5 s before its end; the thought's first item comes 0.8 s after it began."""
    turn = {"turn_id": str(number)}
    call.at(begun, TurnStart(**turn))
    call.at(begun + 0.5, TurnUpdate(words.split()[0], **turn))
    call.at(begun + 1.0, TurnUpdate(words, **turn))
    call.at(begun + 1.5, TurnEagerEnd(words, **turn))
    call.note(begun + 1.5, "began", number, thought=1)
    return call.at(begun + 2.0, TurnEnd(words, **turn))


# -- whole calls


def eventful() -> Recorded:
    """A call with everything in it."""
    call = Recorded(Policy(stall_timeout=1.0), call="a", labels={"arm": "b"})
    call.at(0, ReplyStarted(0)).note(1, "heard", 0, text="Hello").at(1, ReplyDone())
    call.at(2, TurnStart(turn_id="1")).at(2.5, TurnUpdate("Hi", turn_id="1")).at(3, TurnEagerEnd("Hi", turn_id="1"))
    call.note(3, "began", 1, thought=1).note(3.2, "first", 1, thought=1)
    call.at(3.5, TurnResume(turn_id="1")).at(4, TurnUpdate("Hey you", turn_id="1")).at(5.5, Tick())
    call.at(6, TurnEagerEnd("Hey you", turn_id="1")).at(6.2, ThoughtFailed(1, 2))
    call.at(6.5, TurnEagerEnd("Hey you there", turn_id="1")).note(6.7, "first", 1, thought=3)
    call.at(7, TurnEnd("Hey you there", turn_id="1")).at(7.1, ReplyStarted(1)).note(8, "finished", 1, thought=3)
    call.at(8.5, TurnStart(turn_id="2")).note(8.5, "heard", 1, text="Well").at(9, Disconnected("1006"))
    call.at(11, Connected(request_id="r")).at(11, TurnResume())
    answered(call, 3, 12.0).at(14.3, StopReply()).pause().at(
        15, TurnStart(turn_id="x"), TurnEnd("4242", turn_id="x")
    ).resume()
    return call.at(18, TurnStart(turn_id="4")).at(18.5, TurnEagerEnd("and", turn_id="4")).at(20, Tick())


def ten_minutes() -> Recorded:
    """A turn in each six seconds, eleven words in three, every second eager end wrong."""
    words = ["Could", "you", "perhaps", "tell", "me", "when", "the", "shop", "opens", "on", "Sundays?"]
    call = Recorded(call="ten minutes", started="2026-01-02T03:04:05+00:00", labels={"arm": "control"})
    for n in range(1, 101):
        t, turn = n * 6.0, {"turn_id": str(n)}
        call.at(t, TurnStart(**turn))
        for k in range(1, len(words) + 1):
            call.at(t + 0.27 * k, TurnUpdate(" ".join(words[:k]), **turn))
            if k == 6 and n % 2:
                call.at(t + 1.7, TurnEagerEnd(" ".join(words[:k]), **turn)).note(t + 1.7, "began", n, thought=1)
                call.at(t + 1.8, TurnResume(**turn))
        thought = 1 + n % 2
        call.at(t + 3.0, TurnEagerEnd(" ".join(words), **turn)).note(t + 3.0, "began", n, thought=thought)
        call.note(t + 3.31, "first", n, thought=thought).at(t + 3.4171, TurnEnd(" ".join(words), **turn))
        call.at(t + 3.5213, ReplyStarted(n)).note(t + 4.1, "finished", n, thought=thought, items=9)
        call.note(t + 4.1, "settled", n, settled={"thought": thought, "items": 9}, saved=0.31)
        call.note(t + 5.9, "heard", n, text="On Sundays the shop opens at ten and closes at four.", whole=True)
        call.at(t + 5.9, ReplyDone(n))
    return call


def monologue() -> Recorded:
    """A turn that no row can hold, and that begins where a row would be short."""
    return Recorded().at(0, Tick()).at(3, TurnStart()).at(5, TurnUpdate("Well")).at(47, TurnEnd("Well"))


def hostile() -> Recorded:
    call = answered(Recorded(call=EVIL, started=EVIL, labels={EVIL: EVIL}), words=EVIL)
    call.note(102.1, "first", 1, thought=1).at(102.2, ReplyStarted(1)).note(103, "heard", 1, text=EVIL)
    call.at(103, ReplyDone(1)).at(104, Disconnected(EVIL)).at(105, Connected())
    answered(call, 2, 110, words=EVIL).at(112.2, TurnUpdate("other", turn_id="2"))
    call.at(112.5, ReplyStarted(2)).at(113, StopReply())
    return call.note(113, "replied", 2, replied={"text": EVIL, "outcome": EVIL, "sounded_at": 112.5}, thought=EVIL)


def long() -> Recorded:
    """Ten hours, with a turn in the beginning and one at the end."""
    call = answered(Recorded(), 1, 0).at(2.5, ReplyStarted(1)).at(5, ReplyDone(1))
    answered(call, 2, 36_000).at(36_003, TurnStart(turn_id="3"))
    return call
