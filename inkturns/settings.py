"""TurnSettings: the server's four numbers, checked; the profiles; what a connection is opened with.

Rules of this file: a setting that is None is not sent, and the server's default holds. Bounds are the vendor's, the
wider range where its sources differ (`turn_eager_end_threshold`: newest docs 0.3-0.8, SDK 4.2.0 0.3-0.6).
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import attrs

__all__ = ["BALANCED", "ENCODINGS", "PATIENT", "RESPONSIVE", "TurnSettings", "connect_query"]

BOUNDS: dict[str, tuple[float, float]] = {
    "start_threshold": (0.5, 0.9),
    "eager_end_threshold": (0.3, 0.8),
    "end_threshold": (0.05, 0.5),
    "end_timeout_ms": (640, 11200),
}


def _in_bounds(settings: "TurnSettings", field: "attrs.Attribute[Any]", value: object) -> None:
    if value is None:
        return
    low, high = BOUNDS[field.name]
    whole = field.name == "end_timeout_ms"
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        raise TypeError(f"TurnSettings.{field.name} must be a {'whole ' if whole else ''}number, got {value!r}")
    if not low <= value <= high:
        raise ValueError(f"TurnSettings.{field.name} must be from {low} to {high}, got {value!r}")


@attrs.frozen(kw_only=True)
class TurnSettings:
    """When the server says that a turn starts and ends; the thresholds are likelihoods that the user is in a turn.

    start_threshold      turn.start above it           0.5-0.9
    eager_end_threshold  turn.eager_end below it       0.3-0.8; higher: earlier, and more often wrong
    end_threshold        turn.end below it             0.05-0.5; higher: earlier, and more often wrong
    end_timeout_ms       turn.end after so much silence  640-11200 ms of audio

    Raises TypeError or ValueError when made, naming the field, its value and its bounds; also where those that are set
    are not in strict order, start > eager_end > end, for which the server closes the connection (1008)."""

    start_threshold: float | None = attrs.field(default=None, validator=_in_bounds)
    eager_end_threshold: float | None = attrs.field(default=None, validator=_in_bounds)
    end_threshold: float | None = attrs.field(default=None, validator=_in_bounds)
    end_timeout_ms: int | None = attrs.field(default=None, validator=_in_bounds)

    def __attrs_post_init__(self) -> None:
        thresholds = [(name, value) for name, value in self.given().items() if name != "end_timeout_ms"]
        for (upper, high), (lower, low) in pairwise(thresholds):
            if not high > low:
                raise ValueError(f"TurnSettings.{lower} must be below {upper}, which is {high}, got {low}")

    def given(self) -> dict[str, float]:
        """What is set, by name, in the order of the fields: as the config command has it."""
        return {name: value for name, value in attrs.asdict(self).items() if value is not None}

    def query(self) -> str:
        """What is set, as an encoded query string: `turn_start_threshold=0.8&…`."""
        return _encoded([("turn_" + name, str(value)) for name, value in self.given().items()])


# The vendor's profiles, as of September 2026.
BALANCED = TurnSettings(start_threshold=0.8, eager_end_threshold=0.6, end_threshold=0.3, end_timeout_ms=5600)
RESPONSIVE = TurnSettings(start_threshold=0.7, eager_end_threshold=0.6, end_threshold=0.4, end_timeout_ms=4500)
PATIENT = TurnSettings(start_threshold=0.8, eager_end_threshold=0.3, end_threshold=0.1, end_timeout_ms=8000)

ENCODINGS = ("pcm_s16le", "pcm_s32le", "pcm_f16le", "pcm_f32le", "pcm_mulaw", "pcm_alaw")
MAX_KEYTERMS = 100
MAX_KEYTERM_CHARACTERS = 1200


def connect_query(
    model: str = "ink-2",
    encoding: str = "pcm_s16le",
    sample_rate: int = 16000,
    settings: TurnSettings | None = None,
    keyterms: Sequence[str] = (),
    version: str | None = None,
) -> str:
    """The encoded query string, without its "?", of `wss://api.cartesia.ai/stt/turns/websocket`.

    `model` is the vendor's name of one ("ink-2", "ink-preview"), `encoding` one of ENCODINGS, `sample_rate` in Hz,
    `version` a Cartesia-Version ("2026-08-14"). Raises TypeError or ValueError, naming the argument, for what the
    server would refuse: an encoding it does not know, a sample rate that is no positive whole number, and keyterms over
    its limits (100 terms, 1,200 characters in all)."""
    if not isinstance(model, str) or not model:
        raise ValueError(f"model must be a name such as 'ink-2', got {model!r}")
    if encoding not in ENCODINGS:
        raise ValueError(f"encoding must be one of {', '.join(ENCODINGS)}, got {encoding!r}")
    if type(sample_rate) is not int or sample_rate <= 0:
        raise ValueError(f"sample_rate must be a whole number of Hz above 0, got {sample_rate!r}")
    pairs = [("model", model), ("encoding", encoding), ("sample_rate", str(sample_rate))]
    if version is not None:
        if not isinstance(version, str):
            raise TypeError(f"version must be a str such as '2026-08-14', got {version!r}")
        if not version:
            raise ValueError("version must be a Cartesia-Version or None, got ''")
        pairs.append(("cartesia_version", version))
    if not isinstance(settings, TurnSettings | None):
        raise TypeError(f"settings must be a TurnSettings, got {settings!r}")
    pairs += [("keyterm", term) for term in _checked(keyterms)]
    queries = [_encoded(pairs), "" if settings is None else settings.query()]
    return "&".join(query for query in queries if query)


def _checked(keyterms: Sequence[str]) -> Sequence[str]:
    if isinstance(keyterms, str) or not isinstance(keyterms, Sequence):
        raise TypeError(f"keyterms must be a list of strings, got {keyterms!r}")
    for term in keyterms:
        if not isinstance(term, str):
            raise TypeError(f"keyterms must hold strings, got {term!r}")
        if not term.strip():
            raise ValueError("keyterms must hold no blank string")
    if len(keyterms) > MAX_KEYTERMS:
        raise ValueError(f"keyterms must be at most {MAX_KEYTERMS}, got {len(keyterms)}")
    characters = sum(map(len, keyterms))
    if characters > MAX_KEYTERM_CHARACTERS:
        raise ValueError(f"keyterms must have at most {MAX_KEYTERM_CHARACTERS} characters in all, got {characters}")
    return keyterms


def _encoded(pairs: list[tuple[str, str]]) -> str:
    from urllib.parse import quote, urlencode  # a twentieth of the package's import

    return urlencode(pairs, quote_via=quote)  # a space is %20: the server takes a "+" for a plus
