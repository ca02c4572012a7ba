"""Turns: a machine with hooks around it, for any loop that can call `turns.feed(frame)`.

Rules of this file: it is synchronous, and has no clock but the one that it is given. Hooks are called in the order of
the actions, after the machine has moved on. A hook that raises stops neither the other hooks nor what is fed next.
"""

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

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
from inkturns.errors import DecodeError, is_failure
from inkturns.events import Event, Unknown
from inkturns.machine import TurnMachine
from inkturns.policy import Policy
from inkturns.signatures import Result, check_hook
from inkturns.sources import EVENTS, Source, reader
from inkturns.wire import decode, read_json

if TYPE_CHECKING:
    from inkturns.recording import Recorder  # a file that most calls do without

__all__ = ["Turns"]

Hook = TypeVar("Hook", bound=Callable[..., object])

LOGGER = logging.getLogger("inkturns")
OTHER_SENDERS = {  # types of frames that are plainly of another sender
    "TurnInfo": "the frames are Deepgram Flux's, which the source inkturns.adapters.flux.Flux reads",
    "transcript": "the frames are of /stt/websocket, which the source inkturns.adapters.manual.ManualFinalize reads",
    "start_of_speech": "the frames are LiveKit's, which the source inkturns.adapters.livekit.LiveKit reads",
    "Turn": "the frames are AssemblyAI's, which need a source of your own (inkturns.Source)",
}


@attrs.define(eq=False)
class Turns:
    """Hooks around a machine; one per call. Use it alone, or beside an agent that does not know of it.

    policy    how turns are decided, until `UsePolicy` is fed; `machine.policy` is the current one
    source    reads the frames that `feed` takes; None: they are Ink 2's, read by `decode`
    clock     gives `now` in seconds where `feed` is not given it; None: no times and no deadline
    recorder  writes down every input with its actions

    Reports are logged too: as warnings of the logger `inkturns`, STUCK_TASK as an error, without the caller's words."""

    policy: Policy = attrs.field(factory=Policy)
    source: Source | None = attrs.field(default=None, kw_only=True)
    clock: Callable[[], float] | None = attrs.field(default=None, kw_only=True)
    recorder: "Recorder | None" = attrs.field(default=None, kw_only=True)
    machine: TurnMachine = attrs.field(init=False)
    _plain: bool = attrs.field(init=False)  # no source: most frames need no more than two calls
    _read: Callable[[object], Sequence[Event]] = attrs.field(init=False)
    _only: dict[type[Action], Callable[[Turn], object] | None] = attrs.field(init=False)
    _hooks: dict[type[Action], tuple[Callable[[Any], object], ...]] = attrs.field(init=False)
    _waiting: list[tuple[object, float | None]] = attrs.field(init=False, factory=list)
    _feeding: bool = attrs.field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        # Not attrs' validators, which would slow down every assignment.
        name = type(self).__name__
        if self.source is not None and not callable(getattr(self.source, "events", None)):
            raise TypeError(f"{name}: source must have a method `events(frame)`, got {self.source!r}")
        if isinstance(self.source, type):
            raise TypeError(f"{name}: source must be an instance, as {self.source.__name__}() is; got the class")
        if self.clock is not None and not callable(self.clock):
            raise TypeError(f"{name}: clock must be a function that returns seconds, got {self.clock!r}")
        if self.recorder is not None and not callable(getattr(self.recorder, "begin", None)):
            raise TypeError(f"{name}: recorder must be a Recorder, got {self.recorder!r}")
        self.machine = TurnMachine(self.policy)
        self._plain = self.source is None
        self._read = _decoded if self.source is None else reader(self.source)
        # Most kinds of action have one hook, which takes the turn: called from `_only` it costs two calls less.
        self._only = dict.fromkeys(Action.__subclasses__())
        self._hooks = dict.fromkeys(Action.__subclasses__(), ())
        self._call_with(Report, _log)
        if self.recorder is not None:
            self.recorder.begin(self.policy, self.source)

    def feed(self, item: object, now: float | None = None) -> tuple[Action, ...]:
        """Takes a frame or an event, calls the hooks, and returns the actions. `now`: seconds, on one clock.

        A frame that cannot be read is a Report. What is fed inside a hook waits until the hooks of the current actions
        have been called, and () is returned; the outer call returns the actions of all. Raises one ExceptionGroup at
        the very end, of all that hooks raised; the machine has moved on by then."""
        if now is None and self.clock is not None:
            now = self.clock()
        if self._feeding or self._waiting:
            self._waiting.append((item, now))
            if self._feeding:
                return ()
            item, now = self._waiting.pop(0)  # it has waited since a hook was killed, by KeyboardInterrupt say
        self._feeding = True
        done: tuple[Action, ...] = ()
        raised: list[Exception] | None = None
        try:
            while True:
                if self._plain and type(item) not in EVENTS:
                    try:
                        event = read_json(item)
                    except Exception:
                        actions = self._take(item, now)
                    else:
                        actions = self.machine.receive(event, now)
                        if self.recorder is not None:
                            self.recorder.write(item, event, now, actions)
                else:
                    actions = self._take(item, now)
                for action in actions:
                    try:
                        hook = self._only[type(action)]
                        if hook is not None:
                            hook(action.turn)  # type: ignore[attr-defined]
                        elif hooks := self._hooks[type(action)]:
                            raised = _call(hooks, action, raised)
                    except BaseException as error:
                        raised = [*(raised or ()), _failure(error)]
                done = done + actions if done else actions
                if not self._waiting:
                    break
                item, now = self._waiting.pop(0)
        finally:
            self._feeding = False
        if raised:
            raise ExceptionGroup("hooks raised", raised)
        return done

    def _take(self, item: Any, now: float | None) -> tuple[Action, ...]:
        """What the machine makes of an item. A recorder writes down Ink 2's frames as they are, and a source's as the
        events that they were read as: a replay has no source."""
        event: Event | None = None
        actions: tuple[Action, ...] = ()
        is_event = type(item) in EVENTS
        try:
            events = (item,) if is_event else self._read(item)
            if events:
                event = events[0]
                if len(events) > 1:
                    self._waiting[:0] = [(other, now) for other in events[1:]]
        except DecodeError as error:
            actions = (Report(ReportKind.BAD_FRAME, None, error.reason),)
        except BaseException as error:  # a source is the user's code, and reads what came over the wire (F10)
            if not is_failure(error):
                raise
            actions = (Report(ReportKind.BAD_FRAME, None, f"the source raised {type(error).__name__}"),)
        else:
            if event is not None:
                actions = self.machine.receive(event, now)
        if self.recorder is not None and (event is not None or actions):
            self.recorder.write(None if is_event or self.source is not None else item, event, now, actions)
        return actions

    # -- the hooks, by name: each a decorator that returns its function

    def on_start(self, hook: Callable[[Turn], Result]) -> Callable[[Turn], Result]:
        """on_start(turn): a turn has opened; the user speaks."""
        return self._on("on_start(turn)", Listen, hook)

    def on_update(self, hook: Callable[[Turn], Result]) -> Callable[[Turn], Result]:
        """on_update(turn): its text moved."""
        return self._on("on_update(turn)", Hear, hook)

    def on_think(self, hook: Callable[[Turn], Result]) -> Callable[[Turn], Result]:
        """on_think(turn): begin thought number `turn.latest_thought` on `turn.transcript`."""
        return self._on("on_think(turn)", Think, hook)

    def on_eager_end(self, hook: Callable[[Turn], Result]) -> Callable[[Turn], Result]:
        """on_eager_end(turn): the same, where it is speculative: the turn may be over; nobody is to hear of it yet."""
        return self._on("on_eager_end(turn)", Think, hook, lambda action: action.speculative and hook(action.turn))

    def on_resume(self, hook: Callable[[Turn], Result]) -> Callable[[Turn], Result]:
        """on_resume(turn): the user goes on."""
        return self._on("on_resume(turn)", Resume, hook)

    def on_cancel(self, hook: Callable[[Turn, CancelReason], Result]) -> Callable[[Turn, CancelReason], Result]:
        """on_cancel(turn, reason): its live thought is cancelled."""
        return self._on("on_cancel(turn, reason)", Cancel, hook, lambda action: hook(action.turn, action.reason))

    def on_end(self, hook: Callable[[Turn], Result]) -> Callable[[Turn], Result]:
        """on_end(turn): it is over; thought number `turn.latest_thought` is its reply."""
        return self._on("on_end(turn)", Respond, hook)

    def on_interrupt(self, hook: Callable[[int], Result]) -> Callable[[int], Result]:
        """on_interrupt(number): the reply to that turn must stop."""
        return self._on("on_interrupt(number)", Interrupt, hook, lambda action: hook(action.number))

    def on_abandon(self, hook: Callable[[Turn], Result]) -> Callable[[Turn], Result]:
        """on_abandon(turn): it closed with nothing to answer; its words are in `turn`."""
        return self._on("on_abandon(turn)", Abandon, hook)

    def on_stall(self, hook: Callable[[Turn], Result]) -> Callable[[Turn], Result]:
        """on_stall(turn): it is open, and its text has not moved for `Policy.stall_timeout`."""
        return self._on("on_stall(turn)", Stall, hook)

    def on_report(self, hook: Callable[[Report], Result]) -> Callable[[Report], Result]:
        """on_report(report): something was out of contract."""
        return self._on("on_report(report)", Report, hook, hook)

    def _on(self, usage: str, kind: type[Action], hook: Hook, call: Callable[[Any], object] | None = None) -> Hook:
        """Registers a hook. `call` gives it what it takes of an action; None: it takes the turn."""
        check_hook(usage, hook)
        if call is None and self._only[kind] is None and not self._hooks[kind]:
            self._only[kind] = hook
        else:
            self._call_with(kind, call or (lambda action: hook(action.turn)))
        return hook

    def _call_with(self, kind: type[Action], call: Callable[[Any], object]) -> None:
        """Calls `call` with each action of this kind, after what was registered before."""
        hooks = self._hooks[kind]
        if (only := self._only[kind]) is not None:
            self._only[kind] = None
            hooks = (*hooks, lambda action: only(action.turn))
        self._hooks[kind] = (*hooks, call)


def _decoded(frame: object) -> tuple[Event]:
    return (decode(frame),)


def _call(
    hooks: tuple[Callable[[Any], object], ...], action: Action, raised: list[Exception] | None
) -> list[Exception] | None:
    for hook in hooks:
        try:
            hook(action)
        except BaseException as error:
            raised = [*(raised or ()), _failure(error)]
    return raised


def _failure(error: BaseException) -> Exception:
    """What comes out of `feed` for what a hook raised. Raises what `feed` must not keep: KeyboardInterrupt, say."""
    if isinstance(error, Exception):
        return error
    if not is_failure(error):
        raise error
    failure = RuntimeError("a hook raised CancelledError")
    failure.__cause__ = error
    return failure


def _log(report: Report) -> None:
    sender = OTHER_SENDERS.get(report.event.kind) if type(report.event) is Unknown else None
    level = logging.ERROR if report.kind is ReportKind.STUCK_TASK else logging.WARNING
    LOGGER.log(level, "%s: %s", report.kind, f"{report.detail}; {sender}" if sender else report.detail)
