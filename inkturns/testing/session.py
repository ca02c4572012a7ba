"""Session: one connection's server side, without the connection: audio and commands in, frames out.

Rules of this file: pure; its clock is the audio it was given. `_step` is the documented rule (a turn starts when the
likelihood rises above, is over, maybe or for sure, when it falls below) and knows of no trouble; `_emit` makes the
trouble that the script asks for, and knows of no rule. What the vendor leaves open is said where it is decided.
"""

import json
from collections import deque
from random import Random
from typing import Any
from uuid import UUID

import attrs
import msgspec

from inkturns.settings import BALANCED, TurnSettings
from inkturns.testing.script import Trouble
from inkturns.testing.sound import STEP, Sound

__all__ = ["CHUNK", "Closing", "Out", "Session"]

ECHO = 0.1  # of eager ends are followed by an update that changes nothing
EMPTY_UPDATE = 0.3  # of turns without text so far have an update that says so
CHUNK = 0.1  # seconds of audio in a frame, as the vendor advises
CHATTY = 0.25  # seconds between a mute server's empty updates

GARBAGE: dict[str, str | bytes] = {
    "text": "<html>502 Bad Gateway</html>",
    "array": '["turn.end"]',
    "typeless": '{"transcript": "no type"}',
    "field": '{"type": "turn.update", "transcript": {"text": 1}}',
    "unknown": '{"type": "turn.mood", "mood": "fine"}',
    "binary": b"\xff\xfe\x00\x80",
    "empty": "",
}
TITLES = {400: "Bad request", 402: "Plan upgrade required", 429: "Too many requests", 500: "Internal server error"}


class Closing(msgspec.Struct, frozen=True):
    """The connection is closed with `code` and `reason`; code 0: it is gone without a word."""

    code: int = 1000
    reason: str = ""


Out = str | bytes | Closing


def effective(settings: TurnSettings, before: TurnSettings = BALANCED) -> TurnSettings:
    """The settings, and where they do not say, those before. Raises ValueError where the thresholds are out of order:
    a server that has defaults checks what comes of both."""
    given: dict[str, Any] = dict(settings.given())
    return attrs.evolve(before, **given)


class Session:
    """A connection whose user makes this sound. `seed` and `number` make its request_id, and nothing else. Its methods
    give what is to be sent, in order; after a Closing nothing more. `sent` has it all, with the seconds of audio it was
    sent at."""

    def __init__(self, heard: Sound, settings: TurnSettings = BALANCED, *, seed: int = 0, number: int = 0) -> None:
        random = Random(f"connection {seed} {number}")
        self.request_id = str(UUID(int=random.getrandbits(128), version=4))
        self.use(effective(settings))
        self.heard = heard
        self.sent: list[tuple[float, Out]] = []
        self.over = False
        self.turn_number, self.text = 0, ""
        self._steps, self._audio = 0, 0.0
        self._speaking, self._eager, self._echo, self._empty = False, False, 0.0, 0.0
        self._piece = 0
        self._standing = deque(heard.troubles)  # not reached yet
        self._armed: list[Trouble] = []
        self._outbox: deque[tuple[float, Out]] = deque()
        self._behind: list[str] = []  # events that wait for the next one
        self._slow, self._mute_until, self._chat = 0.0, 0.0, float("inf")
        self._chat_turn = 0

    @property
    def seconds(self) -> float:
        """Of audio, so far."""
        return self._audio

    @property
    def open(self) -> bool:
        """Is the user in a turn?"""
        return self._speaking

    def use(self, settings: TurnSettings) -> None:
        """Goes by these settings, all four of them, from here on."""
        self.settings = settings
        self._limits: tuple[float, float, float, float] = attrs.astuple(settings)

    def begin(self) -> list[Out]:
        """The connection is there. `error` on "connected" stands instead of it, and closes."""
        self._reach(0.0)
        refusals = [t for t in self._armed if t.trouble == "error" and t.on == "connected"]
        if refusals:
            self._put(self._error(refusals[0].status or 400))
            self._put(Closing())
        else:
            self._emit("connected")
        return self._due()

    def audio(self, seconds: float) -> list[Out]:
        """So much audio more."""
        self._audio += seconds
        while (self._steps + 1) * STEP <= self._audio + 1e-9 and not self.over:
            self._steps += 1
            self._step(self._steps - 1, self._steps * STEP)
        return self._due()

    def command(self, text: str) -> list[Out]:
        """A text frame of the client's: close, done, config; any other gets the error 400 that was recorded. `done` is
        accepted (live) and taken here for `close`. A config that is out of bounds changes nothing."""
        try:
            message = json.loads(text)
            kind = message.get("type") if isinstance(message, dict) else None
        except (ValueError, RecursionError):
            kind, message = None, {}
        if kind in ("close", "done"):
            self._take("close")
            self._flush()
        elif kind == "config":
            self._take("config")
            self._configure(message.get("turn") or {})
        else:
            said = f'Unrecognized message type "{kind}".' if isinstance(kind, str) else "Message is not valid."
            self._put(invalid(f'{said} Expected one of: "done", "close", "config".'))
        return self._due()

    def rest(self) -> list[Out]:
        """No more audio will come, and what still waits is sent: what is slow, at its time, and what stands behind an
        event that does not come."""
        self._put_behind()
        return self._due(float("inf"))

    def wrong(self, message: str) -> list[Out]:
        """An error 400 about what the client did."""
        self._put(invalid(message))
        return self._due()

    # -- the rule

    def _step(self, i: int, now: float) -> None:
        heard = self.heard
        last = len(heard.likelihood) - 1
        likelihood = heard.likelihood[min(i, last)]
        silence = heard.silence[min(i, last)] + max(0, i - last) * STEP
        start, eager_end, end, timeout_ms = self._limits
        self._reach(now)
        if not self._speaking:
            if likelihood > start and not silence:  # it rises: what the timeout ended is over until it sounds again
                self._open(now)
        elif likelihood < end or silence * 1000 >= timeout_ms:
            self._end(now)
        else:
            self._words(now)
            if not self._eager and likelihood < eager_end:
                self._eager = True
                self._emit("turn.eager_end", self.text)
                self._echo = now + 0.06 if self._chances[0] < ECHO else float("inf")
            elif self._eager and likelihood > start:
                self._eager = False  # the rule does not say above what: a turn goes on as it starts
                self._emit("turn.resume")
            elif self._eager and now >= self._echo:
                self._echo = float("inf")
                self._emit("turn.update", self.text)
        if self._muted(now) and now >= self._chat:
            self._chat = now + CHATTY
            self._put(self._frame("turn.update", "", self._chat_turn))

    def _open(self, now: float) -> None:
        self.turn_number += 1
        self.text, self._speaking, self._eager = "", True, False
        random = Random(f"turn {self.heard.seed} {self._piece}")  # its place, which no other turn before it moves
        self._chances = random.random(), random.random()
        self._empty = now + 0.1 if self._chances[1] < EMPTY_UPDATE else float("inf")
        self._emit("turn.start")

    def _words(self, now: float) -> None:
        """What is known of the words by now, as one update."""
        known = len(self.text)
        while self._piece < len(self.heard.pieces) and self.heard.pieces[self._piece].shown <= now:
            self._read()
        if len(self.text) > known:
            self._emit("turn.update", self.text)
        elif not self.text and now >= self._empty:
            self._emit("turn.update", "")
        else:
            return
        self._empty = float("inf")

    def _read(self) -> None:
        piece = self.heard.pieces[self._piece].text
        self.text += piece if self.text else piece.lstrip()
        self._piece += 1

    def _end(self, now: float) -> None:
        """All that was said by now is in the end's text, known before or not."""
        while self._piece < len(self.heard.pieces) and self.heard.pieces[self._piece].spoken <= now:
            self._read()
        self._speaking = self._eager = False
        self._emit("turn.end", self.text)

    def _flush(self) -> None:
        if self._speaking:
            self._end(self._steps * STEP)
        self._put_behind()
        self._slow, now = 0.0, self._steps * STEP
        self._outbox = deque((min(at, now), out) for at, out in self._outbox)
        self._put(Closing())

    def _configure(self, turn: object) -> None:
        names = {field.name for field in attrs.fields(TurnSettings)}
        if not isinstance(turn, dict) or not turn.keys() <= names:
            self._put(invalid(f'config: "turn" has {", ".join(sorted(names))}'))
            return
        given = {name: value for name, value in turn.items() if value is not None}
        try:
            for name, value in given.items():
                TurnSettings(**{name: value})
        except (TypeError, ValueError) as error:
            self._put(invalid(str(error).replace("TurnSettings.", "turn.")))
            return
        try:
            self.use(attrs.evolve(self.settings, **given))
        except ValueError:
            self._put(Closing(1008, "Invalid turn thresholds"))

    # -- what is sent, and the trouble with it

    def _reach(self, now: float) -> None:
        """The troubles that stand at this time: to be met, or armed for their event."""
        while self._standing and self._standing[0][0] <= now:
            trouble = self._standing.popleft()[1]
            if trouble.on is None and trouble.trouble not in ("lose", "repeat", "reorder"):
                self._meet(trouble)
            else:
                self._armed.append(trouble)

    def _emit(self, kind: str, text: str | None = None) -> None:
        met = [trouble for trouble in self._armed if trouble.on in (kind, None)]
        self._armed = [trouble for trouble in self._armed if trouble not in met]
        frames = [self._frame(kind, text)]
        names = {trouble.trouble for trouble in met}
        for trouble in met:
            if trouble.trouble == "slow":
                self._slow += trouble.seconds or 0.5
        if self._muted(self._steps * STEP) or "lose" in names:
            frames = []
        elif "repeat" in names:
            frames *= 2
        if "reorder" in names:
            self._behind += frames
        elif frames:
            for frame in frames:
                self._put(frame)
            self._put_behind()
        for trouble in met:
            if trouble.trouble not in ("slow", "lose", "repeat", "reorder"):
                self._meet(trouble)

    def _take(self, command: str) -> None:
        """Troubles with a command."""
        for trouble in [trouble for trouble in self._armed if trouble.on == command]:
            self._armed.remove(trouble)
            self._meet(trouble)

    def _meet(self, trouble: Trouble) -> None:
        match trouble.trouble:
            case "drop":
                self._put(Closing(trouble.code))
            case "mute":
                now = self._steps * STEP
                self._mute_until = now + trouble.seconds if trouble.seconds else float("inf")
                self._chat = now + CHATTY if trouble.chatty and self._speaking else float("inf")
                self._chat_turn = self.turn_number  # as far as the client knows, it goes on
            case "garbage":
                self._put(GARBAGE[trouble.kind or "text"])
            case "error":
                self._put(self._error(trouble.status or 500))
                if trouble.fatal:
                    self._put(Closing())
            case "late" if self.turn_number:
                self._put(self._frame("turn.update", self.text + trouble.text))
            case "slow":
                self._slow += trouble.seconds or 0.5

    def _muted(self, now: float) -> bool:
        return now < self._mute_until

    def _frame(self, kind: str, text: str | None = None, turn: int | None = None) -> str:
        message: dict[str, object] = {"type": kind, "request_id": self.request_id}
        if kind != "connected":
            message["turn_id"] = str(turn or self.turn_number)
        if text is not None:
            message["transcript"] = text
        return json.dumps(message, ensure_ascii=False)

    def _error(self, status: int) -> str:
        code = {400: "model_not_found", 402: "plan_upgrade_required", 429: "concurrency_limited"}.get(status)
        return error(status, TITLES.get(status, "Error"), "On demand of the script.", code, self.request_id)

    def _put(self, out: Out) -> None:
        self._outbox.append((self._steps * STEP + self._slow, out))

    def _put_behind(self) -> None:
        for frame in self._behind:
            self._put(frame)
        self._behind = []

    def _due(self, ahead: float = 1e-9) -> list[Out]:
        """What is to be sent by now, or so many seconds later; what is slow stays behind, but for a connection that is
        lost, which takes it."""
        due: list[Out] = []
        while self._outbox and not self.over and self._outbox[0][0] <= self._steps * STEP + ahead:
            at, out = self._outbox.popleft()
            self.sent.append((at, out))
            due.append(out)
            self.over = isinstance(out, Closing)
        return due


def error(status: int, title: str, message: str, code: str | None = None, request_id: str | None = None) -> str:
    """An `error` frame."""
    frame: dict[str, object] = {"type": "error", "error_code": code, "message": message}
    frame |= {"status_code": status, "title": title}
    return json.dumps(frame if request_id is None else frame | {"request_id": request_id})


def invalid(message: str) -> str:
    """The error 400 that a client message gets which the server does not know (recorded)."""
    return error(400, "Invalid client message", message)
