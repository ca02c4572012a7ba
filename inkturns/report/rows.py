"""The rows of a report: what a recording says of one turn.

Rules of this file: values alone. Times are seconds. Each field says how it is known: *measured* (a line of the
recording says it), *derived* (computed from what lines say); None is *absent*: the recording does not hold it. A row
holds no words of the caller's.
"""

from typing import Any

from msgspec import Struct, field

__all__ = ["ThoughtRow", "TurnRow"]


class ThoughtRow(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thought of a turn. What its model did is known of an Agent's thoughts only.

    number        its number in the turn (measured)
    speculative   whether it began before the turn's end (measured)
    outcome       "adopted", "cancelled", or "failed": it raised, adopted or not (measured)
    reason        why it was cancelled (measured)
    exact         whether the turn's final text is, to the letter, the one that it was begun on (derived)
    ran           whether `think` was called: one that was cancelled at once never ran; None: no Agent's (measured)
    first_item    from its beginning to its first item; L in the formulas (derived from measured times)
    ended         from its beginning until it was finished or cut (derived)
    finished      whether all of it was made; None: no Agent's (measured)
    usage         whether the model's usage was told (measured)
    tokens        input and output tokens; 0 where no usage was told (measured)
    output_tokens these of them that the model made (measured)
    cost          as `thought.usage(cost=…)` was told; 0.0 where it was not (measured)
    model         `thought.note(model=…)` (measured)"""

    number: int
    speculative: bool
    outcome: str
    reason: str | None = None
    exact: bool = True
    ran: bool | None = None
    first_item: float | None = None
    ended: float | None = None
    finished: bool | None = None
    usage: bool = False
    tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0
    model: str | None = None


class TurnRow(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One closed turn of a recording.

    call                        the header's `call`; None: it has none (measured)
    begins                      the line of the call's header, from 1; 0: bare frames (measured)
    number                      the turn's (measured)
    end                         how it closed: "server", "forced", "stalled", "lost", "empty", "superseded",
                                "backchannel" (measured)
    answered                    whether a thought was its reply (measured)
    length                      characters of its final text (measured)
    eager_ends, resumes         how many came (measured)
    thoughts                    in the order in which they began (measured)
    gap                         from the eager end of the adopted thought to the end (derived)
    head_start                  from the adopted thought's beginning to the end; 0.0 where it began at the end. Beside a
                                framework the reply may be let out later: it is the least (derived)
    first_item                  of the adopted thought: from its beginning to its first item (derived)
    saved                       min(head_start, first_item): what thinking ahead gained; 0.0 where the thought began at
                                the end; None where first_item is (derived)
    end_to_first_item           from the end until `respond` took the reply's first item (derived)
    end_to_first_item_without   the same without thinking ahead: that + saved (derived)
    end_to_first_sound          from the end until the reply became audible (derived)
    false_end                   whether it continues a turn whose reply it interrupted: that turn's end came too
                                early (derived)
    interrupted                 whether its own reply was interrupted while it was audible (derived)
    reports                     by kind: those since the last row of the call (measured)
    peak_calls                  the most thoughts of the call that ran at once while one of this turn's ran (derived)
    catching_up                 whether it began while the server still heard sound that was kept from an outage: its
                                times are None, since they measure the outage (measured)
    started                     when the call began: ISO text, or seconds as text (measured)
    policy                      the fields of the call's policy that are not as by default (measured)
    source, settings, labels    the header's (measured)"""

    call: str | None = None
    begins: int = 0
    number: int
    end: str
    answered: bool
    length: int
    eager_ends: int = 0
    resumes: int = 0
    thoughts: tuple[ThoughtRow, ...] = ()
    gap: float | None = None
    head_start: float | None = None
    first_item: float | None = None
    saved: float | None = None
    end_to_first_item: float | None = None
    end_to_first_item_without: float | None = None
    end_to_first_sound: float | None = None
    false_end: bool = False
    interrupted: bool = False
    reports: dict[str, int] = field(default_factory=dict)
    peak_calls: int | None = None
    catching_up: bool = False
    started: str | None = None
    source: str | None = None
    policy: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, float] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
