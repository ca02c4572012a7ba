"""History: the conversation so far, as far as it was heard, as the messages that chat APIs take.

Rules of this file: pure; it is told the actions, what was heard and what was done, and decides nothing.
- A closed turn is the user's message once, with its final words (F22). Backchannels are left out.
- A reply enters when its turn is committed. Its words count as far as they were heard.
- What a committed thought has recorded stays, whatever becomes of its reply (F46): what was done was done.
- A call of a tool is given out only together with all its results, right after it: chat APIs refuse half of them.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any

import attrs

from inkturns.actions import Abandon, Action, EndReason, Respond, Turn

__all__ = ["History", "Message", "Spoken"]

Message = Mapping[str, Any]  # {"role": "user", "content": "hello"}, or whatever the application records


def _check_message(message: object) -> None:
    if not isinstance(message, Mapping):
        raise TypeError(
            'a message must be a mapping such as {"role": "tool", "content": "…"}, '
            f"got {type(message).__name__}; an SDK's object has a method that makes one (`model_dump()`, `to_dict()`)"
        )


@attrs.define(eq=False)
class Spoken:
    """One reply: what of it was heard, and what its thought has done. `History.begin` makes it."""

    _pieces: list[str | Message] = attrs.field(init=False, factory=list)  # words and records, in order
    _audible: bool = attrs.field(init=False, default=False)
    _heard: str | None = attrs.field(init=False, default=None)  # the words, where `heard` has said them
    _entered: bool = attrs.field(init=False, default=False)  # it stands in the history

    @property
    def text(self) -> str:
        """The words that were heard so far; "" before the reply is audible."""
        return "".join(part for part in self._parts() if isinstance(part, str))

    def took(self, text: str) -> None:
        """A piece of the reply went out to the user. It does not count once `heard` has said how far the reply got."""
        self._pieces.append(text)

    def record(self, message: Message) -> None:
        """Keeps a message, as it is, between the pieces that went out before and after. Raises TypeError where it is no
        mapping."""
        _check_message(message)
        self._pieces.append(message)

    def sounds(self) -> None:
        """The reply is audible: its words count from now on."""
        self._audible = True

    def heard(self, text: str) -> None:
        """All that was heard of the reply so far, in place of the pieces that went out. The reply is audible then.
        Raises TypeError where `text` is no str."""
        if not isinstance(text, str):
            raise TypeError(f"what was heard must be a str, got {type(text).__name__}")
        self._heard = text

    def _parts(self) -> list[str | Message]:
        """Words and records that count by now. No one can say where between the heard words a record belongs, so
        records stand before them."""
        records: list[str | Message] = [piece for piece in self._pieces if not isinstance(piece, str)]
        if self._heard is not None:
            return [*records, self._heard]
        return self._pieces if self._audible else records


@attrs.define(eq=False)
class History:
    """The conversation of one call. Tell it every action; `begin` a reply with its thought, and `commit` it."""

    _entries: list[Turn | Spoken | Message] = attrs.field(init=False, factory=list)
    _replies: dict[int, Spoken] = attrs.field(init=False, factory=dict)  # by the number of their turn
    _answered: int | None = attrs.field(init=False, default=None)  # the last turn, where its reply is still to come

    def tell(self, action: Action) -> None:
        """Takes any action. A turn that closes with words is a message of the user's, unless it is a backchannel."""
        if isinstance(action, Respond | Abandon):
            turn = action.turn
            if turn.transcript and turn.end is not EndReason.BACKCHANNEL:
                self._entries.append(turn)
            self._answered = turn.number if isinstance(action, Respond) else None

    def add(self, message: Message) -> None:
        """Puts a message in, as it is, after all that is there now. Raises TypeError where it is no mapping."""
        _check_message(message)
        self._entries.append(message)

    def begin(self) -> Spoken:
        """Makes the Spoken of a thought, or of speech that the application begins. The history holds nothing of it
        before `commit`."""
        return Spoken()

    def commit(self, spoken: Spoken) -> None:
        """Puts a reply in: call it right after `tell(Respond(…))`. Speech that the application begins is put in when
        it becomes audible. A second time changes nothing."""
        if spoken._entered:
            return
        spoken._entered = True
        if self._answered is not None:
            self._replies[self._answered], self._answered = spoken, None
        self._entries.append(spoken)

    def messages(self, turn: Turn | None = None) -> list[Any]:
        """The conversation up to `turn`, open or closed, with the words of `turn` at the end: each closed turn's final
        words, each reply as far as it was heard, each message that was added or recorded. Without a turn, or for Turn
        0 (speech that the application begins), all of it.

        A closed turn that a later one continues is left out where its reply left nothing: its words stand in the
        later one. Recorded messages are given out themselves, not as copies."""
        entries = self._up_to(turn)
        continued = {entry.continues for entry in entries if isinstance(entry, Turn)}
        parts: list[Part] = []
        for entry in entries:
            if isinstance(entry, Spoken):
                parts += [(entry if isinstance(part, str) else None, part) for part in entry._parts()]
            elif isinstance(entry, Turn):
                if entry.transcript and (entry.number not in continued or self._left_something(entry)):
                    parts.append((None, {"role": "user", "content": entry.transcript}))
            else:
                parts.append((None, entry))
        messages: list[Any] = []
        for speaker, group in groupby(_calls_with_results(parts), key=lambda part: part[0]):
            if speaker is None:
                messages += [message for _, message in group]
            elif (text := "".join(words for _, words in group if isinstance(words, str))).strip():
                messages.append({"role": "assistant", "content": text})
        return messages

    def _up_to(self, turn: Turn | None) -> list[Turn | Spoken | Message]:
        if turn is None or turn.number == 0:
            return self._entries
        for i, entry in enumerate(self._entries):
            if isinstance(entry, Turn) and entry.number >= turn.number:
                return [*self._entries[:i], turn]
        return [*self._entries, turn]

    def _left_something(self, turn: Turn) -> bool:
        """Whether something of the turn's reply was heard or recorded."""
        reply = self._replies.get(turn.number)
        return reply is not None and any(reply._parts())


Part = tuple[Spoken | None, str | Message]  # words with their reply; or None and a message


def _calls_with_results(parts: list[Part]) -> Iterator[Part]:
    """Puts results right after the message with their calls. A message with a call that has no result is left out with
    the results that it has, and so is a result without a call, or a second one. A result belongs to the last call
    before it with its id."""
    place_of: dict[str, int] = {}  # by the id of a call: where its message stands
    missing: dict[int, set[str]] = {}  # by that place: the calls without a result
    results: dict[int, list[Part]] = {}
    rest: set[int] = set()  # places of what is neither
    for place, part in enumerate(parts):
        if calls := _calls(part[1]):
            place_of |= dict.fromkeys(calls, place)
            missing[place], results[place] = calls, []
        elif answered := _results(part[1]):
            to = max(place_of.get(one, -1) for one in answered)
            if answered <= missing.get(to, set()):
                missing[to] -= answered
                results[to].append(part)
        else:
            rest.add(place)
    for place, part in enumerate(parts):
        if place in rest:
            yield part
        elif place in results and not missing[place]:
            yield part
            yield from results[place]


def _calls(message: str | Message) -> set[str]:
    """The ids of the calls in an assistant's message: OpenAI's `tool_calls`, Anthropic's `tool_use` blocks."""
    if isinstance(message, str):
        return set()
    ids = {str(_field(call, "id")) for call in _list(message.get("tool_calls"))}
    return ids | {str(_field(block, "id")) for block in _blocks(message, "tool_use")}


def _results(message: str | Message) -> set[str]:
    """The ids of the calls whose results these are: OpenAI's `tool` messages, Anthropic's `tool_result` blocks."""
    if isinstance(message, str):
        return set()
    if message.get("role") == "tool":
        return {str(message.get("tool_call_id"))}
    return {str(_field(block, "tool_use_id")) for block in _blocks(message, "tool_result")}


def _blocks(message: Message, kind: str) -> Iterator[object]:
    return (block for block in _list(message.get("content")) if _field(block, "type") == kind)


def _list(value: object) -> Iterable[object]:
    return value if isinstance(value, list | tuple) else ()


def _field(value: object, name: str) -> object:
    """Reads a mapping, or an SDK's object: `{"role": "assistant", "content": response.content}` holds such blocks."""
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
