"""What it costs to come from elsewhere: an adapter, against Ink 2's frames that say the same. Run: pytest
tests/benchmarks. The adapters of frameworks are measured with their own packages, in tests/integrations."""

import json
from collections.abc import Callable
from typing import Any

from inkturns import Turns
from inkturns.adapters.flux import Flux
from inkturns.adapters.manual import ManualFinalize
from inkturns.sources import Source

WORDS = ["Hi", "I", "need", "to", "cancel", "my", "subscription", "please", "because", "it", "got", "too", "expensive"]
TURNS = 300
HEARD = 17  # hooks that are called in a turn: it opens, 12 words, two eager ends, a resume, and it ends
SPOKEN = ("turn.update", "turn.eager_end", "turn.end")
REQUEST_ID = "2ff8af53-4d38-479d-8287-58940f01c701"

Compare = Callable[..., float]


dump = json.JSONEncoder(separators=(",", ":")).encode  # as it comes off the wire


def said(words: int) -> str:
    return " ".join(WORDS[:words])


def ink(kind: str, words: int = 0) -> str:
    message = {"type": kind, "request_id": REQUEST_ID} | ({"turn_id": "0"} if words or kind not in SPOKEN else {})
    return dump(message | {"transcript": said(words)} if kind in SPOKEN else message)


def flux(event: str, words: int) -> str:
    return dump(
        {
            "type": "TurnInfo",
            "request_id": REQUEST_ID,
            "sequence_id": 11,
            "event": event,
            "turn_index": 0,
            "audio_window_start": 0.0,
            "audio_window_end": 1.3,
            "transcript": said(words),
            "words": [{"word": word, "confidence": 0.9137} for word in WORDS[:words]],
            "end_of_turn_confidence": 0.1203,
        }
    )


def chunk(words: int) -> str:
    text = said(words)[len(said(words - 1)) :]
    timed = [{"word": WORDS[words - 1], "start": 0.58, "end": 0.78}]
    message = {"type": "transcript", "is_final": True, "request_id": REQUEST_ID, "text": text, "duration": 0.5}
    return dump(message | {"language": "en", "words": timed})


# The same turn, frame for frame, at Flux's pace: an update about every 0.25 s, whether or not the text has moved, of
# somebody who says 2.5 words a second, breathes once (a false end) and is silent for a second afterwards. What Flux
# says with the start and the resume, Ink 2 says in an update of its own.
PACE = [round(quarter * 0.25 * 2.5) for quarter in range(1, 20)]  # the words that are heard by then
FLUX = [
    *(flux("StartOfTurn", 1), *(flux("Update", n) for n in PACE if 0 < n <= 8)),
    *(flux("EagerEndOfTurn", 8), flux("TurnResumed", 9)),
    *(flux("Update", n) for n in PACE if n > 8),
    *(flux("EagerEndOfTurn", 12), flux("EndOfTurn", 12)),
    *[flux("Update", 0)] * 4,
]
INK_FOR_FLUX = [
    *(ink("turn.start"), ink("turn.update", 1), *(ink("turn.update", n) for n in PACE if 0 < n <= 8)),
    *(ink("turn.eager_end", 8), ink("turn.resume"), ink("turn.update", 9)),
    *(ink("turn.update", n) for n in PACE if n > 8),
    *(ink("turn.eager_end", 12), ink("turn.end", 12)),
    *[ink("turn.update", 0)] * 4,
]
SIGNALS = ManualFinalize()
INK_FOR_MANUAL = [
    ink("turn.start"),
    *(ink("turn.update", n) for n in range(1, 9)),
    ink("turn.eager_end", 8),
    ink("turn.resume"),
    *(ink("turn.update", n) for n in range(9, 13)),
    ink("turn.eager_end", 12),
    ink("turn.end", 12),
]
MANUAL: list[object] = [
    SIGNALS.speech_started(),
    *map(chunk, range(1, 9)),
    SIGNALS.speech_stopped(),
    SIGNALS.speech_started(),
    *map(chunk, range(9, 13)),
    SIGNALS.speech_stopped(),
    dump({"type": "flush_done", "request_id": REQUEST_ID}),
]


def through(make: Callable[[], Source | None], turn: list[Any]) -> Callable[[], None]:
    """Frame to hook, a hook on each of the five events."""
    stream = turn * TURNS
    turns = Turns(source=make())
    heard: list[object] = []
    for on in (turns.on_start, turns.on_update, turns.on_eager_end, turns.on_resume, turns.on_end, turns.on_report):
        on(heard.append)  # there is no report

    def run() -> None:
        feed = turns.feed
        for frame in stream:
            feed(frame)
        assert len(heard) == HEARD * TURNS
        heard.clear()

    return run


def test_flux_against_ink(compare: Compare) -> None:
    compare("flux", through(Flux, FLUX), through(lambda: None, INK_FOR_FLUX), per=len(FLUX) * TURNS)


def test_manual_finalize_against_ink(compare: Compare) -> None:
    compare("manual", through(ManualFinalize, MANUAL), through(lambda: None, INK_FOR_MANUAL), per=len(MANUAL) * TURNS)
