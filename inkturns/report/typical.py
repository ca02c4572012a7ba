"""What thoughts and replies are usually like, for those of another policy that never were.

Rules of this file: pure. Durations are medians; usage is a mean, because usage is added up.
"""

from collections.abc import Iterable
from statistics import median_low

import attrs

from inkturns.report.drafts import UsageNote
from inkturns.report.past import KnownReply, PastCall

__all__ = ["Gathered", "Typical"]


@attrs.frozen
class Typical:
    """making             seconds from a thought's first item to its last
    take_lag              seconds from when a reply could begin until `respond` took its first item
    lag                   the same until it was audible; None where no recording says when a reply was
    length                seconds for which a reply is heard
    adopted, cancelled    what a thought uses; None where no usage was told"""

    making: float = 0.0
    take_lag: float = 0.0
    lag: float | None = None
    length: float = 0.0
    adopted: UsageNote | None = None
    cancelled: UsageNote | None = None


@attrs.define
class Gathered:
    """Tell it the recorded calls; then it knows what is typical."""

    _makings: list[float] = attrs.field(init=False, factory=list)
    _take_lags: list[float] = attrs.field(init=False, factory=list)
    _lags: list[float] = attrs.field(init=False, factory=list)
    _lengths: list[float] = attrs.field(init=False, factory=list)
    _adopted: list[UsageNote] = attrs.field(init=False, factory=list)
    _cancelled: list[UsageNote] = attrs.field(init=False, factory=list)

    def add(self, past: PastCall) -> None:
        for turn in past.turns.values():
            for thought in turn.thoughts:
                self._makings += _known(thought.making)
                if thought.note is not None and thought.usage is not None:
                    usages = self._adopted if thought.note.outcome == "adopted" else self._cancelled
                    usages.append(thought.usage)
            if turn.reply is not None:
                self._add_reply(turn.reply)

    def _add_reply(self, reply: KnownReply) -> None:
        if reply.taken is not None:
            self._take_lags.append(reply.take_lag)
        self._lags += _known(reply.lag)
        if not reply.cut:
            self._lengths += _known(reply.length)

    def typical(self) -> Typical:
        return Typical(
            making=_median(self._makings) or 0.0,
            take_lag=_median(self._take_lags) or 0.0,
            lag=_median(self._lags),
            length=_median(self._lengths) or 0.0,
            adopted=_mean(self._adopted),
            cancelled=_mean(self._cancelled),
        )


def _known(value: float | None) -> Iterable[float]:
    return () if value is None else (value,)


def _median(some: list[float]) -> float | None:
    return median_low(some) if some else None


def _mean(some: list[UsageNote]) -> UsageNote | None:
    if not some:
        return None
    n = len(some)
    return UsageNote(
        input_tokens=round(sum(one.input_tokens for one in some) / n),
        output_tokens=round(sum(one.output_tokens for one in some) / n),
        cost=sum(one.cost for one in some) / n,
    )
