"""Recordings, and files of bare frames: what is read of them, line by line.

Rules of this file: a line that cannot be read does not stop the reader, unless its caller wants that; a recording is
data, so nothing that it names is imported; no clock, loop, thread or logger. `recording` says what the lines hold.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import attrs
import msgspec

from inkturns.errors import RecordingError, RecordingWarning
from inkturns.events import Event
from inkturns.serialize import converted, load_event

__all__ = ["BEGINS", "FORMAT", "Entry", "Gap", "Header", "OnError", "TruncatedError", "raise_unless_truncated", "read"]

FORMAT = 1  # of the lines that a Recorder writes, and the newest that this reads
INPUTS = ("frame", "event", "app", "bad")
BEGINS = b'{"inkturns":'  # a call's header


class TruncatedError(RecordingError):
    """The last line of a call, cut short: its writer was killed. Or a pause, after which a replay cannot go on. All
    lines before it hold."""


@attrs.frozen
class Header:
    """A call begins. `policy` is as recorded; `redacted`: its words are; `version` of inkturns, None before 0.1.0."""

    line: int
    policy: Any
    settings: Mapping[str, float] | None = None
    call: str | None = None
    started: str | float | None = None
    labels: Mapping[str, str] | None = None
    version: str | None = None
    source: str | None = None
    sample: float | None = None
    redacted: bool = False


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
class Gap:
    """So many inputs were not written: the recorder was paused."""

    line: int
    inputs: int


OnError = Callable[[RecordingError], object]


def raise_unless_truncated(error: RecordingError) -> None:
    """What happens to an error where no `on_error` is given: a TruncatedError is a RecordingWarning, any other is
    raised."""
    if not isinstance(error, TruncatedError):
        raise error
    warnings.warn(RecordingWarning(str(error)), stacklevel=3)


def read(
    lines: Iterable[str | bytes],
    *,
    on_error: OnError = raise_unless_truncated,
    policy: Mapping[str, Any] | None = None,
    start: int = 1,
) -> Iterator[Header | Entry | Gap]:
    """The headers, inputs and gaps of a recording, or of a file of bare frames, a message a line.

    A line that cannot be read is a RecordingError with its number. It is raised; or, where `on_error` is given, handed
    to that, and the lines after it are read. A call's last line that was cut short is never raised, only warned of.
    Blank lines, unknown members and lines without an input are passed over. A newer format ends the reading.
    `policy` has fields that replace those of each policy that the application used in the call. `start` is the first
    line's number; where it is not 1, recorded calls stand before."""
    recorded = start > 1  # has a header been seen?
    rest: Iterator[tuple[int, str | bytes]] = enumerate(lines, start)
    ahead: list[tuple[int, str | bytes]] = []
    while (numbered := ahead.pop() if ahead else next(rest, None)) is not None:
        number, line = numbered
        data = _as_bytes(line)
        text = data.removeprefix(b"\xef\xbb\xbf").strip()
        if not text:
            continue
        try:
            entry = _entry(number, text, recorded, policy or {})
        except RecordingError as error:
            ahead += [line for line in [next(rest, None)] if line is not None]
            begun = text.startswith(b"{") if recorded else text[: len(BEGINS)] == BEGINS[: len(text)]
            last = _as_bytes(ahead[0][1]).startswith(BEGINS) if ahead else not data.endswith(b"\n")
            cut = isinstance(error, _NoJSONError) and begun and last
            on_error(TruncatedError("cut short; its writer was killed", number) if cut else error)
            if isinstance(error, _NewerError):
                return
            recorded |= text.startswith(BEGINS)  # what follows is no bare frame
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


def _entry(number: int, line: bytes, recorded: bool, policy: Mapping[str, Any]) -> Header | Entry | Gap | None:
    try:
        members = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
        if not recorded and "type" in members:
            return Entry(number, frame=line)
        if "inkturns" in members:
            return _header(number, msgspec.json.decode(line))
        if "unrecorded" in members and recorded:
            return Gap(number, msgspec.json.decode(members["unrecorded"], type=int))
        inputs = [name for name in INPUTS if name in members]
        if not inputs:
            return None if recorded else Entry(number, frame=line)
        if len(inputs) > 1:
            raise RecordingError(f"one input a line, not {' and '.join(inputs)}")
        value = msgspec.json.decode(members[inputs[0]])
        t = msgspec.json.decode(members["t"], type=int | float | None) if "t" in members else None
        out = msgspec.json.decode(members["out"]) if "out" in members else None
        if inputs[0] in ("event", "app"):
            return Entry(number, t, event=load_event(value, policy), out=out)
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
    about = {
        name: values.get(name) for name in ("settings", "call", "started", "labels", "version", "source", "sample")
    }
    return Header(number, values.get("policy"), **about, redacted=values.get("redacted") is True)
