"""Likelihood: how likely it is that the user is in a turn, over time, and when each word is recognized.

Rules of this file:
- Pure. Every random choice comes from the script's seed, and none depends on a threshold: another threshold moves
  only its own events.
- Numbers that Cartesia or its adopters measured say so. All others are guesses, and say that.

In speech the likelihood rises to PEAK; it is above .8 after about 130 ms (one report). In silence it is held for a
while, then falls as PEAK * b / (b + t). With b = 51.5 ms this curve gives both measured times, 125 ms from .4 to .2
(the median; the 90th percentile is 313 ms) and 170 ms from .6 to .2. No exponential does.
"""

import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import lru_cache
from math import exp, inf, log
from random import Random

import msgspec

from inkturns.testing.emulator.parts import Hesitation, Noise, Part, Pause, Say, Trouble

__all__ = ["PEAK", "SHOWN", "STEP", "WORD", "Fragment", "Likelihood", "likelihood_of"]

STEP = 0.01  # seconds
PEAK = 0.97
LEAD = 0.5  # seconds of silence before everything
TAIL = 3.0  # and after it; later the likelihood stays as it is
REPLY = 3.0  # seconds between one `say` and the next
AFTER_NOISE = 1.5

FALL, FALL_SPREAD = 0.0515, 0.716  # b: its median, and the standard deviation of its logarithm (n = 6)
HOLD, HOLD_SPREAD = 0.75, 0.26  # with b: on average 1056 ms from the end of speech to .2 (400 recorded turns)
OVER = 0.6  # seconds from the moment at which the likelihood falls to .2 until a barge-in

WORD = (0.2, 0.36)  # seconds for a word: a guess
SHOWN = (0.08, 0.2)  # seconds from a word's end to its update: a guess
FIRST_SHOWN = (0.6, 1.1)  # from the beginning of speech to its first words: about 1 s (one report); the spread: a guess
CATCH_UP = 0.06  # seconds between the updates of words that waited for that: a guess
NO_EAGER = 0.07  # of silences fall so fast that the end comes without an eager end (5-10 %: a guess)
TWO_WORDS = 0.1  # of words wait for the next one (recorded: 20 updates for 22 words)
INSIDE = 0.05  # of long words come in two fragments (recorded: one in 22 words)
SPACE = 0.02  # of words come with the space after them (recorded)
LATE = 0.04  # of last words come after the eager end: a guess
UNSEEN = 0.12  # of short utterances appear first in turn.end (live)

WORDS = re.compile(r"(\s*)(.*?)([.,;:!?…]*)(\s*)", re.DOTALL)


class Fragment(msgspec.Struct, frozen=True):
    """Some text, usually a word: said by `spoken` and recognized at `shown`, in seconds."""

    spoken: float
    shown: float
    text: str


class Likelihood(msgspec.Struct, frozen=True):
    """A script over time. Each STEP has a likelihood (`values`) and the seconds that silence has lasted (`silence`).
    `curves` are the steps at which a new curve begins; within a curve the likelihood only rises or only falls, and the
    silence stays 0 or grows."""

    values: Sequence[float]  # arrays: a list takes four times the memory
    silence: Sequence[float]
    curves: Sequence[int]
    words: Sequence[Fragment]
    troubles: Sequence[tuple[float, Trouble]]  # with the time of its place in the script
    seed: int

    @property
    def seconds(self) -> float:
        return len(self.values) * STEP

    def at(self, step: int) -> tuple[float, float]:
        """Returns the likelihood and the seconds of silence at a step. After the last step the likelihood stays as it
        is, and the silence goes on."""
        last = len(self.values) - 1
        held = min(step, last)
        return self.values[held], self.silence[held] + (step - held) * STEP

    def first(
        self, step: int, *, above: float = inf, below: float = -inf, silence_ms: float = inf, voiced: bool = False
    ) -> int | None:
        """Returns the first step, from `step` on, at which one of these holds: the likelihood is above `above` (with
        `voiced` only where there is no silence); it is below `below`; the silence has lasted `silence_ms`. None where
        no step does."""

        def met(step: int) -> bool:
            value, silence = self.values[step], self.silence[step]
            return (value > above and not (voiced and silence)) or value < below or silence * 1000 >= silence_ms

        curve = bisect_right(self.curves, step)
        while step < len(self.values):
            end = self.curves[curve] if curve < len(self.curves) else len(self.values)
            if met(step):
                return step
            if met(end - 1):  # in one curve these change at most once, so a binary search finds the step
                return step + bisect_left(range(step, end), True, key=met)
            step, curve = end, curve + 1
        return None


@lru_cache(maxsize=64)
def likelihood_of(parts: tuple[Part, ...], seed: int) -> Likelihood:
    """The likelihood over time of a script with these parts."""
    drawing = _Drawing(seed)
    for part in parts:
        drawing.add(part)
    drawing.quiet(TAIL)
    drawn = drawing.values, drawing.silence, drawing.curves, drawing.fragments, drawing.troubles
    return Likelihood(*drawn, seed)


class _Drawing:
    """A likelihood that is drawn part by part. Later parts change nothing of earlier ones."""

    def __init__(self, seed: int) -> None:
        self.random = Random(f"sound {seed}")
        self.onset = Random(f"onset {seed}")
        self.values = array("d")
        self.silence = array("d")
        self.curves = array("l")
        self.fragments: list[Fragment] = []
        self.troubles: list[tuple[float, Trouble]] = []
        self.hold = self.fall = self.floor = 0.0  # the shape of this silence, or of the next
        self.held, self.quiet_for = 0.0, 0.0  # the likelihood from which it falls, and its seconds until now
        self.gap = self.over = LEAD  # seconds of silence before the next words; `over`: where they are a barge-in

    @property
    def now(self) -> float:
        return len(self.values) * STEP

    def add(self, part: Part) -> None:
        if isinstance(part, Say):
            self.quiet(part.after if part.after is not None else self.over if part.over else self.gap)
            self.say(part)
            self.gap, self.over = REPLY, self.hold + self.fall * (PEAK / 0.2 - 1) + OVER
        elif isinstance(part, Noise):
            self.quiet(self.gap)
            self.loud(part.noise, part.likelihood)
            self.fall_silent(hold=0.3)
            self.gap, self.over = AFTER_NOISE, OVER
        elif isinstance(part, Trouble):
            self.troubles.append((self.now, part))
        elif isinstance(part, Hesitation):
            self.fall_silent(self.random.uniform(0.2, 0.35), floor=self.random.uniform(0.32, 0.72))
            self.quiet(part.hesitation)
            self.gap = self.over = 0.0
        else:
            assert isinstance(part, Pause)
            if not self.quiet_for:
                self.fall_silent(self.drawn(HOLD, HOLD_SPREAD))
            self.quiet(part.pause)
            self.gap = self.over = 0.0

    def say(self, say: Say) -> None:
        first, count = len(self.fragments), 0
        loose = ""  # punctuation that comes with the next word
        texts = [i for i, part in enumerate(say.say) if isinstance(part, str)]
        for i, part in enumerate(say.say):
            if isinstance(part, str):
                unfinished = i != texts[-1] and isinstance(say.say[i + 1], Hesitation)
                begins = self.now
                loose = self.speak(" " + part, loose, unfinished)
                count += len(part.split())
                if i == texts[0]:
                    self.delay_first_words(first, begins + self.onset.uniform(*FIRST_SHOWN))
            elif isinstance(part, Noise):
                self.loud(part.noise, part.likelihood)
            else:
                self.add(part)
        unseen = count <= 2 and self.random.random() < UNSEEN
        late = self.random.random() < LATE
        if not self.quiet_for:
            self.fall_silent(hold=self.drawn(HOLD, HOLD_SPREAD), sharp=unseen or self.random.random() < NO_EAGER)
        for at in (
            range(first, len(self.fragments)) if unseen else range(len(self.fragments) - late, len(self.fragments))
        ):
            fragment = self.fragments[at]
            wait = 60 if unseen else self.random.uniform(0.9, 1.3)
            self.fragments[at] = Fragment(fragment.spoken, fragment.spoken + wait, fragment.text)

    def speak(self, text: str, loose: str, unfinished: bool) -> str:
        """Adds the words of a text. Punctuation is recognized with the next word: `loose` is that of the text before,
        and what is returned is that of this text."""
        words = re.findall(r"\s*\S+(?:\s+$)?", text)
        space = True  # before the next word
        for i, word in enumerate(words):
            lead, core, marks, trail = WORDS.fullmatch(word).groups()  # type: ignore[union-attr]
            self.loud(self.random.uniform(*WORD) * (0.6 + len(core) / 12), PEAK)
            last = i + 1 == len(words)
            shown_text = loose + (lead if space else "") + core
            loose = marks if not last or unfinished else ""
            shown_text += trail if loose else marks + trail
            chance, space = self.random.random(), True
            shown = self.now + self.random.uniform(*SHOWN)
            if self.fragments and self.fragments[-1].shown < self.now + 1:
                shown = max(shown, self.fragments[-1].shown)
            if not last and not marks and len(core) > 5 and chance < INSIDE:
                cut = len(shown_text) - len(core) // 2
                self.fragments.append(Fragment(self.now, shown, shown_text[:cut]))
                self.fragments.append(Fragment(self.now, shown + 0.15, shown_text[cut:] + " "))
                space = words[i + 1][0] != " "
            elif not last and not marks and chance > 1 - SPACE:
                self.fragments.append(Fragment(self.now, shown, shown_text + " "))
                space = words[i + 1][0] != " "
            else:
                wait = not last and INSIDE < chance < INSIDE + TWO_WORDS
                self.fragments.append(Fragment(self.now, shown + wait * WORD[1], shown_text))
        return loose

    def delay_first_words(self, first: int, until: float) -> None:
        """Shows no word before `until`; but a text that is shorter is shown with its last word."""
        last = self.fragments[-1].shown
        for at in range(first, len(self.fragments)):
            fragment = self.fragments[at]
            if fragment.shown >= until:
                break
            self.fragments[at] = Fragment(fragment.spoken, min(until, last), fragment.text)
            until += CATCH_UP

    def loud(self, seconds: float, likelihood: float) -> None:
        """Adds sound. The likelihood rises towards this value; even short sound takes it to within 5 % of it."""
        steps = round(seconds / STEP)
        self.begin_curve(steps)
        rise = exp(-max(STEP / self.random.uniform(0.06, 0.12), 3 / max(1, steps)))
        value = self.values[-1] if self.values else 0.0
        for _ in range(steps):
            value = likelihood - (likelihood - value) * rise
            self.values.append(value)
        self.silence.extend(array("d", bytes(8 * steps)))
        self.held, self.quiet_for = value, 0.0

    def fall_silent(self, hold: float, *, floor: float = 0.0, sharp: bool = False) -> None:
        """Sets the shape of the silence that begins here."""
        self.hold, self.floor = hold, floor
        self.fall = 0.001 if sharp else min(self.drawn(FALL, FALL_SPREAD), 0.3)
        self.held = self.values[-1] if self.values else 0.0

    def quiet(self, seconds: float) -> None:
        steps = round(seconds / STEP)
        self.begin_curve(steps)
        hold, fall, held, quiet_for = self.hold, self.fall, self.held, self.quiet_for
        lowest, still = min(held, self.floor), held and held * fall / fall
        for _ in range(steps):
            quiet_for += STEP
            fallen = still if quiet_for <= hold else held * fall / (fall + (quiet_for - hold))
            self.values.append(fallen if fallen > lowest else lowest)
            self.silence.append(quiet_for)
        self.quiet_for = quiet_for

    def begin_curve(self, steps: int) -> None:
        if steps:
            self.curves.append(len(self.values))

    def drawn(self, median: float, spread: float) -> float:
        return min(self.random.lognormvariate(log(median), spread), 6 * median)
