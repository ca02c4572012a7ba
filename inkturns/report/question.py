"""What is asked of recordings: which calls count, what tells arms apart, what is assumed where nothing was measured.

Rules of this file: pure; a row goes in, and the row that counts comes out. What is assumed is modelled, and the report
says so; what was measured is never replaced.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Annotated

import attrs
import msgspec
from msgspec.structs import replace

from inkturns.redact import hashed
from inkturns.report.rows import ThoughtRow, TurnRow

__all__ = ["Price", "Question", "moment_of", "since"]

PERIODS = {"d": 86_400, "h": 3_600, "m": 60}
MILLION = 1_000_000
Money = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
FIRST = datetime.min.replace(tzinfo=UTC)
SINCE_1970 = re.compile(r"\d{9,10}(\.\d*)?")  # from 1973 to 2286; others are another clock's, or milliseconds


@attrs.frozen
class Price:
    """What a model costs, in money for a million tokens."""

    input: Money
    output: Money


@attrs.frozen(kw_only=True)
class Question:
    """Everything has a default: all calls, no arms, nothing assumed.

    by, cluster   as in `Fleet`
    since         only calls that began at this moment or later
    where         only calls with these labels
    latency       seconds from a thought's beginning to its first item, where none was measured: one value, or samples
                  that are drawn from
    prices        by model; "*" is any other. They fill in what unused thoughts cost, where it was not told
    hash_calls    whether calls' ids are hashed"""

    by: str | None = None
    cluster: str | None = None
    since: datetime | None = None
    where: Mapping[str, str] = attrs.field(factory=dict)
    latency: tuple[float, ...] = ()
    prices: Mapping[str, Price] = attrs.field(factory=dict)
    hash_calls: bool = False

    @property
    def is_of_some(self) -> bool:
        """Whether only some calls count."""
        return self.since is not None or bool(self.where)

    def of(self, rows: Iterable[TurnRow]) -> tuple[list[TurnRow], int]:
        """The rows of one recording that count, as they count; and of how many calls nobody knows when they began,
        where that is asked."""
        found: list[TurnRow] = []
        undated: set[int] = set()
        for row in rows:
            if any(row.labels.get(name) != value for name, value in self.where.items()):
                continue
            if self.since is not None:
                began = moment_of(row.started)
                if began is None:
                    undated.add(row.begins)
                if began is None or began < self.since:
                    continue
            found.append(self._counted(row))
        return found, len(undated)

    def _counted(self, row: TurnRow) -> TurnRow:
        if self.latency:
            row = with_latency(row, self.latency)
        if self.prices:
            row = with_prices(row, self.prices)
        if self.hash_calls and row.call is not None:
            row = replace(row, call=hashed(row.call))
        return row


def moment_of(text: str | None) -> datetime | None:
    """When a call began: ISO text (without a zone: UTC), or seconds since 1970 as text. None where it is neither: so
    long after 1970 that it is milliseconds, or so early that another clock counted them."""
    if text is None:
        return None
    if SINCE_1970.fullmatch(text):
        return datetime.fromtimestamp(float(text), UTC)
    if re.fullmatch(r"[\d.]+", text) and len(text) != len("20260131"):
        return None  # Python would take 1795010112123 for a moment of the year 1795
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def since(text: str, now: datetime) -> datetime:
    """The moment that a user means: a date, a time, or a period before now (30d, 12h, 90m). Raises ValueError with a
    sentence."""
    if period := re.fullmatch(r"(\d{1,6})([dhm])", text):
        ago = timedelta(seconds=int(period[1]) * PERIODS[period[2]])
        return now - min(ago, now - FIRST)
    found = moment_of(text) if not re.fullmatch(r"[\d.]+", text) else None
    if found is None:
        raise ValueError(f"{text} is no date (2026-01-31), no time (2026-01-31T12:00) and no period (30d, 12h, 90m)")
    return found


def with_latency(row: TurnRow, samples: tuple[float, ...]) -> TurnRow:
    """The row as it would be, had the model's first item come so late. A row whose first item was measured, or whose
    reply has no head start, stays as it is. Which sample is drawn depends on the call and the turn alone."""
    if row.first_item is not None or row.head_start is None:
        return row
    key = f"{row.call} {row.started} {row.begins} {row.number}".encode("utf-8", "surrogatepass")
    first_item = samples[int.from_bytes(sha256(key).digest()[:8]) % len(samples)]
    return replace(row, first_item=first_item, saved=min(row.head_start, first_item))


def with_prices(row: TurnRow, prices: Mapping[str, Price]) -> TurnRow:
    """The row with costs where none were told. A cancelled stream often sends no usage: then its tokens are taken to be
    those of its turn's adopted thought, without the output where its first item had not come. That is the most that it
    can have cost."""
    adopted = next((one for one in row.thoughts if one.outcome == "adopted"), None)
    return replace(row, thoughts=tuple(_priced(one, adopted, prices) for one in row.thoughts))


def _priced(thought: ThoughtRow, adopted: ThoughtRow | None, prices: Mapping[str, Price]) -> ThoughtRow:
    like = thought if thought.usage else adopted
    if thought.cost or thought.ran is False or like is None or not like.usage:
        return thought
    price = prices.get(thought.model or like.model or "*", prices.get("*"))
    if price is None:
        return thought if thought.usage or not like.cost else replace(thought, cost=like.cost)
    written = like.output_tokens if thought.usage or thought.first_item is not None else 0
    return replace(thought, cost=((like.tokens - like.output_tokens) * price.input + written * price.output) / MILLION)
