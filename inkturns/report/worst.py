"""The worst calls of a report again: their recordings are read once more, for a turn's words or a timeline.

Rules of this file: whatever has become of the recording meanwhile, nothing is raised: the words or the timeline are
missing then.
"""

from collections.abc import Iterable
from pathlib import Path

import attrs

from inkturns.errors import RecordingError
from inkturns.redact import hashed
from inkturns.report.calls import Input, RecordedCall
from inkturns.report.fleet import Worst
from inkturns.report.page import page
from inkturns.report.paths import UnreadError, calls_in, is_read_once
from inkturns.report.sketch import picture_of

__all__ = ["timelines_of", "words_of"]


def words_of(one: Worst) -> str | None:
    """The final words of its worst turn; None where they cannot be read."""
    call = _call_of(one)
    if call is None:
        return None
    turns = [getattr(action, "turn", None) for step in call.steps if isinstance(step, Input) for action in step.actions]
    return next((turn.transcript for turn in reversed(turns) if turn is not None and turn.number == one.turn), None)


def timelines_of(
    worst: Iterable[Worst], folder: Path, *, words: bool, hash_calls: bool = False
) -> dict[tuple[str, int], str]:
    """Writes the timeline of each call into the folder; the pages' names, by the recording and the line at which the
    call begins. `hash_calls`: their ids are shown as hashes. Raises OSError where they cannot be written."""
    names: dict[tuple[str, int], str] = {}
    for one in worst:
        where = one.file, one.begins
        if where in names or (call := _call_of(one)) is None:
            continue
        if hash_calls and call.header is not None and call.name is not None:
            call = attrs.evolve(call, header=attrs.evolve(call.header, call=hashed(call.name)))
        try:
            drawn = page(picture_of(call, words=words))
        except RecordingError:  # no input has a time
            continue
        folder.mkdir(parents=True, exist_ok=True)
        names[where] = f"{len(names) + 1}.html"
        (folder / names[where]).write_text(drawn, "utf-8")
    return names


def _call_of(one: Worst) -> RecordedCall | None:
    if is_read_once(one.file):
        return None
    try:
        for call in calls_in(one.file, lambda error: None):
            if (0 if call.header is None else call.header.line) == one.begins:
                return call
    except UnreadError:
        pass
    return None
