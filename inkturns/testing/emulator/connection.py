"""Connection: the server's side of one connection without a socket. Audio and commands go in, frames come out.

Rules of this file:
- Pure. Its clock is the audio that it was given.
- `_step` applies the thresholds only: a turn starts when the likelihood rises above one, and it may end, or ends, when
  it falls below others. `_emit` injects the script's faults only.
- Only steps that can change something are judged: `_next_step` finds the next one.
- Where the vendor leaves something open, a comment or docstring says what is done here.
"""

import json
from collections import deque
from math import inf
from random import Random
from typing import Any
from uuid import UUID

import attrs
import msgspec

from inkturns.settings import BALANCED, TurnSettings
from inkturns.testing.emulator.likelihood import STEP, Likelihood
from inkturns.testing.emulator.parts import Trouble

__all__ = ["CHUNK", "Closing", "Connection", "Out", "complete", "error_frame"]

ECHO = 0.1  # of eager ends are followed by an update with the same text
EMPTY_UPDATE = 0.3  # of turns send an empty update before their first words
CHUNK = 0.1  # seconds of audio in a frame: the vendor's advice
CHATTY = 0.25  # seconds between the empty updates of a mute server

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
CODES = {400: "model_not_found", 402: "plan_upgrade_required", 429: "concurrency_limited"}


class Closing(msgspec.Struct, frozen=True):
    """The server closes the connection with `code` and `reason`. Code 0: it cuts it without a close frame."""

    code: int = 1000
    reason: str = ""


Out = str | bytes | Closing


def complete(settings: TurnSettings, before: TurnSettings = BALANCED) -> TurnSettings:
    """The settings, with the values of `before` where they are None. Raises ValueError where the thresholds are out of
    order then: a server with defaults checks the complete settings."""
    given: dict[str, Any] = dict(settings.given())
    return attrs.evolve(before, **given)


class Connection:
    """The server's side of one connection; `likelihood` is its user's.

    `seed` and `number` make the request_id, and nothing else. Each method returns the frames to be sent now, in order.
    After a Closing nothing more is sent. `sent` holds everything so far, each with the seconds of audio at which it was
    sent."""

    def __init__(
        self, likelihood: Likelihood, settings: TurnSettings = BALANCED, *, seed: int = 0, number: int = 0
    ) -> None:
        random = Random(f"connection {seed} {number}")
        self.request_id = str(UUID(int=random.getrandbits(128), version=4))
        self.likelihood = likelihood
        self.sent: list[tuple[float, Out]] = []
        self.over = False
        self.turn_number, self.text = 0, ""
        self._steps, self._seconds = 0, 0.0  # so far
        self._next: float = 1  # the next step that is judged
        self._open, self._eager, self._echo_at, self._empty_at = False, False, inf, inf
        self._fragment = 0  # the next to be recognized
        self._ahead = deque(likelihood.troubles)  # their place in the script is not reached yet
        self._armed: list[Trouble] = []  # they wait for their event
        self._outbox: deque[tuple[float, Out]] = deque()
        self._held_back: list[str] = []  # reordered frames, which wait for the next event
        self._slow, self._mute_until, self._chat_at = 0.0, 0.0, inf
        self._chat_turn = 0
        self._use(complete(settings))

    @property
    def seconds(self) -> float:
        """The seconds of audio so far."""
        return self._seconds

    @property
    def turn_open(self) -> bool:
        """Whether the user is in a turn."""
        return self._open

    def begin(self) -> list[Out]:
        """The client has connected. A trouble `error` with "connected" replaces that frame and closes."""
        self._reach(0.0)
        refusals = [fault for fault in self._armed if fault.trouble == "error" and fault.on == "connected"]
        if refusals:
            self._put(self._error(refusals[0].status or 400))
            self._put(Closing())
        else:
            self._emit("connected")
        return self._due()

    def audio(self, seconds: float) -> list[Out]:
        """The client has sent so many seconds of audio."""
        self._seconds += seconds
        steps = int((self._seconds + 1e-9) / STEP)
        while self._next <= steps and not self.over:
            self._steps = int(self._next)
            self._step()
            self._next = self._next_step()
        if not self.over:
            self._steps = steps
        return self._due()

    def command(self, text: str) -> list[Out]:
        """The client has sent a text frame: close, done or config. `done` is accepted (live); here it does what `close`
        does. Any other text gets the error 400 that was recorded. A config that is out of bounds changes nothing."""
        try:
            message = json.loads(text)
            kind = message.get("type") if isinstance(message, dict) else None
        except (ValueError, RecursionError):
            kind, message = None, {}
        if kind in ("close", "done"):
            self._meet_armed("close")
            self._flush()
        elif kind == "config":
            self._meet_armed("config")
            self._configure(message.get("turn") or {})
        else:
            fault = f'Unrecognized message type "{kind}".' if isinstance(kind, str) else "Message is not valid."
            self._put(invalid(f'{fault} Expected one of: "done", "close", "config".'))
        self._next = self._next_step()
        return self._due()

    def rest(self) -> list[Out]:
        """No more audio comes. Returns what still waits: slow frames, with the times that they would have been sent
        at, and reordered frames whose next event does not come."""
        self._release()
        return self._due(inf)

    def refuse(self, message: str) -> list[Out]:
        """The client has done something wrong: an error 400."""
        self._put(invalid(message))
        return self._due()

    # -- the thresholds

    def _use(self, settings: TurnSettings) -> None:
        self.settings = settings  # complete
        self._limits: tuple[float, float, float, float] = attrs.astuple(settings)

    def _step(self) -> None:
        now = self._steps * STEP
        likelihood, silence = self.likelihood.at(self._steps - 1)
        start, eager_end, end, timeout_ms = self._limits
        self._reach(now)
        if not self._open:
            if likelihood > start and not silence:  # after an end by timeout, a new turn needs sound
                self._start(now)
        elif likelihood < end or silence * 1000 >= timeout_ms:
            self._end(now)
        else:
            self._recognize(now)
            if not self._eager and likelihood < eager_end:
                self._eager = True
                self._emit("turn.eager_end", self.text)
                self._echo_at = now + 0.06 if self._chances[0] < ECHO else inf
            elif self._eager and likelihood > start:
                self._eager = False  # the vendor does not say above which threshold; here, a turn resumes as it starts
                self._emit("turn.resume")
            elif self._eager and now >= self._echo_at:
                self._echo_at = inf
                self._emit("turn.update", self.text)
        if self._muted(now) and now >= self._chat_at:
            self._chat_at = now + CHATTY
            self._put(self._frame("turn.update", "", self._chat_turn))

    def _next_step(self) -> float:
        """The next step at which `_step` may do something, or infinity: at the steps before it does nothing."""
        after, start, heard = self._steps + 1, self._limits[0], self.likelihood
        times = [self._chat_at] if self._chat_at < self._mute_until else []
        if self._ahead:
            times.append(self._ahead[0][0])
        if self._open:
            times.append(self._empty_at)
            if self._fragment < len(heard.words):
                times.append(heard.words[self._fragment].shown)
            if self._eager:
                times.append(self._echo_at)
        if not self._open:
            found = heard.first(after - 1, above=start, voiced=True)
        else:
            _, eager_end, end, timeout_ms = self._limits
            low, high = (end, start) if self._eager else (eager_end, inf)
            found = heard.first(after - 1, above=high, below=low, silence_ms=timeout_ms)
            if found is None:  # after the script's end the silence grows on, towards the timeout
                found = max(after - 1, len(heard.values))
        timed = min(times, default=inf)
        timed = timed if timed == inf else max(after, int(timed / STEP))  # rounded down: too early does nothing
        return timed if found is None else min(timed, found + 1)

    def _start(self, now: float) -> None:
        self.turn_number += 1
        self.text, self._open, self._eager = "", True, False
        random = Random(f"turn {self.likelihood.seed} {self._fragment}")  # by its words, so no turn before it matters
        self._chances = random.random(), random.random()
        self._empty_at = now + 0.1 if self._chances[1] < EMPTY_UPDATE else inf
        self._emit("turn.start")

    def _recognize(self, now: float) -> None:
        """Sends the words that are recognized by now as one update."""
        known = len(self.text)
        words = self.likelihood.words
        while self._fragment < len(words) and words[self._fragment].shown <= now:
            self._take_fragment()
        if len(self.text) > known:
            self._emit("turn.update", self.text)
        elif not self.text and now >= self._empty_at:
            self._emit("turn.update", "")
        else:
            return
        self._empty_at = inf

    def _take_fragment(self) -> None:
        text = self.likelihood.words[self._fragment].text
        self.text += text if self.text else text.lstrip()
        self._fragment += 1

    def _end(self, now: float) -> None:
        """The end's text has every word that was spoken by now, whether an update had it or not."""
        words = self.likelihood.words
        while self._fragment < len(words) and words[self._fragment].spoken <= now:
            self._take_fragment()
        self._open = self._eager = False
        self._empty_at = inf
        self._emit("turn.end", self.text)

    def _flush(self) -> None:
        if self._open:
            self._end(self._steps * STEP)
        self._release()
        self._slow, now = 0.0, self._steps * STEP
        self._outbox = deque((min(at, now), out) for at, out in self._outbox)
        self._put(Closing())

    def _configure(self, turn: object) -> None:
        names = {field.name for field in attrs.fields(TurnSettings)}
        if not isinstance(turn, dict) or not turn.keys() <= names:
            self._put(invalid(f'config: "turn" may have {", ".join(sorted(names))} only'))
            return
        given = {name: value for name, value in turn.items() if value is not None}
        try:
            for name, value in given.items():
                TurnSettings(**{name: value})
        except (TypeError, ValueError) as error:
            self._put(invalid(str(error).replace("TurnSettings.", "turn.")))
            return
        try:
            self._use(attrs.evolve(self.settings, **given))
        except ValueError:
            self._put(Closing(1008, "Invalid turn thresholds"))

    # -- the frames, and the script's faults

    def _reach(self, now: float) -> None:
        """Injects the troubles whose place is reached, or arms them for their event."""
        while self._ahead and self._ahead[0][0] <= now:
            trouble = self._ahead.popleft()[1]
            if trouble.on is None and trouble.trouble not in ("lose", "repeat", "reorder"):
                self._inject(trouble)
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
            self._held_back += frames
        elif frames:
            for frame in frames:
                self._put(frame)
            self._release()
        for trouble in met:
            if trouble.trouble not in ("slow", "lose", "repeat", "reorder"):
                self._inject(trouble)

    def _meet_armed(self, command: str) -> None:
        for trouble in [trouble for trouble in self._armed if trouble.on == command]:
            self._armed.remove(trouble)
            self._inject(trouble)

    def _inject(self, trouble: Trouble) -> None:
        match trouble.trouble:
            case "drop":
                self._put(Closing(trouble.code))
            case "mute":
                now = self._steps * STEP
                self._mute_until = now + trouble.seconds if trouble.seconds else inf
                self._chat_at = now + CHATTY if trouble.chatty and self._open else inf
                self._chat_turn = self.turn_number  # the client cannot know that it ends meanwhile
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
        title = TITLES.get(status, "Error")
        return error_frame(status, title, "The script asks for this error.", CODES.get(status), self.request_id)

    def _put(self, out: Out) -> None:
        self._outbox.append((self._steps * STEP + self._slow, out))

    def _release(self) -> None:
        for frame in self._held_back:
            self._put(frame)
        self._held_back = []

    def _due(self, ahead: float = 1e-9) -> list[Out]:
        """What is to be sent by now, or up to `ahead` seconds later. Slow frames stay; a lost connection loses them."""
        due: list[Out] = []
        while self._outbox and not self.over and self._outbox[0][0] <= self._steps * STEP + ahead:
            at, out = self._outbox.popleft()
            self.sent.append((at, out))
            due.append(out)
            self.over = isinstance(out, Closing)
        return due


def error_frame(status: int, title: str, message: str, code: str | None = None, request_id: str | None = None) -> str:
    """An `error` frame as JSON."""
    frame: dict[str, object] = {"type": "error", "error_code": code, "message": message}
    frame |= {"status_code": status, "title": title}
    return json.dumps(frame if request_id is None else frame | {"request_id": request_id})


def invalid(message: str) -> str:
    """The error 400 for a client's message that the server does not know (recorded)."""
    return error_frame(400, "Invalid client message", message)
