"""The simulated call of the demo: a user's words and their sound, a model, a voice and a tool, around a real agent.

Rules of this file:
- The agent and its machine are real. Everything else is simulated, and the demo says so: the delays are guesses.
- Times are seconds of the call. With `speed`, waiting takes less real time; the times shown stay the same.
- The simulated parts depend on the seed and on what was said, and on nothing else.
"""

import asyncio
import statistics
from collections.abc import AsyncIterator, Iterator
from math import sin, tau
from random import Random
from struct import pack
from typing import Any

import attrs

from inkturns.actions import CancelReason, Report, Turn
from inkturns.agent import Agent, Outcome, Settled, Thought, committed, current_thought
from inkturns.cli.timeline import many
from inkturns.demo.view import View
from inkturns.policy import Policy, min_words
from inkturns.recording import Recorder
from inkturns.settings import TurnSettings
from inkturns.testing.emulator import Script, hesitation, noise, say
from inkturns.testing.emulator.likelihood import STEP

__all__ = ["CHUNK", "RATE", "SEED", "SETTINGS", "SimulatedCall", "conversation", "microphone"]

RATE = 8000
SEED = 30
CHUNK = 0.05  # seconds of sound in a frame
SETTINGS = TurnSettings(start_threshold=0.8, eager_end_threshold=0.6, end_threshold=0.15, end_timeout_ms=5600)
FIRST_WORD = (0.2, 0.45)  # seconds that the model needs: a guess
NEXT_WORD = 0.04
SPOKEN = 0.24  # seconds that the voice needs for a word
TOOL = 0.4  # seconds that the tool needs
BOOK = "<book_table>"  # the model calls the tool

REPLIES = {  # the first whose key is in what the user said
    "three": f"Three it is. {BOOK} Your table is at seven, by the window.",
    "table": f"One moment, please. {BOOK} I have a table for two at seven, near the kitchen, with a view of the chef.",
    "book": "Gladly! What would you like to book?",
    "close": "The kitchen closes at ten, the bar at midnight.",
    "bye": "Goodbye, and see you tonight!",
}


def conversation(seed: int = SEED) -> Script:
    """What the user says without --script. It has wrong guesses and right ones, a "mhm" and a barge-in into the reply,
    and a noise."""
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
    """The words of the simulated model."""
    said = (reply for key, reply in REPLIES.items() if key in text.lower())
    return next(said, f"You said: {text}").split()


def microphone(script: Script) -> Iterator[tuple[bytes, float]]:
    """Chunks of 16-bit sound, each with its level, 0 to 1: a hum in syllables where the script has words, silence
    elsewhere."""
    quiet = script.likelihood.silence
    hum = [sum(sin(tau * 120 * k * n / RATE) / k for k in range(1, 9)) / 2 for n in range(int(RATE * CHUNK))]
    silence = bytes(2 * len(hum))
    for n in range(int(len(quiet) * STEP / CHUNK) + 1):
        if quiet[min(int(n * CHUNK / STEP), len(quiet) - 1)]:
            yield silence, 0.0
        else:
            level = 0.6 + 0.4 * sin(tau * 4.3 * n * CHUNK)
            yield pack(f"<{len(hum)}h", *(int(9000 * level * sample) for sample in hum)), level


@attrs.define(eq=False)
class SimulatedCall:
    """The agent of the call with its simulated model, voice and tool; and what became of its thoughts."""

    view: View
    seed: int = SEED
    speed: float = 1.0
    recorder: Recorder | None = None
    agent: Agent = attrs.field(init=False)
    saved: list[float] = attrs.field(init=False, factory=list)  # of each reply, in seconds of the call
    settled: list[Settled] = attrs.field(init=False, factory=list)
    _ahead: bool = False  # the live thought is speculative
    _made: list[str] = attrs.field(init=False, factory=list)  # its words

    def __attrs_post_init__(self) -> None:
        # A "mhm" must not stop a reply; "stop", "no", "wait", or two words must.
        policy = Policy(interrupts=min_words(2, or_any=("stop", "no", "wait")))
        self.agent = agent = Agent(policy, recorder=self.recorder)
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
        """Counts the seconds of the call from here."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        self.view.clock = lambda: (loop.time() - began) * self.speed

    # -- the roles

    def listen(self, turn: Turn) -> None:
        self.view.note("the voice is quiet: the user has the floor")

    async def think(self, turn: Turn) -> AsyncIterator[str]:
        self._made = made = []
        await self.wait(Random(f"{self.seed} {turn.number} {turn.latest_thought}").uniform(*FIRST_WORD))
        for word in reply_to(turn.transcript):
            if word == BOOK:
                if current_thought().head_start is None:
                    self.view.tell("tool", "book_table waits: this may be a wrong guess")
                async with committed():
                    self.view.tell("tool", "book_table runs: the turn is over")
                    await self.wait(TOOL)
                continue
            made.append(word)
            self.view.thought = f"{'held' if self._ahead else 'said'}: {' '.join(made)}"
            yield word + " "
            await self.wait(NEXT_WORD)

    async def respond(self, turn: Turn | None, thought: Thought[Any]) -> None:
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
                await self.wait(SPOKEN)
            whole = True
        finally:
            self.view.tell("agent", (said or "nothing yet").strip() + ("" if whole else " —"), "green")
            self.view.says = ""

    async def wait(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self.speed)

    # -- what the screen shows of it

    def on_start(self, turn: Turn) -> None:
        self.view.note(f"turn {turn.number} has begun")

    def on_update(self, turn: Turn) -> None:
        self.view.heard = turn.transcript
        self.view.note(f"hears: {turn.transcript}")

    def on_eager_end(self, turn: Turn) -> None:
        self._ahead, self._made = True, []
        self.view.thought = "…"
        self.view.tell("user", f"{turn.transcript} …", "cyan")
        self.view.tell("guess", f"maybe done: thought {turn.latest_thought} begins, and is held")

    def on_resume(self, turn: Turn) -> None:
        self.view.note("the user goes on")

    def on_cancel(self, turn: Turn, reason: CancelReason) -> None:
        self._ahead, self.view.thought = False, ""
        made = f", with {many(len(self._made), 'word')} that nobody heard" if self._made else ""
        self.view.tell("guess", f"wrong ({reason}): thought {turn.latest_thought} is cancelled{made}")

    def on_end(self, turn: Turn) -> None:
        self.view.tell("user", turn.transcript, "bold")
        if self._ahead:
            ready = many(len(self._made), "word")
            self.view.tell("guess", f"right: thought {turn.latest_thought} is the reply, {ready} ready")
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

    def summary(self) -> list[tuple[str, str]]:
        """The summary: (name, sentence)."""
        wasted = [settled for settled in self.settled if settled.outcome is Outcome.CANCELLED]
        ahead = [settled for settled in self.settled if settled.speculative and settled not in wasted]
        earlier = [seconds for seconds in self.saved if seconds > 0]
        replies = f"{len(self.saved) or 'none'}"
        if earlier:
            began = ", ".join(f"{seconds:.2f}" for seconds in earlier)
            replies += (
                f"; {len(earlier)} began earlier than without speculation, by {began} s "
                f"(median {statistics.median_low(earlier):.2f} s)"
            )
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
