"""Sound: a script as a microphone would have it: the likelihood that the user is in a turn, and the words, over time.

Rules of this file: pure; whatever is left to chance comes from the script's seed, so that equal scripts sound alike
under all settings, and a threshold that moves moves nothing else. Its numbers are those of Cartesia's and adopters'
measurements where there are any, and say so; the others are guesses, and say that.

In speech the likelihood rises to PEAK. In silence it is held for a while, then falls as PEAK·b/(b + t): an adopter's
125 ms from .4 to .2 (the median; 313 ms at the 90th percentile) and 170 ms from .6 to .2 are this curve with
b = 51.5 ms, and no exponential.
"""

import re
from array import array
from collections.abc import Sequence
from functools import lru_cache
from math import exp, log
from random import Random

import msgspec

from inkturns.testing.script import Hesitation, Noise, Part, Pause, Say, Script, Trouble

__all__ = ["STEP", "Piece", "Sound", "sound"]

STEP = 0.01  # seconds
PEAK = 0.97
LEAD = 0.5  # seconds of silence before all
TAIL = 3.0  # and after it; what follows is as the last step
REPLY = 3.0  # seconds from the end of what was said to what is said next
AFTER_NOISE = 1.5

FALL, FALL_SPREAD = 0.0515, 0.716  # b: its median, and its logarithm's deviation (n = 6)
HOLD, HOLD_SPREAD = 0.75, 0.26  # with b: 1056 ms, in the mean, from the end of speech to .2 (400 recorded turns)
OVER = 0.6  # seconds after .2 is reached, by which a barge-in follows

WORD = (0.2, 0.36)  # seconds a word: a guess
SHOWN = (0.08, 0.2)  # seconds from a word's end to its update: a guess
NO_EAGER = 0.07  # of silences fall so fast that the end comes without an eager end (5-10 %: a guess)
TWO_WORDS = 0.1  # of words wait for the next one (recorded: 20 updates for 22 words)
INSIDE = 0.05  # of long words are shown in two pieces (recorded: one in 22 words)
SPACE = 0.02  # of words come with the space after them (recorded)
LATE = 0.04  # of last words come after the eager end: a guess
UNSEEN = 0.12  # of short utterances are first seen in turn.end (live)

WORDS = re.compile(r"(\s*)(.*?)([.,;:!?…]*)(\s*)", re.DOTALL)


class Piece(msgspec.Struct, frozen=True):
    """Some text, what of it was heard at `spoken` and known at `shown`, seconds."""

    spoken: float
    shown: float
    text: str


class Sound(msgspec.Struct, frozen=True):
    """A script's sound: the likelihood and the seconds of silence so far, a number each STEP; the words; the troubles
    and the times they stand at; and its seed."""

    likelihood: Sequence[float]  # arrays: a list takes four times as much
    silence: Sequence[float]
    pieces: list[Piece]
    troubles: list[tuple[float, Trouble]]
    seed: int

    @property
    def seconds(self) -> float:
        return len(self.likelihood) * STEP


@lru_cache(maxsize=64)
def sound(script: Script) -> Sound:
    """The sound of a script."""
    made = _Made(Random(f"sound {script.seed}"))
    for part in script.parts:
        made.add(part)
    made.quiet(TAIL)
    return Sound(made.likelihood, made.silence, made.pieces, made.troubles, script.seed)


class _Made:
    """A sound in the making: `likelihood` and `silence` are as long as what was made of it."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.likelihood = array("d")
        self.silence = array("d")
        self.pieces: list[Piece] = []
        self.troubles: list[tuple[float, Trouble]] = []
        self.hold = self.fall = self.floor = 0.0  # of the silence that is, or is next
        self.held, self.quiet_for = 0.0, 0.0  # the likelihood from which it falls, and how long it has been quiet
        self.gap = self.over = LEAD  # seconds of silence before the next words, and where they are a barge-in

    @property
    def now(self) -> float:
        return len(self.likelihood) * STEP

    def add(self, part: Part) -> None:
        if isinstance(part, Say):
            self.quiet(part.after if part.after is not None else self.over if part.over else self.gap)
            self.say(part)
            self.gap, self.over = REPLY, self.hold + self.fall * (PEAK / 0.2 - 1) + OVER
        elif isinstance(part, Noise):
            self.quiet(self.gap)
            self.loud(part.noise, part.likelihood)
            self.silent(hold=0.3)
            self.gap, self.over = AFTER_NOISE, OVER
        elif isinstance(part, Trouble):
            self.troubles.append((self.now, part))
        elif isinstance(part, Hesitation):
            self.silent(self.random.uniform(0.2, 0.35), floor=self.random.uniform(0.32, 0.72))
            self.quiet(part.hesitation)
            self.gap = self.over = 0.0
        else:
            assert isinstance(part, Pause)
            if not self.quiet_for:
                self.silent(self.drawn(HOLD, HOLD_SPREAD))
            self.quiet(part.pause)
            self.gap = self.over = 0.0

    def say(self, say: Say) -> None:
        first, words = len(self.pieces), 0
        loose = ""  # punctuation that comes with the next word
        texts = [i for i, part in enumerate(say.say) if isinstance(part, str)]
        for i, part in enumerate(say.say):
            if isinstance(part, str):
                unfinished = i != texts[-1] and isinstance(say.say[i + 1], Hesitation)
                loose = self.words(" " + part, loose, unfinished)
                words += len(part.split())
            elif isinstance(part, Noise):
                self.loud(part.noise, part.likelihood)
            else:
                self.add(part)
        unseen = words <= 2 and self.random.random() < UNSEEN
        late = self.random.random() < LATE
        if not self.quiet_for:
            self.silent(hold=self.drawn(HOLD, HOLD_SPREAD), sharp=unseen or self.random.random() < NO_EAGER)
        for at in range(first, len(self.pieces)) if unseen else range(len(self.pieces) - late, len(self.pieces)):
            piece = self.pieces[at]
            wait = 60 if unseen else self.random.uniform(0.9, 1.3)
            self.pieces[at] = Piece(piece.spoken, piece.spoken + wait, piece.text)

    def words(self, text: str, loose: str, unfinished: bool) -> str:
        """Says a text, after the punctuation that is `loose`; gives what is loose after it."""
        words = re.findall(r"\s*\S+(?:\s+$)?", text)
        space = True  # before the next word
        for i, word in enumerate(words):
            lead, core, marks, trail = WORDS.fullmatch(word).groups()  # type: ignore[union-attr]
            self.loud(self.random.uniform(*WORD) * (0.6 + len(core) / 12), PEAK)
            last = i + 1 == len(words)
            piece = loose + (lead if space else "") + core
            loose = marks if not last or unfinished else ""
            piece += trail if loose else marks + trail
            chance, space = self.random.random(), True
            shown = self.now + self.random.uniform(*SHOWN)
            if self.pieces and self.pieces[-1].shown < self.now + 1:
                shown = max(shown, self.pieces[-1].shown)
            if not last and not marks and len(core) > 5 and chance < INSIDE:
                cut = len(piece) - len(core) // 2
                self.pieces.append(Piece(self.now, shown, piece[:cut]))
                self.pieces.append(Piece(self.now, shown + 0.15, piece[cut:] + " "))
                space = words[i + 1][0] != " "
            elif not last and not marks and chance > 1 - SPACE:
                self.pieces.append(Piece(self.now, shown, piece + " "))
                space = words[i + 1][0] != " "
            else:
                wait = not last and INSIDE < chance < INSIDE + TWO_WORDS
                self.pieces.append(Piece(self.now, shown + wait * WORD[1], piece))
        return loose

    def loud(self, seconds: float, likelihood: float) -> None:
        """Sound, which brings the likelihood up to this, or, however short it is, to within a twentieth of it."""
        steps = round(seconds / STEP)
        rise = exp(-max(STEP / self.random.uniform(0.06, 0.12), 3 / max(1, steps)))
        value = self.likelihood[-1] if self.likelihood else 0.0
        for _ in range(steps):
            value = likelihood - (likelihood - value) * rise
            self.likelihood.append(value)
            self.silence.append(0.0)
        self.held, self.quiet_for = value, 0.0

    def silent(self, hold: float, *, floor: float = 0.0, sharp: bool = False) -> None:
        """How the silence will be that begins here."""
        self.hold, self.floor = hold, floor
        self.fall = 0.001 if sharp else min(self.drawn(FALL, FALL_SPREAD), 0.3)
        self.held = self.likelihood[-1] if self.likelihood else 0.0

    def quiet(self, seconds: float) -> None:
        for _ in range(round(seconds / STEP)):
            self.quiet_for += STEP
            after = max(0.0, self.quiet_for - self.hold)
            fallen = self.held * self.fall / (self.fall + after) if self.held else 0.0
            self.likelihood.append(max(min(self.held, self.floor), fallen))
            self.silence.append(self.quiet_for)

    def drawn(self, median: float, spread: float) -> float:
        return min(self.random.lognormvariate(log(median), spread), 6 * median)
