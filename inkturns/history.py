"""History: the conversation so far, as far as it was heard.

Rules of this file: pure; it is told the actions and what was heard, and decides nothing. A closed turn is written down
once, with its final words; a thought writes nothing (F22), a reply only what the user has heard of it.
"""

from collections.abc import Sequence

import attrs

from inkturns.actions import Abandon, Action, EndReason, Respond, Turn

__all__ = ["History", "Message", "Spoken"]

Message = dict[str, str]  # {"role": "user" or "assistant", "content": text}


@attrs.define(eq=False)
class Spoken:
    """What the agent said, as far as it was heard; it stands where it was first heard."""

    text: str = ""
    _told: bool = attrs.field(init=False, default=False)  # how far it was heard

    def took(self, item: object) -> None:
        """A piece of the reply went out to the user. What is no text (audio, say) leaves no words here; nor does
        anything once `heard` has said how far it got."""
        if isinstance(item, str) and not self._told:
            self.text += item

    def heard(self, text: str) -> None:
        """All of the reply that was heard so far, instead of the pieces that went out. Raises TypeError for no text."""
        if not isinstance(text, str):
            raise TypeError(f"what was heard is a text, not {type(text).__name__}")
        self.text, self._told = text, True


@attrs.define(eq=False)
class History:
    """The conversation of one call. Tell it every action, and `speak` at the beginning of every reply."""

    _said: list[Turn | Spoken] = attrs.field(init=False, factory=list)

    def tell(self, action: Action) -> None:
        """A turn that closes is the user's message; one that had no words, or was a backchannel, is none."""
        if isinstance(action, Respond | Abandon):
            turn = action.turn
            if turn.transcript and turn.end is not EndReason.BACKCHANNEL:
                self._said.append(turn)

    def speak(self) -> Spoken:
        """The agent begins to be heard; tell the result how far it gets."""
        spoken = Spoken()
        self._said.append(spoken)
        return spoken

    def messages(self, turn: Turn | None = None) -> list[Message]:
        """The conversation up to and including `turn`, open or closed: each closed turn's final words, each reply as
        far as it was heard, and the words of `turn` as it is given, once. Without a turn, all of it."""
        said: Sequence[Turn | Spoken] = self._said
        if turn is not None:
            before = [i for i, entry in enumerate(said) if isinstance(entry, Turn) and entry.number >= turn.number]
            said = [*(said[: before[0]] if before else said), turn]
        messages = [
            {"role": "user", "content": entry.transcript}
            if isinstance(entry, Turn)
            else {"role": "assistant", "content": entry.text}
            for entry in said
        ]
        return [message for message in messages if message["content"]]
