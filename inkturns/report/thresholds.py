"""Flux's turns under its own thresholds against those under higher ones: rows and figures of both.

Rules of this file: pure. The same policy decides in both. All figures of the other are modelled: no message tells what
the user would have said to other replies.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import attrs
from msgspec.structs import replace

from inkturns.adapters.flux import Flux, FluxSettings
from inkturns.errors import DecodeError, RecordingError
from inkturns.events import Tick
from inkturns.machine import TurnMachine
from inkturns.policy import Policy
from inkturns.reader import Header, OnError
from inkturns.report.drafts import CallDraft
from inkturns.report.fleet import TIMES, Fleet
from inkturns.report.flux import EOT_TIMEOUT_MS, FluxMessage, flux_messages, raise_thresholds
from inkturns.report.question import Question
from inkturns.report.rows import TurnRow
from inkturns.report.whatif import GRADES as OF_POLICIES
from inkturns.report.whatif import NO_ITEMS

__all__ = ["Thresholds", "rows_of_flux"]


NOT_KNOWN = "not known"
GRADES = {name: NOT_KNOWN if grade == NOT_KNOWN else "modelled" for name, grade in OF_POLICIES.items()}
SHOWN = ("p50", "p90", "p99")


@attrs.define(eq=False)
class Thresholds:
    """Flux's turns as they were against those of other thresholds, over any number of files. `refused`: files of which
    this cannot be asked, by the reason."""

    settings: FluxSettings
    question: Question = attrs.field(factory=Question)  # for its latency
    recorded: Fleet = attrs.field(init=False, factory=Fleet)
    other: Fleet = attrs.field(init=False, factory=Fleet)
    eager: Counter[str] = attrs.field(init=False, factory=Counter)
    ends: Counter[str] = attrs.field(init=False, factory=Counter)
    refused: Counter[str] = attrs.field(init=False, factory=Counter)

    def add(self, name: str, lines: Iterable[str | bytes], policy: Policy, on_error: OnError) -> None:
        """Adds a file. `policy` decides in both."""
        try:
            messages = flux_messages(lines, on_error)
            raised = raise_thresholds(messages, self.settings)
        except (RecordingError, ValueError) as error:
            self.refused[error.reason if isinstance(error, RecordingError) else str(error)] += 1
            return
        self.eager += raised.eager
        self.ends += raised.ends
        self._take(self.recorded, name, rows_of_flux(messages, policy, on_error))
        self._take(self.other, name, rows_of_flux(raised.messages, policy, on_error, raised.later))

    def _take(self, fleet: Fleet, name: str, rows: list[TurnRow]) -> None:
        fleet.add(self.question.of(replace(row, call=name) for row in rows)[0], name)

    def not_known(self) -> list[str]:
        """What the figures do not say, in sentences."""
        found = ["interrupts, backchannels and false_end_rate: they depend on what the user would have said"]
        if self.ends["later"]:
            found.append(
                f"how much later {self.ends['later']} of {self.ends.total()} ends would have come: by "
                f"{(self.settings.eot_timeout_ms or EOT_TIMEOUT_MS) / 1000:g} s at the most; their gaps are left out"
            )
        if self.recorded.sums().counts["turns"] and not self.question.latency:
            found.append(NO_ITEMS)
        if self.ends["joined"]:
            found.append(f"whether the user would have spoken on, where turns are joined: {self.ends['joined']} times")
        return found

    def as_json(self) -> dict[str, Any]:
        """One object: the figures of both, their grades, and what became of the eager ends and the ends."""
        return {
            "thresholds": self.settings.given(),
            "recorded": _shown(self.recorded),
            "other": {**_shown(self.other), **{name: None for name, grade in GRADES.items() if grade == NOT_KNOWN}},
            "grades": GRADES,
            "eager_ends": {name: self.eager[name] for name in ("same", "later", "none")},
            "ends": {name: self.ends[name] for name in ("same", "joined", "later")},
            "not_known": self.not_known(),
            "refused": dict(self.refused),
        }


def _shown(fleet: Fleet) -> dict[str, Any]:
    figures, intervals = fleet.figures(), fleet.intervals()
    return {**_short(figures), "intervals": _short(intervals)}


def _short(figures: dict[str, Any]) -> dict[str, Any]:
    return {
        name: {of: value[of] for of in SHOWN} if name in TIMES and value is not None else value
        for name, value in figures.items()
    }


def rows_of_flux(
    messages: list[FluxMessage], policy: Policy, on_error: OnError, later: Iterable[float | None] = ()
) -> list[TurnRow]:
    """The turns of these messages, as this policy decides. The times of a turn that ends at one of `later` are None."""
    late, unknown = set(later), set()
    machine, draft, flux = TurnMachine(policy), CallDraft(Header(0, None)), Flux()
    for message in messages:
        for tick in _ticks(machine, message.t):
            draft.take(tick, None, machine.receive(Tick(), tick))
        try:
            events = flux.events(message.values)
        except DecodeError as error:
            on_error(RecordingError(f"no message of Flux: {error.reason}"))
            continue
        for event in events:
            if message.event == "EndOfTurn" and message.t in late and machine.turn is not None:
                unknown.add(machine.turn.number)
            draft.take(message.t, event, machine.receive(event, message.t))
    return [replace(row, gap=None, head_start=None) if row.number in unknown else row for row in draft.rows()]


def _ticks(machine: TurnMachine, until: float | None) -> Iterator[float]:
    """When the machine wants a Tick before then; each is fed before the next is asked for."""
    while until is not None and (due := machine.deadline) is not None and due <= until:
        yield due
