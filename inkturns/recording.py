"""Sessions as JSON lines: write, read, replay.

Rules of this file: a line is whole or it is the last; the recorder never stops the call, nor does a line that cannot be
read stop the reader, unless its caller wants that; a recording is data, so nothing that it names is imported; no clock,
loop, thread or logger.

    {"inkturns": 1, "policy": {…}, "settings"?, "call"?, "started"?, "labels"?}     the header: a call begins
    {"t"?: seconds, "frame": text, "out": [actions]}     a frame, as it came
    {"t"?: seconds, "event": {…},  "out": [actions]}     the server's, where it did not come as UTF-8 text: as decoded
    {"t"?: seconds, "app":   {…},  "out": [actions]}     the application's
    {"t"?: seconds, "bad":   why,  "out": [actions]}     a frame that could not be read, and is no text
    {"t"?: seconds, "agent": what, "turn", "thought"…}   an Agent's: what it began, made, said and settled
"""

import io
import math
import os
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import attrs
import msgspec

from inkturns.actions import Action, Report, ReportKind, Turn
from inkturns.errors import DecodeError, RecordingError, RecordingWarning
from inkturns.events import Event, ServerEvent
from inkturns.machine import TurnMachine
from inkturns.plain import (
    converted,
    dump,
    dump_event,
    dump_policy,
    encodable,
    encode,
    everywhere,
    load_event,
    load_policy,
    masked,
    masked_event,
    masked_frame,
)
from inkturns.policy import Policy
from inkturns.settings import TurnSettings
from inkturns.table import Phase
from inkturns.wire import decode

__all__ = ["Entry", "Header", "Recorder", "Replayed", "TruncatedError", "read", "replay"]

FORMAT = 1
INPUTS = ("frame", "event", "app", "bad")
BEGINS = b'{"inkturns":'  # a call's header


class TruncatedError(RecordingError):
    """The last line of a call, cut short: its writer was killed. All lines before it hold."""


# -- the writer


@attrs.define(eq=False)
class Recorder:
    """Writes one call down as it goes: `Turns(recorder=Recorder("call.jsonl", call="7f3a"))`. A path is appended to.

    call, started, labels   whose call, when (wall clock; ISO text or seconds), and what else a reader should know
    settings                what the server was asked for
    text                    False: letters become x and digits 0, in what is written. Ids, `call` and `labels` stay, and
                            so do the names of a frame's members. It replays alike, but where the words themselves
                            decide: texts that differ in letters alone are one text then

    What goes wrong (a full disk, a missing directory) is said once, as a RecordingWarning, and kept in `failed`; then
    it writes no more, and the call goes on. `close` closes the file it opened, and so does
    the end of the recorder's life."""

    file: str | os.PathLike[str] | IO[bytes] = attrs.field()
    call: str | None = attrs.field(default=None, kw_only=True)
    settings: TurnSettings | None = attrs.field(default=None, kw_only=True)
    started: str | float | None = attrs.field(default=None, kw_only=True)
    labels: Mapping[str, str] | None = attrs.field(default=None, kw_only=True)
    text: bool = attrs.field(default=True, kw_only=True)
    failed: Exception | None = attrs.field(default=None, init=False)
    _out: IO[bytes] | None = attrs.field(default=None, init=False)
    _begun: bool = attrs.field(default=False, init=False)

    @file.validator
    def _check_file(self, _: object, value: object) -> None:
        if isinstance(value, io.TextIOBase) or not (isinstance(value, str | os.PathLike) or hasattr(value, "write")):
            raise TypeError(f"Recorder: file is a path or a binary file, not {type(value).__name__}")

    @settings.validator
    def _check_settings(self, _: object, value: object) -> None:
        if not isinstance(value, TurnSettings | None):
            raise TypeError(f"Recorder: settings is a TurnSettings, not {value!r}")

    @labels.validator
    def _check_labels(self, _: object, value: object) -> None:
        if not isinstance(value, Mapping | None):
            raise TypeError(f"Recorder: labels is a mapping, not {value!r}")

    @text.validator
    def _check_text(self, _: object, value: object) -> None:
        if not isinstance(value, bool):
            raise TypeError(f"Recorder: text is True or False, not {value!r}")

    def begin(self, policy: Policy) -> None:
        """Opens the file and writes the header. Raises RuntimeError for a second call: one recorder, one call."""
        if self._begun:
            raise RuntimeError("a Recorder records one call; make another for the next")
        self._begun = True
        about = {
            "settings": self.settings and self.settings.given(),
            "call": self.call,
            "started": self.started,
            "labels": self.labels and dict(self.labels),
            "text": None if self.text else False,
        }
        given = {name: value for name, value in about.items() if value is not None}
        try:
            self._out = self._opened()
            self._append({"inkturns": FORMAT, "policy": dump_policy(policy), **given})
        except Exception as error:
            self._fail(error)

    def write(self, item: object, event: Event | None, now: float | None, actions: tuple[Action, ...]) -> None:
        """Appends one input with its actions: `item` is the frame, None where there is none that `decode` would read;
        `event` what it says, None for a frame that says nothing (then the first action is its Report)."""
        if self._out is None:
            return
        try:
            self._append(self._line(item, event, now, actions))
        except Exception as error:
            self._fail(error)

    def note(self, line: Mapping[str, object]) -> None:
        """Appends a line that is no input, which a replay passes over: the agent's, of what became of its thoughts."""
        if self._out is None:
            return
        try:
            self._append(line if self.text else masked(dump(line)))
        except Exception as error:
            self._fail(error)

    def close(self) -> None:
        """Writes no more; what it opened is closed."""
        out, self._out = self._out, None
        if out is not None and out is not self.file:
            out.close()

    def _line(self, item: object, event: Event | None, now: float | None, actions: tuple[Action, ...]) -> object:
        line: dict[str, object] = {} if now is None or not math.isfinite(now) else {"t": now}
        text = _as_text(item)
        if event is None:
            reason = next((action.detail for action in actions if isinstance(action, Report)), "")
            line |= {"frame": text} if self.text and text is not None else {"bad": reason}
        elif not isinstance(event, ServerEvent):
            line["app"] = dump_event(event) if self.text else masked_event(event)
        elif self.text:
            line |= {"event": event} if text is None else {"frame": text}
        else:
            frame = None if text is None else masked_frame(text, event)
            line |= {"event": masked_event(event)} if frame is None else {"frame": frame}
        out = actions if self.text else [masked(dump(action)) for action in actions]
        return {**line, "out": out}

    def _opened(self) -> IO[bytes]:
        if not isinstance(self.file, str | os.PathLike):
            return self.file
        out = Path(self.file).open("a+b", buffering=0)  # noqa: SIM115  unbuffered: nothing fails late
        weakref.finalize(self, out.close)
        if out.seekable() and out.tell() and (out.seek(-1, os.SEEK_END), out.read(1))[1] != b"\n":
            out.write(b"\n")  # the line of one that was killed
        return out

    def _append(self, line: object) -> None:
        try:
            data = encode(line) + b"\n"
        except UnicodeEncodeError:
            data = encode(everywhere(dump(line), encodable)) + b"\n"
        assert self._out is not None
        while data:
            written = self._out.write(data)
            if written == 0:
                raise OSError("the file takes no more")
            data = data[written:] if written else b""  # None: some files do not say
        self._out.flush()

    def _fail(self, error: Exception) -> None:
        self.failed = error
        with suppress(Exception):
            self.close()
        with suppress(Exception):  # `python -W error` must not end the call
            warnings.warn(RecordingWarning(f"the recording stops here: {error!r}"), stacklevel=3)


def _as_text(frame: object) -> str | None:
    """A frame's text, where it came as text that UTF-8 can hold."""
    try:
        if isinstance(frame, bytes | bytearray | memoryview):
            return bytes(frame).decode()
        return frame.encode().decode() if isinstance(frame, str) else None
    except UnicodeError:
        return None


# -- the reader


@attrs.frozen
class Header:
    """A call begins. `policy` is as recorded; `masked`: its words are."""

    line: int
    policy: Any
    settings: Mapping[str, float] | None = None
    call: str | None = None
    started: str | float | None = None
    labels: Mapping[str, str] | None = None
    masked: bool = False


@attrs.frozen
class Entry:
    """One input: a `frame`, an `event`, or why a frame was `bad`. `out`: the recorded actions, as JSON."""

    line: int
    t: float | None = None
    frame: str | bytes | None = None
    event: Event | None = None
    bad: str | None = None
    out: Any = None


@attrs.frozen
class Replayed:
    """One input and what the machine made of it.

    `line` counts from 1; `event` is None for a frame that could not be read; `turn` and `phase` are those after it;
    `out` what was recorded, as JSON values (None: nothing), and `differs` the same where the actions are others now;
    `header` the call's (None: bare frames)."""

    line: int
    t: float | None
    event: Event | None
    actions: tuple[Action, ...]
    turn: Turn | None
    phase: Phase
    out: Any
    differs: Any
    header: Header | None


OnError = Callable[[RecordingError], object]


def _raise(error: RecordingError) -> None:
    if not isinstance(error, TruncatedError):
        raise error
    warnings.warn(RecordingWarning(str(error)), stacklevel=3)


def read(lines: Iterable[str | bytes], *, on_error: OnError = _raise) -> Iterator[Header | Entry]:
    """The headers and inputs of a recording, or of a file of bare frames, a message a line.

    A line that cannot be read is a RecordingError with its number. It is raised; or, where `on_error` is given, handed
    to that, and the lines after it are read. A call's last line that was cut short is never raised, only warned of.
    Blank lines, unknown members and lines without an input are passed over. A newer format ends the reading."""
    return _read(lines, on_error, {})


def _read(lines: Iterable[str | bytes], on_error: OnError, changes: Mapping[str, Any]) -> Iterator[Header | Entry]:
    recorded = False  # has a header been seen?
    rest: Iterator[tuple[int, str | bytes]] = enumerate(lines, 1)
    ahead: list[tuple[int, str | bytes]] = []
    while (numbered := ahead.pop() if ahead else next(rest, None)) is not None:
        number, line = numbered
        data = _as_bytes(line)
        text = data.removeprefix(b"\xef\xbb\xbf").strip()
        if not text:
            continue
        try:
            entry = _entry(number, text, recorded, changes)
        except RecordingError as error:
            ahead += [line for line in [next(rest, None)] if line is not None]
            begun = text.startswith(b"{") if recorded else text[: len(BEGINS)] == BEGINS[: len(text)]
            last = _as_bytes(ahead[0][1]).startswith(BEGINS) if ahead else not data.endswith(b"\n")
            cut = isinstance(error, _NoJSONError) and begun and last
            on_error(TruncatedError("cut short; its writer was killed", number) if cut else error)
            if isinstance(error, _NewerError):
                return
            continue
        recorded |= isinstance(entry, Header)
        if entry is not None:
            yield entry


class _NewerError(RecordingError):
    pass


class _NoJSONError(RecordingError):
    pass


def _as_bytes(line: str | bytes) -> bytes:
    return line.encode("utf-8", "surrogatepass") if isinstance(line, str) else line


def _entry(number: int, line: bytes, recorded: bool, changes: Mapping[str, Any]) -> Header | Entry | None:
    try:
        members = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
        if not recorded and "type" in members:
            return Entry(number, frame=line)
        if "inkturns" in members:
            return _header(number, msgspec.json.decode(line))
        inputs = [name for name in INPUTS if name in members]
        if not inputs:
            return None if recorded else Entry(number, frame=line)
        if len(inputs) > 1:
            raise RecordingError(f"one input a line, not {' and '.join(inputs)}")
        value = msgspec.json.decode(members[inputs[0]])
        t = msgspec.json.decode(members["t"], type=int | float | None) if "t" in members else None
        out = msgspec.json.decode(members["out"]) if "out" in members else None
        if inputs[0] in ("event", "app"):
            return Entry(number, t, event=load_event(value, changes), out=out)
        text = converted(value, str)
        return Entry(number, t, frame=text, out=out) if inputs == ["frame"] else Entry(number, t, bad=text, out=out)
    except msgspec.ValidationError as error:
        raise RecordingError(f"no line of a recording: {error}", number) from None
    except RecordingError as error:
        raise type(error)(error.reason, number) from None
    except RecursionError:
        raise RecordingError("nested too deeply", number) from None
    except ValueError as error:  # msgspec's DecodeError and Python's UnicodeDecodeError
        raise _NoJSONError(f"no JSON: {error}", number) from None


def _header(number: int, values: dict[str, Any]) -> Header:
    version = converted(values["inkturns"], int)
    if version > FORMAT:
        raise _NewerError(
            f"recorded in format {version}, and this inkturns reads up to {FORMAT}: a newer one is needed"
        )
    about = {name: values.get(name) for name in ("settings", "call", "started", "labels")}
    return Header(number, values.get("policy"), **about, masked=values.get("text") is False)


def replay(
    lines: Iterable[str | bytes], policy: Policy | Mapping[str, Any] | None = None, *, on_error: OnError = _raise
) -> Iterator[Replayed]:
    """Each input of a recording, or of bare frames, with what a new machine makes of it now.

    It decides by the recorded policy; or by `policy`, where that is one; or, where `policy` is a mapping, by the
    recorded one with those fields changed. Errors are as in `read`; a call whose policy cannot be made is passed
    over."""
    changes = attrs.asdict(policy, recurse=False) if isinstance(policy, Policy) else policy or {}
    header: Header | None = None
    machine: TurnMachine | None = TurnMachine(Policy(**changes))
    for entry in _read(lines, on_error, changes):
        if isinstance(entry, Header):
            header, machine = entry, None
            try:
                machine = TurnMachine(policy if isinstance(policy, Policy) else load_policy(entry.policy, changes))
            except RecordingError as error:
                on_error(RecordingError(error.reason, entry.line))
        elif machine is not None:
            event, actions = _received(machine, entry)
            same = entry.out is None or [dump(action) for action in actions] == entry.out
            at = (entry.line, entry.t, event, actions, machine.turn, machine.phase)
            yield Replayed(*at, entry.out, None if same else entry.out, header)


def _received(machine: TurnMachine, entry: Entry) -> tuple[Event | None, tuple[Action, ...]]:
    try:
        event = entry.event if entry.frame is None else decode(entry.frame)
    except DecodeError as error:
        return None, (Report(ReportKind.BAD_FRAME, None, error.reason),)
    if event is None:
        return None, (Report(ReportKind.BAD_FRAME, None, entry.bad or ""),)
    return event, machine.receive(event, entry.t)
