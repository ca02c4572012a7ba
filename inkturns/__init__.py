"""The turn-taking core of voice agents: Ink 2's turn events come in, what the agent has to do goes out.

Three tiers, each usable alone: `TurnMachine` (pure), `Turns` (hooks), `Agent` (tasks).

Rules of this file: it exports what users of `Agent` and `Turns` write, at most 40 names. The server's events and the
actions are imported from `inkturns.events` and `inkturns.actions`."""

import importlib
import typing

from inkturns.actions import Turn
from inkturns.errors import DecodeError, InkturnsError
from inkturns.events import (
    ContextChanged,
    Disconnected,
    EndNow,
    ReplyDone,
    ReplyStarted,
    StopReply,
    ThoughtFailed,
    Tick,
    UsePolicy,
)
from inkturns.machine import TurnMachine
from inkturns.policy import AfterDisconnect, AfterResume, AfterStall, Policy, min_words, same_text, same_words
from inkturns.settings import BALANCED, PATIENT, RESPONSIVE, TurnSettings
from inkturns.sources import Source
from inkturns.turns import Turns
from inkturns.wire import close_command, config_command, connect_query, decode

if typing.TYPE_CHECKING:
    from inkturns.agent import (
        Agent,
        Audible,
        Outcome,
        Replied,
        ReplyOutcome,
        Settled,
        Thought,
        committed,
        current_thought,
    )
    from inkturns.recording import Recorder
else:  # hidden from type checkers, which would believe that every name exists

    def __getattr__(name: str) -> object:
        """Loads the agent (and so anyio) and the recorder when they are asked for."""
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"inkturns.{_LATER[name]}"), name)


__all__ = [
    "BALANCED",
    "PATIENT",
    "RESPONSIVE",
    "AfterDisconnect",
    "AfterResume",
    "AfterStall",
    "Agent",
    "Audible",
    "ContextChanged",
    "DecodeError",
    "Disconnected",
    "EndNow",
    "InkturnsError",
    "Outcome",
    "Policy",
    "Recorder",
    "Replied",
    "ReplyDone",
    "ReplyOutcome",
    "ReplyStarted",
    "Settled",
    "Source",
    "StopReply",
    "Thought",
    "ThoughtFailed",
    "Tick",
    "Turn",
    "TurnMachine",
    "TurnSettings",
    "Turns",
    "UsePolicy",
    "close_command",
    "committed",
    "config_command",
    "connect_query",
    "current_thought",
    "decode",
    "min_words",
    "same_text",
    "same_words",
]

_LATER = dict.fromkeys(("Agent", "Audible", "Outcome", "Replied", "ReplyOutcome", "Settled", "Thought"), "agent")
_LATER |= dict.fromkeys(("committed", "current_thought"), "agent")
_LATER |= {"Recorder": "recording"}
