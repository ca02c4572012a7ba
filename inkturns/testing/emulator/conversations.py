"""Conversations that are drawn from a seed: lawful ones, and ones with troubles.

Rules of this file: equal arguments give equal scripts.
"""

from random import Random
from typing import Any

from inkturns.testing.emulator.parts import (
    EVENTS,
    GARBAGE,
    OPTIONS,
    TROUBLES,
    Part,
    Say,
    Trouble,
    hesitation,
    noise,
    pause,
    say,
)
from inkturns.testing.emulator.script import Script

__all__ = ["conversation", "troubled_conversation"]

PHRASES = (
    *("Hi.", "Yes.", "No, thanks.", "Stop!", "Hello, is this the restaurant on Mill Road?", "Thank you, that was all."),
    *("I would like to book a table for four people on Friday evening.", "What would that cost me, all in all?"),
    *("Could you tell me whether the kitchen is open after ten?", "My number is 5 5 5, 0 1 9 9."),
    *("We are five, two of them children, and one does not eat gluten.", "Grüße aus Köln, it's for naïve people."),
)
UNFINISHED = ("For", "Let me see, the", "I think", "Well, we could come at", "And then there is the", "So")


def conversation(seed: int = 0, turns: int = 3, *, troubles: int = 0) -> Script:
    """A script of so many turns: short and long ones, with pauses, hesitations and barge-ins, and now and then a noise
    (2-5 % of turns are empty). `troubles`: how many of them, of any kind, anywhere in it."""
    random = Random(f"conversation {seed}")
    parts: list[Part] = []
    for turn in range(turns):
        if random.random() < 0.035:
            parts.append(noise(random.uniform(0.3, 0.8)))
        parts.append(_utterance(random, over=turn > 0 and random.random() < 0.15))
    for _ in range(troubles):
        place, one = random.randrange(len(parts)), _trouble(random)
        there = parts[place]
        if isinstance(there, Say) and random.random() < 0.5:
            inside = random.randrange(len(there.say) + 1)
            parts[place] = Say((*there.say[:inside], one, *there.say[inside:]), there.over, there.after)
        else:
            parts.insert(place, one)
    return Script(*parts, seed=seed)


def troubled_conversation(seed: int = 0, turns: int = 3) -> Script:
    """A conversation with one to five troubles."""
    return conversation(seed, turns, troubles=Random(f"storm {seed}").randint(1, 5))


def _utterance(random: Random, over: bool) -> Say:
    parts: list[str | Part] = []
    while random.random() < 0.4:
        parts += [random.choice(UNFINISHED), hesitation(random.uniform(0.3, 1.0))]
    if random.random() < 0.2:
        parts += [random.choice(PHRASES), pause(random.uniform(0.2, 0.7))]
    return say(*parts, random.choice(PHRASES), over=over)


def _trouble(random: Random) -> Trouble:
    name = random.choice([name for name in TROUBLES if name != "refuse" or random.random() < 0.2])
    options: dict[str, Any] = {
        "status": random.choice((401, 429) if name == "refuse" else (400, 429, 500)),
        "code": random.choice((0, 0, 1000, 1001, 1011, 4000)),
        "seconds": random.choice((0.0, 0.3, 2.0)),
        "chatty": random.random() < 0.5,
        "kind": random.choice(GARBAGE),
        "text": random.choice(("", " and more")),
        "fatal": random.random() < 0.5,
    }
    on = random.choice((None, *EVENTS[1:6], *EVENTS[2:6])) if random.random() < 0.95 else "connected"
    return Trouble(name, on, **{option: options[option] for option in OPTIONS.get(name, ())})
