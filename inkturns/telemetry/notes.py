"""What telemetry reads of an agent's notes, and of the times of a call.

Rules of this file: values alone; the same of a live call and of a recording.
"""

import attrs
from msgspec import Struct

from inkturns.outcomes import Usage

__all__ = ["Clock", "ReplyNote", "ThoughtNote"]

LONGEST = 1e8  # seconds of a call, three years: a clock that says more is wrong, and OTLP cannot say it


class ThoughtNote(Struct, kw_only=True):
    """What an agent's "settled" note says that telemetry uses."""

    thought: int
    outcome: str
    error: str | None = None
    began: float | None = None
    first_item: float | None = None
    finished: float | None = None
    cancelled_at: float | None = None
    items: int = 0
    usage: Usage | None = None


class ReplyNote(Struct, kw_only=True):
    """What an agent's "replied" note says that telemetry uses."""

    outcome: str
    over_at: float
    first_item: float | None = None
    text: str = ""


@attrs.frozen
class Clock:
    """Turns the call's seconds into nanoseconds since 1970: `begins` is `at` there."""

    begins: float
    at: int

    def __call__(self, t: float) -> int:
        return max(0, self.at + round(min(max(t - self.begins, -LONGEST), LONGEST) * 1e9))
