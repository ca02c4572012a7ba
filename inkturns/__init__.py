"""The turn-taking core of voice agents: Ink 2's turn events in, what an agent is to do about them out.

Three tiers, each usable alone: `TurnMachine` (pure), `Turns` (hooks), `Agent` (tasks)."""

import importlib
import typing

from inkturns.actions import (
    Abandon,
    Action,
    Cancel,
    CancelReason,
    EndReason,
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
from inkturns.errors import DecodeError, InkturnsError, RecordingError, RecordingWarning
from inkturns.events import (
    Connected,
    ContextChanged,
    Disconnected,
    EndNow,
    Event,
    ReplyDone,
    ReplyStarted,
    ServerError,
    StopReply,
    ThoughtFailed,
    Tick,
    TurnEagerEnd,
    TurnEnd,
    TurnResume,
    TurnStart,
    TurnUpdate,
    Unknown,
    UsePolicy,
)
from inkturns.history import History
from inkturns.hooks import Source, Turns
from inkturns.machine import TurnMachine
from inkturns.policy import OnLost, OnResume, OnStall, Policy, exact, normalized, words
from inkturns.settings import BALANCED, PATIENT, RESPONSIVE, TurnSettings
from inkturns.table import Phase
from inkturns.wire import close_command, config_command, connect_query, decode

if typing.TYPE_CHECKING:
    from inkturns.agent import Agent, Outcome, Settled, Thought, committed, current_thought
    from inkturns.recording import Recorder, replay

__all__ = [
    "BALANCED",
    "PATIENT",
    "RESPONSIVE",
    "Abandon",
    "Action",
    "Agent",
    "Cancel",
    "CancelReason",
    "Connected",
    "ContextChanged",
    "DecodeError",
    "Disconnected",
    "EndNow",
    "EndReason",
    "Event",
    "Hear",
    "History",
    "InkturnsError",
    "Interrupt",
    "Listen",
    "OnLost",
    "OnResume",
    "OnStall",
    "Outcome",
    "Phase",
    "Policy",
    "Recorder",
    "RecordingError",
    "RecordingWarning",
    "ReplyDone",
    "ReplyStarted",
    "Report",
    "ReportKind",
    "Respond",
    "Resume",
    "ServerError",
    "Settled",
    "Source",
    "Stall",
    "StopReply",
    "Think",
    "Thought",
    "ThoughtFailed",
    "Tick",
    "Turn",
    "TurnEagerEnd",
    "TurnEnd",
    "TurnMachine",
    "TurnResume",
    "TurnSettings",
    "TurnStart",
    "TurnUpdate",
    "Turns",
    "Unknown",
    "UsePolicy",
    "close_command",
    "committed",
    "config_command",
    "connect_query",
    "current_thought",
    "decode",
    "exact",
    "normalized",
    "replay",
    "words",
]


_LATER = dict.fromkeys(("Agent", "Outcome", "Settled", "Thought", "committed", "current_thought"), "agent")
_LATER |= dict.fromkeys(("Recorder", "replay"), "recording")


def __getattr__(name: str) -> typing.Any:
    """The agent, and so anyio and its loop, and the recordings are loaded when they are asked for."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"inkturns.{_LATER[name]}"), name)
