"""The metrics of calls: histograms in seconds, and counters.

Rules of this file: no attribute holds a call's id, a number of a turn or words, so that the number of series does not
grow with the calls. What is counted when is said in `call.py`.
"""

from collections.abc import Mapping

from opentelemetry.metrics import Histogram, MeterProvider
from opentelemetry.util.types import AttributeValue

from inkturns.outcomes import Usage
from inkturns.recording import VERSION
from inkturns.telemetry import names

__all__ = ["Metrics"]

Attributes = Mapping[str, AttributeValue]


class Metrics:
    """The instruments of a provider. `common` are the attributes of every point; `currency` is that of the costs,
    which are counted where it is given."""

    def __init__(self, provider: MeterProvider, common: Attributes, currency: str | None) -> None:
        meter = provider.get_meter("inkturns", VERSION)
        self._common = dict(common)
        self._currency = currency

        def seconds(name: str, what: str) -> Histogram:
            return meter.create_histogram(name, "s", what, explicit_bucket_boundaries_advisory=names.BUCKETS)

        self.first_item = seconds("inkturns.turn.end_to_first_item", "End of a turn to its reply's first item")
        self.first_sound = seconds("inkturns.turn.end_to_first_sound", "End of a turn until its reply is audible")
        self.gap = seconds("inkturns.thought.gap", "Eager end of the adopted thought to the end of its turn")
        self.saved = seconds("inkturns.thought.saved", "What thinking ahead gained, of each answered turn")
        self.latency = seconds("inkturns.thought.time_to_first_item", "Beginning of a thought to its first item")
        self._turns = meter.create_counter("inkturns.turns", "{turn}", "Closed turns")
        self._thoughts = meter.create_counter("inkturns.thoughts", "{thought}", "Thoughts that are over")
        self._replies = meter.create_counter("inkturns.replies", "{reply}", "Replies that are over")
        self._reports = meter.create_counter("inkturns.reports", "{report}", "What was out of contract")
        self._input = meter.create_counter("inkturns.usage.input_tokens", "{token}", "Input tokens of thoughts")
        self._output = meter.create_counter("inkturns.usage.output_tokens", "{token}", "Output tokens of thoughts")
        self._cost = meter.create_counter("inkturns.usage.cost", "", "What thoughts cost; the currency is an attribute")
        self._calls = meter.create_up_down_counter("inkturns.open_calls", "{call}", "Calls that are going on")

    def call(self, change: int) -> None:
        self._calls.add(change, self._common)

    def turn(self, end: str, *, answered: bool) -> None:
        self._turns.add(1, {**self._common, names.END: end, names.ANSWERED: answered})

    def thought(self, outcome: str, reason: str | None, *, speculative: bool) -> None:
        of = {**self._common, names.OUTCOME: outcome, names.SPECULATIVE: speculative}
        self._thoughts.add(1, of if reason is None else {**of, names.REASON: reason})

    def reply(self, outcome: str) -> None:
        self._replies.add(1, {**self._common, names.REPLY_OUTCOME: outcome})

    def report(self, kind: str) -> None:
        self._reports.add(1, {**self._common, names.KIND: kind})

    def usage(self, used: Usage, outcome: str) -> None:
        of = {**self._common, names.OUTCOME: outcome}
        self._input.add(used.input_tokens, of)
        self._output.add(used.output_tokens, of)
        if used.cost and self._currency is not None:
            self._cost.add(used.cost, {**of, names.CURRENCY: self._currency})

    def seconds(self, histogram: Histogram, value: float | None, outcome: str | None = None) -> None:
        if value is not None:
            histogram.record(value, self._common if outcome is None else {**self._common, names.OUTCOME: outcome})
