"""How long the model takes, also where it was cancelled before it could show: Kaplan-Meier.

Rules of this file: pure. A thought that was cancelled before its first item says only that the item would have come
later: it is censored. Beyond the last first item that was seen nothing is known, and nothing is made up: that is inf.

Kaplan and Meier, "Nonparametric Estimation from Incomplete Observations", 1958. It is right where cancelling does not
depend on how long the model takes. It does where long words make both longer: so samples are kept apart by stratum.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from operator import neg

import attrs

__all__ = ["ENOUGH", "NEVER", "Latencies", "Stratum", "Survival", "stratum_of"]

ENOUGH = 20  # first items that a stratum needs; with fewer, a wider one is taken
NEVER = -1.0  # a time before every first item
NEARLY = 1e-12  # products of floats are not the fraction itself

Stratum = tuple[str, ...]  # arm, model, length of the words; a wider one is its beginning
Sample = tuple[float, bool]  # seconds, and whether the first item came then; False: it had not come by then


class Survival:
    """The share of first items that have not come by a time. `times` are those at which some came, `shares` what is
    left after each."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self.times: list[float] = []
        self.shares: list[float] = []
        known = sorted(samples)
        at_risk, share, at = len(known), 1.0, 0
        while at < len(known):
            time = known[at][0]
            here = at
            while here < len(known) and known[here][0] == time:
                here += 1
            came = sum(seen for _, seen in known[at:here])
            if came:  # those that are censored at the same time are still waited for
                share *= (at_risk - came) / at_risk
                self.times.append(time)
                self.shares.append(share)
            at_risk -= here - at
            at = here

    @property
    def last(self) -> float:
        """The last time at which a first item came; beyond it nothing is known. 0.0 where none ever came."""
        return self.times[-1] if self.times else 0.0

    def share(self, time: float) -> float:
        """The share that has not come by then; by `last` at the latest, no more is known."""
        at = bisect_right(self.times, time)
        return self.shares[at - 1] if at else 1.0

    def quantile(self, part: float) -> float | None:
        """The time by which this part has come; None where so much was never seen to come."""
        time = self.later(NEVER, 1 - part)
        return None if time == math.inf else time

    def later(self, than: float, chance: float) -> float:
        """The time by which only `chance` is left of those that had not come by `than`: a draw, where `chance` is drawn
        from 0 to 1. inf where so much was never seen to come."""
        left = chance * self.share(than) + NEARLY
        at = max(bisect_right(self.times, than), bisect_left(self.shares, -left, key=neg))
        return self.times[at] if at < len(self.times) else math.inf


def stratum_of(arm: str, model: str | None, words: str) -> Stratum:
    """Which thoughts are alike: those of the same arm, of the same model, and on words of about the same number (1, 2
    to 3, 4 to 7, 8 to 15 …)."""
    return arm, model or "", str(len(words.split()).bit_length())


@attrs.define
class Latencies:
    """What is known of the time from a thought's beginning to its first item, by stratum."""

    _samples: dict[Stratum, list[Sample]] = attrs.field(init=False, factory=dict)
    _survivals: dict[Stratum, Survival | None] = attrs.field(init=False, factory=dict)

    def add(self, stratum: Stratum, seconds: float, *, seen: bool) -> None:
        """`seen`: the first item came then; otherwise it had not come by then."""
        for wide in range(len(stratum) + 1):
            self._samples.setdefault(stratum[:wide], []).append((seconds, seen))
        self._survivals.clear()

    @property
    def known(self) -> bool:
        """Whether any first item was seen."""
        return bool(self.of(()).times)

    def of(self, stratum: Stratum) -> Survival:
        """Of this stratum or, where too few first items came in it, of the narrowest wider one that has enough, or of
        all."""
        for wide in range(len(stratum), 0, -1):
            if (found := self._survival(stratum[:wide], ENOUGH)) is not None:
                return found
        return self._survival((), 0) or Survival(())

    def _survival(self, stratum: Stratum, enough: int) -> Survival | None:
        if stratum not in self._survivals:
            samples = self._samples.get(stratum, [])
            has_enough = sum(seen for _, seen in samples) >= enough
            self._survivals[stratum] = Survival(samples) if has_enough else None
        return self._survivals[stratum]
