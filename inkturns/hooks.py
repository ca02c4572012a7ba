"""Turns: a machine with hooks around it, for any loop that can call `turns.feed(frame)`.

Rules of this file: synchronous, no clock but the one that is given; hooks are called in the order of the actions, after
the machine has moved on; what a hook raises never stops another hook, nor what is fed next.
"""

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import attrs
import msgspec

from inkturns.actions import (
    Abandon,
    Action,
    Cancel,
    CancelReason,
    Hear,
    Interrupt,
    Listen,
    Report,
    ReportKind,
    Respond,
    Resume,
    Stall,
    Think,
    Turn,
)
from inkturns.errors import DecodeError
from inkturns.events import FROM_APPLICATION, FROM_SERVER, Event, TurnEagerEnd, TurnEnd, TurnUpdate
from inkturns.machine import TurnMachine
from inkturns.policy import Policy, is_async
from inkturns.wire import _straight, decode

if TYPE_CHECKING:
    from inkturns.recording import Recorder  # a file that most calls do without

__all__ = ["Source", "Turns"]

EVENTS = frozenset(FROM_SERVER + FROM_APPLICATION)

Hook = TypeVar("Hook", bound=Callable[..., object])
TurnHook = TypeVar("TurnHook", bound=Callable[[Turn], object])
CancelHook = TypeVar("CancelHook", bound=Callable[[Turn, CancelReason], object])
NumberHook = TypeVar("NumberHook", bound=Callable[[int], object])
ReportHook = TypeVar("ReportHook", bound=Callable[[Report], object])


class Source(Protocol):
    """Another sender's frames to events; one per call. One that has `checks_fields = True` has read its events' fields
    by msgspec: their types are right, and UTF-8 can hold their text. Of any other `Turns` checks it."""

    def events(self, frame: Any) -> tuple[Event, ...]:
        """The events that a frame says, often one or none. Raises DecodeError for a frame that it cannot read."""


WITH_TEXT = frozenset((TurnUpdate, TurnEagerEnd, TurnEnd))
_encode = msgspec.json.Encoder().encode


@cache  # made when it is needed: eight of them would be a tenth of the package's import
def _reader(kind: Any) -> Callable[[bytes], Event]:
    return msgspec.json.Decoder(kind).decode


def _check(event: Any) -> None:
    """The fields of a source's event, which their making did not check."""
    kind: Any = type(event)
    if kind in WITH_TEXT:  # most are, of ASCII, which a look tells
        text, turn_id, request_id = event.transcript, event.turn_id, event.request_id
        if (
            (type(text) is str and text.isascii())
            and (turn_id is None or (type(turn_id) is str and turn_id.isascii()))
            and (request_id is None or (type(request_id) is str and request_id.isascii()))
        ):
            return
    if kind not in EVENTS:
        raise DecodeError("the source gave what is no event")
    if kind in FROM_SERVER:
        _reader(kind)(_encode(event))


@attrs.define(eq=False)
class Turns:
    """Hooks around a machine; one per call. Usable by itself, or beside an agent that knows nothing of it.

    policy    what is wanted of the turns, until `UsePolicy` is fed; `machine.policy` is the one of now
    source    whose frames `feed` takes; None: Ink 2's, by `decode`
    clock     gives `now`, seconds, where `feed` is not given it; None: no times and no deadline
    recorder  writes down every input with its actions
    """

    policy: Policy = attrs.field(factory=Policy)
    source: Source | None = attrs.field(default=None, kw_only=True)
    clock: Callable[[], float] | None = attrs.field(default=None, kw_only=True)
    recorder: "Recorder | None" = attrs.field(default=None, kw_only=True)
    machine: TurnMachine = attrs.field(init=False)
    _hooks: dict[type[Action], list[tuple[bool, Callable[[Any], object]]]] = attrs.field(init=False)
    _fed: list[tuple[object, float | None]] = attrs.field(init=False, factory=list)
    _feeding: bool = attrs.field(init=False, default=False)
    _checks_fields: bool = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        # Not attrs' validators, which would slow down every assignment.
        if self.source is not None and not callable(getattr(self.source, "events", None)):
            raise TypeError(f"{type(self).__name__}: source has `events(frame)`, and {self.source!r} has not")
        if self.clock is not None and not callable(self.clock):
            raise TypeError(f"{type(self).__name__}: clock is a function that gives seconds, not {self.clock!r}")
        if self.recorder is not None and not callable(getattr(self.recorder, "begin", None)):
            raise TypeError(f"{type(self).__name__}: recorder is a Recorder, not {self.recorder!r}")
        self._checks_fields = getattr(self.source, "checks_fields", False) is True
        self.machine = TurnMachine(self.policy)
        self._hooks = {kind: [] for kind in Action.__subclasses__()}
        if self.recorder is not None:
            self.recorder.begin(self.policy)

    def feed(self, item: Any, now: float | None = None) -> tuple[Action, ...]:
        """Takes a frame or an event, calls the hooks, and returns the actions. `now`: seconds, on one clock.

        A frame that cannot be read is a Report. From inside a hook the item is queued, handled after the hooks of the
        current actions, and () is returned; the outer call returns the actions of all. Whatever hooks raised comes out
        at the very end as one ExceptionGroup; the machine has moved on by then."""
        if now is None and self.clock is not None:
            now = self.clock()
        if self._feeding:
            self._fed.append((item, now))
            return ()
        if self._fed:  # left there when a hook was killed, by KeyboardInterrupt say
            self._fed.append((item, now))
            item, now = self._fed.pop(0)
        self._feeding = True
        done: tuple[Action, ...] = ()
        raised: list[Exception] | None = None
        try:
            while True:
                frame: object = None
                event: Event | None = None
                actions: tuple[Action, ...] = ()
                try:
                    if type(item) is not str and type(item) in EVENTS:
                        event = item
                    elif self.source is None:
                        frame = item
                        try:
                            event = _straight(item)  # what `decode` does first: most frames, and a call less
                        except Exception:
                            event = decode(item)
                    else:
                        try:
                            events = tuple(self.source.events(item))
                            if not self._checks_fields:
                                for each in events:
                                    _check(each)
                        except DecodeError:
                            raise
                        except Exception as error:  # its own code, on what came over the wire (F10)
                            raise DecodeError(f"the source raised {type(error).__name__}") from error
                        if events:  # they are what is recorded: a replay knows Ink 2's frames alone
                            event = events[0]
                            if len(events) > 1:
                                self._fed[:0] = [(each, now) for each in events[1:]]
                    if event is not None:
                        actions = self.machine.receive(event, now)
                except DecodeError as error:
                    actions = (Report(ReportKind.BAD_FRAME, None, error.reason),)
                if self.recorder is not None and (event is not None or actions):
                    self.recorder.write(frame, event, now, actions)
                for action in actions:
                    for takes_turn, hook in self._hooks[type(action)]:
                        try:
                            hook(action.turn if takes_turn else action)  # type: ignore[attr-defined]
                        except Exception as error:  # the user's code
                            raised = [*(raised or ()), error]
                done = done + actions if done else actions
                if not self._fed:
                    break
                item, now = self._fed.pop(0)
        finally:
            self._feeding = False
        if raised is not None:
            raise ExceptionGroup("hooks raised", raised)
        return done

    # -- the hooks, by name: each a decorator that returns its function

    def on_start(self, hook: TurnHook) -> TurnHook:
        """on_start(turn): a turn has opened; the user speaks."""
        return self._on(Listen, hook)

    def on_update(self, hook: TurnHook) -> TurnHook:
        """on_update(turn): its text moved."""
        return self._on(Hear, hook)

    def on_think(self, hook: TurnHook) -> TurnHook:
        """on_think(turn): begin thought number `turn.thoughts` on `turn.transcript`."""
        return self._on(Think, hook)

    def on_eager_end(self, hook: TurnHook) -> TurnHook:
        """on_eager_end(turn): the same, where it is speculative: the turn may be over; nobody is to hear of it yet."""
        return self._on(Think, hook, lambda action: action.speculative and hook(action.turn))

    def on_resume(self, hook: TurnHook) -> TurnHook:
        """on_resume(turn): the user goes on."""
        return self._on(Resume, hook)

    def on_cancel(self, hook: CancelHook) -> CancelHook:
        """on_cancel(turn, reason): its live thought is void."""
        return self._on(Cancel, hook, lambda action: hook(action.turn, action.reason))

    def on_end(self, hook: TurnHook) -> TurnHook:
        """on_end(turn): it is over; thought number `turn.thoughts` is its reply."""
        return self._on(Respond, hook)

    def on_interrupt(self, hook: NumberHook) -> NumberHook:
        """on_interrupt(number): the reply to that turn must stop."""
        return self._on(Interrupt, hook, lambda action: hook(action.number))

    def on_abandon(self, hook: TurnHook) -> TurnHook:
        """on_abandon(turn): it closed with nothing to answer; its words are in `turn`."""
        return self._on(Abandon, hook)

    def on_stall(self, hook: TurnHook) -> TurnHook:
        """on_stall(turn): it is open, and its text has not moved for `Policy.stall_timeout`."""
        return self._on(Stall, hook)

    def on_report(self, hook: ReportHook) -> ReportHook:
        """on_report(report): something was out of contract."""
        return self._on(Report, hook, hook)

    def _on(self, kind: type[Action], hook: Hook, call: Callable[[Any], object] | None = None) -> Hook:
        """Without `call`, which takes the action, the hook takes its turn: most do, and one call less counts."""
        self._refuse_async(hook)
        entry = (call is None, call or hook)
        self._hooks[kind] = [*self._hooks[kind], entry]  # a new list: one may be registered inside another
        return hook

    def _refuse_async(self, hook: Callable[..., object]) -> None:
        if not callable(hook):
            raise TypeError(f"a hook is a function, not {type(hook).__name__}")
        if is_async(hook):
            raise TypeError(f"{getattr(hook, '__name__', hook)} is async; hooks are called, not awaited")
