"""What the commands print of a call: one row for each input, and a summary.

Rules of this file:
- Text from the wire is printable text, never markup and never a control sequence (F57).
- A row is printed when its input is read, so the columns have fixed widths.
- Needs `rich` (extra `cli`).
"""

import statistics
from collections import Counter
from itertools import zip_longest
from typing import Any

import attrs
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from inkturns.actions import Abandon, Action, Cancel, EndReason, Hear, Interrupt, Listen, Report, Respond, Think
from inkturns.events import Disconnected, Event, ReplyDone, ReplyStarted, ServerError, ThoughtFailed, Unknown, UsePolicy
from inkturns.policy import Policy
from inkturns.printable import printable
from inkturns.replay import Replayed
from inkturns.serialize import dump_policy
from inkturns.table import Phase

__all__ = ["Summary", "Timeline", "many"]

PHASES = {Phase.IDLE: "dim", Phase.SPEAKING: "cyan", Phase.EAGER_ENDED: "yellow"}
WHEN, EVENT, PHASE = 8, 15, 11
DEFAULTS = dump_policy(Policy())


def many(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def words_of(name: str) -> str:
    return name.replace("_", " ")


# -- the rows


@attrs.define
class Timeline:
    """One row for each input: when it came (seconds since the call's first input, or the line's number), its type, the
    phase after it, the text as it grows, the actions."""

    out: Console
    start: float | None = None

    def begin(self, title: str, one: Replayed) -> None:
        """A call begins with this input."""
        self.start = one.t
        heading = Text(printable(title), "bold")
        if (header := one.header) is not None:
            labels = header.labels if isinstance(header.labels, dict) else {}
            about = {"call": header.call, "started": header.started, **labels}
            said = "".join(f"  {name} {value}" for name, value in about.items() if value is not None)
            heading.append(printable(said), "not bold dim")
        self._print(heading)

    def show(self, one: Replayed, notes: list[str]) -> None:
        """`notes`: what `Summary.add` returned, one for each action."""
        rest = max(self.out.width - WHEN - EVENT - PHASE - 8, 30)
        wide = rest * 4 // 7
        when = f"{one.line}" if one.t is None or self.start is None else f"{one.t - self.start:.3f}"
        left = Text(f"{when:>{WHEN}}  ", "dim")
        left.append(_fitted(_event_name(one.event), EVENT), "not dim" if one.event is not None else "not dim red")
        left.append("  ").append(_fitted(words_of(one.phase), PHASE), f"not dim {PHASES[one.phase]}").append("  ")
        pairs = zip(one.actions, notes, strict=True)
        said = Text(", ").join(_said(action, note) for action, note in pairs if not _grows(action))
        if one.differs is not None:
            said.append(f"{', ' if said else ''}differs (line {one.line})", "red")
        actions = list(said.wrap(self.out, rest - wide))
        text = _text(one)
        grows = hasattr(one.event, "transcript") and not any(isinstance(a, Respond | Abandon) for a in one.actions)
        texts = [_tail(text, wide)] if grows else list(text.wrap(self.out, wide))
        empty = Text(" " * left.cell_len)
        for start, words, action in zip_longest([left], texts, actions):
            row = (start or empty).copy().append_text(words or Text())
            if action:
                row.append(" " * (left.cell_len + wide + 2 - row.cell_len)).append_text(action)
            row.rstrip()
            self._print(row)

    def _print(self, row: Text) -> None:
        self.out.print(row, soft_wrap=True)


def _grows(action: Action) -> bool:
    return isinstance(action, Hear) and action.delta is not None


def _said(action: Action, note: str) -> Text:
    more = f", {note}" if note else ""
    match action:
        case Listen(turn):
            goes_on = f", goes on from {turn.continues}" if turn.continues is not None else ""
            return Text(f"listen, turn {turn.number}{goes_on}", "cyan")
        case Hear():
            return Text("revised", "yellow")
        case Think(_, thought, speculative):
            return Text(f"think {thought}{', ahead' if speculative else ''}", "magenta")
        case Cancel(_, thought, reason):
            return Text(f"cancel {thought}: {words_of(reason)}", "red")
        case Respond(turn, thought):
            end = f", {turn.end}" if turn.end is not EndReason.SERVER else ""
            return Text(f"respond {thought}{more}{end}", "bold green")
        case Interrupt(number):
            return Text(f"interrupt reply {number}" if number else "interrupt", "bold red")
        case Abandon(turn):
            return Text(f"abandon: {turn.end}", "bold yellow")
        case Report(kind, _, detail):
            return Text(f"report {words_of(kind)}: {printable(detail)}", "red")
        case _:
            return Text(type(action).__name__.lower(), "yellow")


def _event_name(event: Event | None) -> str:
    match event:
        case None:
            return "bad frame"
        case Unknown():
            return printable(event.kind)
        case ThoughtFailed(number, thought):
            return f"failed {number}.{thought}"
        case ReplyStarted(number) | ReplyDone(number):
            return f"{_tag(event)}{'' if number is None else f' {number}'}"
        case _:
            return _tag(event)


def _tag(event: Event) -> str:
    return words_of(str(type(event).__struct_config__.tag).removeprefix("turn."))


def _text(one: Replayed) -> Text:
    """The words; those that the input added or revised are bold."""
    match one.event:
        case ServerError(title=title, message=message):
            text = ": ".join(part for part in (title, message) if part)
        case Disconnected(reason):
            text = reason or ""
        case UsePolicy(policy):
            text = ", ".join(
                f"{name}={value}" for name, value in dump_policy(policy).items() if value != DEFAULTS[name]
            )
        case event:
            text = getattr(event, "transcript", "")
    added = 0
    for action in one.actions:
        if isinstance(action, Hear):
            added = len(action.turn.transcript if action.delta is None else action.delta)
        elif isinstance(action, Respond | Abandon) and not isinstance(one.event, ServerError):
            text = action.turn.transcript or text
    styled = Text(printable(text), "dim")
    styled.stylize("not dim bold", max(len(text) - added, 0))
    return styled


def _tail(text: Text, width: int) -> Text:
    """The end of the text that fits, cut between words where a space is near."""
    plain = text.plain
    if cell_len(plain[: width + 1]) <= width and len(plain) <= width:
        return text
    start = max(len(plain) - width + 2, 0)
    while cell_len(plain[start:]) > width - 2:
        start += 1
    gap = plain.find(" ", start, start + 12)
    return Text("… ", "dim").append_text(text[len(plain) if start >= len(plain) else max(start, gap + 1) :])


def _fitted(text: str, width: int) -> str:
    return set_cell_size(text if cell_len(text) <= width else set_cell_size(text, width - 1) + "…", width)


# -- the summary


@attrs.define
class Summary:
    """What became of the turns and thoughts of all calls."""

    inputs: int = 0
    answered: Counter[str] = attrs.Factory(Counter)  # by how they ended
    abandoned: Counter[str] = attrs.Factory(Counter)
    thoughts: Counter[str] = attrs.Factory(Counter)
    cancelled: Counter[str] = attrs.Factory(Counter)
    reports: Counter[str] = attrs.Factory(Counter)
    head_starts: list[float] = attrs.Factory(list)
    differing: list[str] = attrs.Factory(list)
    open: list[dict[str, Any]] = attrs.Factory(list)
    _last: tuple[str, Replayed] | None = None
    _now: float | None = None
    _live: tuple[bool, float | None] | None = None  # the live thought: speculative, since when

    def add(self, name: str, one: Replayed) -> list[str]:
        """Counts an input. Returns a note on each of its actions: what only the inputs before it can tell."""
        self._last = (name, one)
        self.inputs += 1
        if one.t is not None and (self._now is None or one.t > self._now):
            self._now = one.t
        if one.differs is not None and not (one.header and one.header.redacted):  # two redacted texts may be equal
            self.differing.append(f"{name}:{one.line}")
        return [self._count(action) for action in one.actions]

    def close(self) -> None:
        """The call has no more inputs: counts the turn and the thought that are still open."""
        if self._last is not None and (turn := self._last[1].turn) is not None:
            self.open.append({"file": self._last[0], "number": turn.number, "transcript": turn.transcript})
        if self._live is not None:
            self.thoughts["still live"] += 1
        self._last = self._now = self._live = None

    def _count(self, action: Action) -> str:
        match action:
            case Think(speculative=speculative):
                self._live = (speculative, self._now)
            case Cancel(reason=reason):
                self.cancelled[str(reason)] += 1
                self._live = None
            case Abandon(turn):
                self.abandoned[str(turn.end)] += 1
            case Report(kind):
                self.reports[str(kind)] += 1
            case Respond(turn):
                self.answered[str(turn.end)] += 1
                ahead, since = self._live or (False, None)
                self._live = None
                self.thoughts["adopted" if ahead else "begun at the end"] += 1
                if ahead and since is not None and self._now is not None:
                    self.head_starts.append(self._now - since)
                    return f"adopted {self.head_starts[-1]:.3f} s ahead"
                return "adopted" if ahead else ""
        return ""

    def head_start(self) -> dict[str, float]:
        gained = self.head_starts
        return {"min": min(gained), "median": statistics.median(gained), "max": max(gained)} if gained else {}

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        names = ("inputs", "answered", "abandoned", "thoughts", "cancelled", "reports", "open", "differing")
        return {name: getattr(self, name) for name in names} | {"head_start": self.head_start() or None}

    def show(self, out: Console) -> None:
        turns = {f"answered ({end})": n for end, n in self.answered.items()}
        turns |= {f"abandoned ({end})": n for end, n in self.abandoned.items()} | {"still open": len(self.open)}
        thoughts = {**self.thoughts, **{f"cancelled ({words_of(reason)})": n for reason, n in self.cancelled.items()}}
        rows = {
            "inputs": str(self.inputs),
            "turns": _counted(turns),
            "thoughts": _counted(thoughts),
            "head start": ", ".join(f"{name} {seconds:.3f} s" for name, seconds in self.head_start().items()),
            "reports": _counted({words_of(kind): n for kind, n in self.reports.items()}),
        }
        out.print()
        for name, value in rows.items():
            if value:
                out.print(Text(f"{name:>{WHEN + 2}}  ", "dim").append(value, "not dim"), soft_wrap=True)
        for turn in self.open:
            said = f': "{turn["transcript"]}"' if turn["transcript"] else ", without words"
            line = f"{turn['file']}: turn {turn['number']} is still open{said}"
            out.print(Text(printable(line), "yellow"), soft_wrap=True)
        if self.differing:
            first = ", ".join(self.differing[:10]) + (" …" if len(self.differing) > 10 else "")
            line = f"differs from the recording: {many(len(self.differing), 'input')}, {first}"
            out.print(Text(printable(line), "red"), soft_wrap=True)


def _counted(counts: dict[str, int]) -> str:
    listed = ", ".join(f"{n} {name}" for name, n in counts.items() if n)
    return f"{sum(counts.values())}: {listed}" if listed else "0"
