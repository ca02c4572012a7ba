"""A Poisson bootstrap over groups of calls: what a measure would be, had other calls like these been recorded.

Rules of this file: pure, and no chance: the draws are the same in each process, so that figures are. In each replicate
each group counts as often as a Poisson(1) draw says.

The draws of all replicates stand in one whole number, 64 bits each: so one multiplication of Python's whole numbers
does for all of them, and numpy is not needed.
"""

import math
import random
import sys
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from operator import mul

__all__ = ["GROUPS", "NEAREST", "REPLICATES", "drawn", "interval", "of_ratio", "of_times"]

GROUPS = 128
REPLICATES = 400
NEAREST = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}  # quantiles, by nearest rank
LANE = 8  # bytes of a replicate's count


@cache
def drawn() -> list[list[int]]:
    """How often each group is drawn in each replicate: Poisson(1)."""
    chance = random.Random(1)

    def poisson() -> int:
        times, rest = 0, chance.random()
        while rest > math.exp(-1):
            times, rest = times + 1, rest * chance.random()
        return times

    return [[poisson() for _ in range(GROUPS)] for _ in range(REPLICATES)]


@cache
def _packed() -> list[int]:
    """The draws of each group, all replicates in one number."""
    lanes = [b"".join(one.to_bytes(LANE, sys.byteorder) for one in draws) for draws in zip(*drawn(), strict=True)]
    return [int.from_bytes(one, sys.byteorder) for one in lanes]


def _unpacked(lanes: int) -> Sequence[int]:
    return memoryview(lanes.to_bytes(LANE * REPLICATES, sys.byteorder)).cast("Q")


def of_ratio(part: Mapping[int, int], whole: Mapping[int, int]) -> list[float | None]:
    """A ratio in each replicate, from the counts by group; None where it would divide by 0."""
    parts, wholes = _replicated(part), _replicated(whole)
    return [p / w if w else None for p, w in zip(parts, wholes, strict=True)]


def _replicated(counts: Mapping[int, int]) -> list[int]:
    """The sum of the counts in each replicate. They may be too large for a lane."""
    all_groups = [counts.get(group, 0) for group in range(GROUPS)]
    return [sum(map(mul, all_groups, draw)) for draw in drawn()]


def of_times(groups: Mapping[int, Mapping[int, int]]) -> dict[str, list[int | None]]:
    """The bucket of each quantile in each replicate, from how many values each group has in each bucket; None where a
    replicate has no values."""
    packed, by_bucket = _packed(), dict[int, int]()
    for group, buckets in groups.items():
        for each, n in buckets.items():
            by_bucket[each] = by_bucket.get(each, 0) + n * packed[group]
    names, so_far, sums = sorted(by_bucket), 0, list[Sequence[int]]()
    for each in names:
        so_far += by_bucket[each]
        sums.append(_unpacked(so_far))
    found: dict[str, list[int | None]] = {of: [] for of in NEAREST}
    for seen in zip(*sums, strict=True) if sums else ((),) * REPLICATES:
        total = seen[-1] if seen else 0
        for of, share in NEAREST.items():
            rank = max(1, math.ceil(share * total))
            found[of].append(names[bisect_left(seen, rank)] if total else None)
    return found


def interval(values: Iterable[float | None]) -> list[float] | None:
    """Between which 95 % of the known values are."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return None
    return [known[math.floor(0.025 * (len(known) - 1))], known[math.ceil(0.975 * (len(known) - 1))]]
