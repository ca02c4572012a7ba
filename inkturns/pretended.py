"""What the demo pretends: a user's words and their sound, a model, a voice, a tool; and the agent among them.

Rules of this file:
- Simulated, and it says so: the delays are guesses. The agent and its machine are the real ones.
- Seconds are the call's: with `speed`, everything that waits is that much faster, and what is shown is not.
- What the pretended parts do hangs on the seed, and on what was said; never on chance, nor on the time of day.
"""

import asyncio
import statistics
from collections.abc import AsyncIterator, Iterator
from math import sin, tau
from random import Random
from struct import pack

import attrs

from inkturns.actions import CancelReason, Report, Turn
from inkturns.agent import Agent, Outcome, Settled, Thought, committed, current_thought
from inkturns.policy import Policy, words
from inkturns.recording import Recorder
from inkturns.settings import TurnSettings
from inkturns.testing.script import Script, hesitation, noise, say
from inkturns.testing.sound import STEP, sound
from inkturns.timeline import many
from inkturns.view import View

__all__ = ["CHUNK", "RATE", "SEED", "SETTINGS", "Call", "conversation", "microphone"]

RATE = 8000
SEED = 30
CHUNK = 0.05  # seconds of sound in a frame
SETTINGS = TurnSettings(start_threshold=0.8, eager_end_threshold=0.6, end_threshold=0.15, end_timeout_ms=5600)
FIRST_WORD = (0.2, 0.45)  # seconds that the model needs for it: a guess
NEXT_WORD = 0.04
SPOKEN = 0.24  # seconds that the voice needs for a word
TOOL = 0.4  # seconds that the tool needs
BOOK = "<book_table>"  # the model's wish to use the tool

REPLIES = {  # to what has this in it, the first that does
    "three": f"Three it is. {BOOK} Your table is at seven, by the window.",
    "table": f"One moment, please. {BOOK} I have a table for two at seven, near the kitchen, with a view of the chef.",
    "book": "Gladly! What would you like to book?",
    "close": "The kitchen closes at ten, the bar at midnight.",
    "bye": "Goodbye, and see you tonight!",
}


def conversation(seed: int = SEED) -> Script:
    """What the user says where there is no --script: guesses that are wrong and right, a "mhm" and a barge-in into the
    reply, a noise."""
    return Script(
        say("Hi, I'd like to book", hesitation(1.3), "a table for two tonight."),
        say("Mhm.", after=2.4),
        say("Wait, please make that three.", after=1.4),
        say("And when do you", hesitation(1.2), "close?", after=6),
        noise(0.6),
        say("Great, thank you, bye!", after=3.5),
        seed=seed,
    )


def reply_to(text: str) -> list[str]:
    """The pretended model's words."""
    said = (reply for key, reply in REPLIES.items() if key in text.lower())
    return next(said, f"You said: {text}").split()


def microphone(script: Script) -> Iterator[tuple[bytes, float]]:
    """Speech-like sound, made on the spot, with its level: a voice that hums in syllables where the script has words,
    silence elsewhere."""
    quiet = sound(script).silence
    hum = [sum(sin(tau * 120 * k * n / RATE) / k for k in range(1, 9)) / 2 for n in range(int(RATE * CHUNK))]
    silence = bytes(2 * len(hum))
    for n in range(int(len(quiet) * STEP / CHUNK) + 1):
        if quiet[min(int(n * CHUNK / STEP), len(quiet) - 1)]:
            yield silence, 0.0
        else:
            level = 0.6 + 0.4 * sin(tau * 4.3 * n * CHUNK)
            yield pack(f"<{len(hum)}h", *(int(9000 * level * sample) for sample in hum)), level


@attrs.define(eq=False)
class Call:
    """The agent of the call, with its pretended parts, and what came of its thoughts."""

    view: View
    seed: int = SEED
    speed: float = 1.0
    recorder: Recorder | None = None
    agent: Agent = attrs.field(init=False)
    saved: list[float] = attrs.field(init=False, factory=list)  # of each reply, in seconds of the call
    settled: list[Settled] = attrs.field(init=False, factory=list)
    _ahead: bool = False  # the live thought is a guess
    _made: list[str] = attrs.field(init=False, factory=list)  # its words

    def __attrs_post_init__(self) -> None:
        # A "mhm" is not to stop a reply; "stop", "no", "wait", or two words, are.
        self.agent = agent = Agent(Policy(interrupts=words(2)), recorder=self.recorder)
        agent.listen(self.listen)
        agent.think(self.think)
        agent.respond(self.respond)
        agent.on_start(self.on_start)
        agent.on_update(self.on_update)
        agent.on_eager_end(self.on_eager_end)
        agent.on_resume(self.on_resume)
        agent.on_cancel(self.on_cancel)
        agent.on_end(self.on_end)
        agent.on_interrupt(self.on_interrupt)
        agent.on_abandon(self.on_abandon)
        agent.on_report(self.on_report)
        agent.on_settled(self.settled.append)

    def begin(self) -> None:
        """The call's seconds are counted from here."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        self.view.clock = lambda: (loop.time() - began) * self.speed

    # -- the roles

    def listen(self, turn: Turn) -> None:
        self.view.note("the voice is quiet: the user has the floor")

    async def think(self, turn: Turn) -> AsyncIterator[str]:
        self._made = made = []
        await self.lasts(Random(f"{self.seed} {turn.number} {turn.thoughts}").uniform(*FIRST_WORD))
        for word in reply_to(turn.transcript):
            if word == BOOK:
                if current_thought().head_start is None:
                    self.view.tell("tool", "book_table waits: this may be a wrong guess")
                async with committed():
                    self.view.tell("tool", "book_table runs: the turn is over")
                    await self.lasts(TOOL)
                continue
            made.append(word)
            self.view.thought = f"{'held' if self._ahead else 'said'}: {' '.join(made)}"
            yield word + " "
            await self.lasts(NEXT_WORD)

    async def respond(self, turn: Turn | None, thought: Thought) -> None:
        said, whole = "", False
        try:
            async for word in thought:
                if not said:
                    gained = (thought.saved or 0.0) * self.speed
                    self.saved.append(gained)
                    without = f": {gained:.2f} s earlier than without a guess" if gained else ""
                    self.view.tell("agent", f"begins to speak{without}", "dim")
                said += word
                self.view.says = said
                await self.lasts(SPOKEN)
            whole = True
        finally:
            self.view.tell("agent", (said or "nothing yet").strip() + ("" if whole else " —"), "green")
            self.view.says = ""

    async def lasts(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self.speed)

    # -- what is seen of it

    def on_start(self, turn: Turn) -> None:
        self.view.note(f"turn {turn.number} has begun")

    def on_update(self, turn: Turn) -> None:
        self.view.heard = turn.transcript
        self.view.note(f"hears: {turn.transcript}")

    def on_eager_end(self, turn: Turn) -> None:
        self._ahead, self._made = True, []
        self.view.thought = "…"
        self.view.tell("user", f"{turn.transcript} …", "cyan")
        self.view.tell("guess", f"maybe done: thought {turn.thoughts} begins, and is held")

    def on_resume(self, turn: Turn) -> None:
        self.view.note("the user goes on")

    def on_cancel(self, turn: Turn, reason: CancelReason) -> None:
        self._ahead, self.view.thought = False, ""
        made = f", with {many(len(self._made), 'word')} that nobody heard" if self._made else ""
        self.view.tell("guess", f"wrong ({reason}): thought {turn.thoughts} is thrown away{made}")

    def on_end(self, turn: Turn) -> None:
        self.view.tell("user", turn.transcript, "bold")
        if self._ahead:
            ready = many(len(self._made), "word")
            self.view.tell("guess", f"right: thought {turn.thoughts} is the reply, {ready} ready")
        else:
            self.view.tell("guess", "none: the model is asked now")
        self._ahead, self.view.heard, self.view.thought = False, "", ""

    def on_interrupt(self, number: int) -> None:
        self.view.tell("user", f"speaks into reply {number}: it stops", "cyan")

    def on_abandon(self, turn: Turn) -> None:
        self.view.heard = ""
        said = f'"{turn.transcript}"' if turn.transcript else "a sound without words"
        self.view.tell("user", f"{said}: nothing to answer ({turn.end})", "cyan")

    def on_report(self, report: Report) -> None:
        self.view.tell("odd", f"{report.kind}: {report.detail}")

    def sum(self) -> list[tuple[str, str]]:
        """What it came to, in words."""
        wasted = [settled for settled in self.settled if settled.outcome is Outcome.VOID]
        ahead = [settled for settled in self.settled if settled.speculative and settled not in wasted]
        began = ", ".join(f"{seconds:.2f}" for seconds in self.saved)
        replies = "none"
        if self.saved:
            median = statistics.median(self.saved)
            replies = f"{len(self.saved)}, earlier by {began} s than without speculation; {median:.2f} s in the median"
        lost = sum(settled.items for settled in wasted)
        return [
            ("replies", replies),
            (
                "thoughts",
                f"{len(self.settled)}: {len(ahead)} guessed right, {len(wasted)} wasted "
                f"({many(lost, 'word')} that nobody heard), "
                f"{len(self.settled) - len(ahead) - len(wasted)} begun at the end",
            ),
            ("simulated", "the user, the model, the voice and the tool; their times are guesses"),
        ]
