"""Sessions as JSON lines: the writer; `reader` reads them.

Rules of this file: a line is whole or it is the last; what goes wrong is said, and never stops the call; no loop,
thread or logger, and no clock but for the header's `started`.

    {"inkturns": 1, "version", "source", "started", "policy": {…}, "settings"?, "call"?, "labels"?…}  a call begins
    {"t"?: seconds, "frame": text, "out"?: [actions]}    a frame, as it came
    {"t"?: seconds, "event": {…},  "out"?: [actions]}    the server's, where it did not come as UTF-8 text: as decoded
    {"t"?: seconds, "app":   {…},  "out"?: [actions]}    the application's
    {"t"?: seconds, "bad":   why,  "out"?: [actions]}    a frame that could not be read, and is no text
    {"unrecorded": n}                                    n inputs of a pause stood here
    {"t"?: seconds, "agent": what, "turn", "thought"…}   an Agent's: what it began, made, settled and said, and when
                                                         it asked `respond` for that;
                                                         a guard's: what the framework did by itself
"""

import io
import math
import os
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import sha256
from typing import IO, Any

import attrs

from inkturns.actions import Action, Report
from inkturns.errors import RecordingWarning
from inkturns.events import Event, ServerEvent
from inkturns.lines import LineFile
from inkturns.policy import Policy
from inkturns.reader import FORMAT
from inkturns.redact import Pauses, redacted, redacted_event, redacted_frame
from inkturns.serialize import dump, dump_event, dump_policy, encode_all
from inkturns.settings import TurnSettings

__all__ = ["VERSION", "Recorder", "share"]

VERSION = "0.1.0"  # of inkturns; asking the installed package takes a quarter of a second


@attrs.define(eq=False)
class Recorder:
    """Writes one call down as it goes: `Turns(recorder=Recorder("call.jsonl", call="7f3a"))`. A path is appended to; a
    new file is readable by its owner alone. Close the recorder when the call is over (an Agent does): until then
    another recorder for the same file says so and writes nothing.

    file                    a path, or an open binary file that does not block
    open                    a function that gives the binary file instead (encrypted, in an object store); `close`
                            closes that file
    call, started, labels   whose call, when it began (ISO text or seconds; now, where it is not given), and what else
                            a reader should know
    settings                what the server was asked for
    sample                  the share of calls that is recorded, 0.0 to 1.0; `call` decides, so that every part of a
                            call is recorded, or none
    out                     False: leaves out the actions, which a replay makes again: the file is about 40 % smaller
    redact                  True: letters become x and digits 0 in what is written. Ids, `call`, `labels` and the names
                            of a frame's members stay. It replays to the same actions, unless wording decides: redacted
                            texts of equal shape compare equal

    What goes wrong (a full disk, a missing directory) is said once, as a RecordingWarning, and kept in `failed`: the
    recording is whole up to there, nothing more is written, and the call goes on."""

    file: str | os.PathLike[str] | IO[bytes] | None = attrs.field(default=None)
    open: Callable[[], IO[bytes]] | None = attrs.field(default=None, kw_only=True)
    call: str | None = attrs.field(default=None, kw_only=True)
    settings: TurnSettings | None = attrs.field(default=None, kw_only=True)
    started: str | float | None = attrs.field(default=None, kw_only=True)
    labels: Mapping[str, str] | None = attrs.field(default=None, kw_only=True)
    sample: float = attrs.field(default=1.0, kw_only=True)
    out: bool = attrs.field(default=True, kw_only=True)
    redact: bool = attrs.field(default=False, kw_only=True)
    failed: Exception | None = attrs.field(default=None, init=False)
    _lines: LineFile | None = attrs.field(default=None, init=False)
    _begun: bool = attrs.field(default=False, init=False)
    _pauses: Pauses | None = attrs.field(default=None, init=False)
    _unrecorded: int = attrs.field(default=0, init=False)  # inputs since the last line that was written

    def __attrs_post_init__(self) -> None:
        given = self.file if self.open is None else self.open
        if (self.file is None) == (self.open is None):
            raise TypeError(f"Recorder needs `file` or `open`, and not both, got {self.file!r} and {self.open!r}")
        if self.open is not None and not callable(given):
            raise TypeError(f"Recorder.open must be a function that gives a binary file, got {given!r}")
        if self.open is None and not isinstance(given, str | os.PathLike) and not _is_binary(given):
            raise TypeError(f"Recorder.file must be a path or an open binary file, got {type(given).__name__}")
        for name, kind, wanted in _FIELDS:
            if not isinstance(value := getattr(self, name), kind):
                raise TypeError(f"Recorder.{name} must be {wanted}, got {value!r}")
        if isinstance(self.sample, bool) or not 0 <= self.sample <= 1:
            raise ValueError(f"Recorder.sample must be a share from 0.0 to 1.0, got {self.sample!r}")
        if self.sample < 1 and self.call is None:
            raise ValueError("Recorder.sample needs `call`, the id by which it is decided whether the call is recorded")

    def begin(self, policy: Policy, source: object = None) -> None:
        """Opens the file and writes the header. `source` turns frames into events; None: Ink 2's. Raises RuntimeError
        for a second call: one recorder, one call."""
        if self._begun:
            raise RuntimeError("a Recorder records one call; make another for the next")
        self._begun = True
        if self.sample < 1 and share(str(self.call)) >= self.sample:
            return
        about = {
            "inkturns": FORMAT,
            "version": VERSION,
            "source": "Ink2" if source is None else type(source).__name__,
            "started": datetime.now(UTC).isoformat(timespec="milliseconds") if self.started is None else self.started,
            "policy": dump_policy(policy),
            "settings": self.settings and self.settings.given(),
            "call": self.call,
            "labels": self.labels and dict(self.labels),
            "sample": None if self.sample == 1 else self.sample,
            "redacted": self.redact or None,
        }
        try:
            self._lines = self._opened()
            self._lines.append(encode_all({name: value for name, value in about.items() if value is not None}))
        except Exception as error:
            self._fail(error)

    def write(self, item: object, event: Event | None, now: float | None, actions: tuple[Action, ...]) -> None:
        """Appends one input with its actions: `item` is the frame, None where `decode` cannot read one;
        `event` what it says, None for a frame that says nothing (then the first action is its Report)."""
        is_hidden = self._pauses is not None and self._pauses.hide(actions)
        if self._lines is None:
            return
        if is_hidden:
            self._unrecorded += 1
            return
        try:
            if self._unrecorded:
                self._write_gap()
            line = self._line(item, event, now, actions)
            if not self.out:
                return self._lines.append(encode_all(line))
            try:
                out = [redacted(dump(action)) for action in actions] if self.redact else actions
                data = encode_all({**line, "out": out})
            except Exception:  # a wire's JSON may be so deep that it fits in a line, and not in the line's action
                data = encode_all(line)  # without them: a replay makes them again
            self._lines.append(data)
        except Exception as error:
            self._fail(error)

    def note(self, line: Mapping[str, object]) -> None:
        """Appends a line that is no input, which a replay passes over: the agent's, of what became of its thoughts. One
        that JSON cannot hold is left out, with a RecordingWarning."""
        if self._lines is None or self.hides(line.get("turn")):
            return
        try:
            data = encode_all(redacted(dump(line)) if self.redact else line)
        except Exception as error:
            return _warn(f"a note that JSON cannot hold is left out of the recording: {type(error).__name__}: {error}")
        try:
            self._lines.append(data)
        except Exception as error:
            self._fail(error)

    def pause(self) -> None:
        """From here on inputs are counted and not written (a card number is said, consent is withdrawn), and notes are
        left out. Each event of a turn holds the whole text of its turn: so nothing of the open turn is written any
        more, and nothing of a turn that continues one of the pause."""
        self._pauses = self._pauses or Pauses()
        self._pauses.pause()

    def resume(self) -> None:
        """Writes again, from the next turn on that begins."""
        if self._pauses is not None:
            self._pauses.resume()

    def hides(self, turn: object) -> bool:
        """Whether a pause hides what is said of the turn of this number, also where nothing is recorded at all."""
        return self._pauses is not None and self._pauses.hide_note(turn)

    def close(self) -> None:
        """Writes no more; what it opened is closed. Call it when the call is over."""
        try:
            if self._lines is not None and self._unrecorded:
                self._write_gap()
            lines, self._lines = self._lines, None
            if lines is not None:
                lines.close()
        except Exception as error:  # an object store may fail as late as here
            self._fail(error)

    def _line(
        self, item: object, event: Event | None, now: float | None, actions: tuple[Action, ...]
    ) -> dict[str, object]:
        line: dict[str, object] = {} if now is None or not math.isfinite(now) else {"t": now}
        text = _as_text(item)
        if event is None:
            reason = next((action.detail for action in actions if isinstance(action, Report)), "")
            line |= {"frame": text} if not self.redact and text is not None else {"bad": reason}
        elif not isinstance(event, ServerEvent):
            line["app"] = redacted_event(event) if self.redact else dump_event(event)
        elif not self.redact:
            line |= {"event": event} if text is None else {"frame": text}
        else:
            frame = None if text is None else redacted_frame(text, event)
            line |= {"event": redacted_event(event)} if frame is None else {"frame": frame}
        return line

    def _opened(self) -> LineFile:
        if self.open is None:
            assert self.file is not None
            return LineFile(self.file)
        file = self.open()
        if not _is_binary(file):
            raise TypeError(f"Recorder.open must give a binary file, got {type(file).__name__}")
        return LineFile(file, owned=True)

    def _write_gap(self) -> None:
        assert self._lines is not None
        unrecorded, self._unrecorded = self._unrecorded, 0
        self._lines.append(encode_all({"unrecorded": unrecorded}))

    def _fail(self, error: Exception) -> None:
        self.failed = error
        lines, self._lines = self._lines, None
        if lines is not None:
            with suppress(Exception):
                lines.close()
        missing = isinstance(error, FileNotFoundError)
        fix = f"; the directory of {self.file} does not exist: make it first" if missing else ""
        _warn(f"the recording stops here: {error!r}{fix}")


_FIELDS: tuple[tuple[str, Any, str], ...] = (
    ("settings", TurnSettings | None, "a TurnSettings"),
    ("labels", Mapping | None, "a mapping"),
    ("sample", int | float, "a share from 0.0 to 1.0"),
    ("out", bool, "True or False"),
    ("redact", bool, "True or False"),
)


def _is_binary(file: object) -> bool:
    return not isinstance(file, io.TextIOBase) and all(
        callable(getattr(file, name, None)) for name in ("write", "flush")
    )


def share(call: str) -> float:
    """A number from 0 to 1 that is any call's own, the same everywhere."""
    return int.from_bytes(sha256(call.encode("utf-8", "surrogatepass")).digest()[:8]) / 2**64


def _warn(sentence: str) -> None:
    with suppress(Exception):  # `python -W error` must not end the call
        warnings.warn(RecordingWarning(sentence), stacklevel=4)


def _as_text(frame: object) -> str | None:
    """A frame's text, where it came as text that UTF-8 can hold."""
    try:
        if isinstance(frame, bytes | bytearray | memoryview):
            return bytes(frame).decode()
        return frame.encode().decode() if isinstance(frame, str) else None
    except UnicodeError:
        return None
