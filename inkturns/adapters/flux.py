"""Deepgram Flux: its messages as events, and its settings as Ink 2's as far as they carry over.

Rules of this file: a Flux turn is an Ink turn, told more often. Messages that add nothing are left out: those of an
idle line, and text that has not moved. Only the open turn's latest text is remembered. No number is copied into a
setting that means something else.

| Flux                                     | events                                              |
|------------------------------------------|-----------------------------------------------------|
| Connected                                | Connected                                           |
| Update, text new in its turn             | TurnUpdate; its text may revise what came before    |
| Update, text blank or unchanged          | none: "regardless of transcript updates", says Flux |
| StartOfTurn, with its first words        | TurnStart, TurnUpdate                               |
| EagerEndOfTurn                           | TurnEagerEnd                                        |
| TurnResumed, with words where they moved | TurnResume, TurnUpdate                              |
| EndOfTurn, whatever triggered it         | TurnEnd                                             |
| Error                                    | ServerError, Disconnected                           |
| Warning, ConfigureFailure                | ServerError                                         |
| ConfigureSuccess                         | none                                                |
| anything else                            | Unknown                                             |
"""

from typing import Annotated, Any, ClassVar
from urllib.parse import urlencode

import attrs
from msgspec import Meta, Struct

from inkturns.adapters.messages import readers, unknown
from inkturns.events import (
    Connected,
    Disconnected,
    Event,
    ServerError,
    TurnEagerEnd,
    TurnEnd,
    TurnResume,
    TurnStart,
    TurnUpdate,
    Unknown,
)
from inkturns.settings import BOUNDS as INK_BOUNDS
from inkturns.settings import TurnSettings

__all__ = ["Flux", "FluxSettings", "flux_to_ink"]


class FromFlux(Struct, frozen=True, gc=False, tag_field="type", kw_only=True):
    """One message. Any field may be absent; the SDK gives None for a field that the message does not have."""

    request_id: str | None = None


class FluxConnected(FromFlux, frozen=True, tag="Connected"):
    """A connection is open; `turn_index` begins at 0 again."""


class TurnInfo(FromFlux, frozen=True, tag="TurnInfo"):
    """All that Flux says of a turn. It may add values of `event`, and its numbers may come as strings."""

    event: str
    turn_index: Annotated[int, Meta(ge=0, le=2**63 - 1)] | str | None = None
    transcript: str | None = None


class Complaint(FromFlux, frozen=True):
    """An error. `code` is in capitals, `description` is prose."""

    code: str | None = None
    description: str | None = None


class FatalError(Complaint, frozen=True, tag="Error"):
    """The session is over: the server closes the connection."""


class Warned(Complaint, frozen=True, tag="Warning"):
    """An error after which the session goes on: a ForceEndTurn without an open turn, for example."""


class ConfigureFailure(Complaint, frozen=True, tag="ConfigureFailure"):
    """The settings did not change."""


class ConfigureSuccess(FromFlux, frozen=True, tag="ConfigureSuccess"):
    """The settings changed as asked."""


_read_json, _read_any = readers(FluxConnected, TurnInfo, FatalError, Warned, ConfigureFailure, ConfigureSuccess)


@attrs.define(eq=False)
class Flux:
    """The source for Deepgram Flux (`wss://api.deepgram.com/v2/listen`); one per call, over all of its connections.

    Takes raw frames (str, bytes, mappings) and the objects of `deepgram-sdk`. The `turn_index` becomes the `turn_id`.
    Raw frames say more: the SDK makes None of a message whose type it does not know, and None is a bad frame (F09)."""

    checks_fields: ClassVar[bool] = True  # msgspec checks them

    _said: tuple[str | None, str | None, str] | None = attrs.field(init=False, default=None)
    """The open turn's request_id, turn_id and latest text."""

    def events(self, frame: object) -> tuple[Event, ...]:
        """The events of a frame. Raises DecodeError for a frame that it cannot read, and nothing else."""
        try:
            message = _read_json(frame)
        except Exception:  # not only msgspec's own, as in `decode`
            message = _read_any(frame)
        if type(message) is not TurnInfo:
            return self._not_of_a_turn(message)
        request_id, index, text = message.request_id, message.turn_index, message.transcript or ""
        turn_id = str(index) if isinstance(index, int) else index
        match message.event:
            case "Update":
                return self._moved(request_id, turn_id, text)
            case "StartOfTurn":
                self._said = None
                start = TurnStart(request_id=request_id, turn_id=turn_id)
                return (start, *self._moved(request_id, turn_id, text))
            case "EagerEndOfTurn":
                self._said = (request_id, turn_id, text)
                return (TurnEagerEnd(text, request_id=request_id, turn_id=turn_id),)
            case "TurnResumed":
                resume = TurnResume(request_id=request_id, turn_id=turn_id)
                return (resume, *self._moved(request_id, turn_id, text))
            case "EndOfTurn":
                self._said = None  # the machine judges what comes later (F30)
                return (TurnEnd(text, request_id=request_id, turn_id=turn_id),)
            case later:
                return (unknown(f"TurnInfo.{later}", frame),)

    def _moved(self, request_id: str | None, turn_id: str | None, text: str) -> tuple[Event, ...]:
        said = (request_id, turn_id, text)
        if said == self._said or not text or text.isspace():
            return ()
        self._said = said
        return (TurnUpdate(text, request_id=request_id, turn_id=turn_id),)

    def _not_of_a_turn(self, message: Any) -> tuple[Event, ...]:
        match message:
            case Unknown():
                return (message,)
            case FluxConnected(request_id=request_id):
                self._said = None
                return (Connected(request_id=request_id),)
            case Complaint(request_id=request_id, code=code, description=why):
                title = str(message.__struct_config__.tag)
                complaint = ServerError(request_id=request_id, title=title, message=why, error_code=code)
                if not isinstance(message, FatalError):
                    return (complaint,)
                # CHOICE: the open turn is closed here. It will never end by itself, and the socket may close late, or
                # nobody may read it any more. A second Disconnected, when it does close, changes nothing.
                self._said = None
                return (complaint, Disconnected(code))
            case _:
                return ()


# -- settings

# The wider range where the vendor's sources differ: before ForceEndTurn existed, `eot_threshold` ended at 0.9 and
# `eot_timeout_ms` at 10000.
BOUNDS: dict[str, tuple[float, float]] = {
    "eot_threshold": (0.5, 1.0),
    "eager_eot_threshold": (0.3, 0.9),
    "eot_timeout_ms": (500, 60000),
}


def _in_bounds(settings: "FluxSettings", field: "attrs.Attribute[Any]", value: object) -> None:
    if value is None:
        return
    low, high = BOUNDS[field.name]
    whole = field.name == "eot_timeout_ms"
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        raise TypeError(f"FluxSettings.{field.name} must be a {'whole ' if whole else ''}number, got {value!r}")
    if not low <= value <= high:
        raise ValueError(f"FluxSettings.{field.name} must be from {low} to {high}, got {value!r}")


@attrs.frozen(kw_only=True)
class FluxSettings:
    """When Flux ends a turn. The thresholds are likelihoods that the user has finished. A setting that is None is not
    sent, and the server's default holds.

    eot_threshold        EndOfTurn above it                   0.5-1.0; higher: later and surer; 1.0: never by itself
    eager_eot_threshold  EagerEndOfTurn above it              0.3-0.9; None: there are no eager ends
    eot_timeout_ms       EndOfTurn after so much silence      500-60000 ms of audio

    Raises TypeError or ValueError when made, naming the field, its value and its bounds."""

    eot_threshold: float | None = attrs.field(default=None, validator=_in_bounds)
    eager_eot_threshold: float | None = attrs.field(default=None, validator=_in_bounds)
    eot_timeout_ms: int | None = attrs.field(default=None, validator=_in_bounds)

    def given(self) -> dict[str, float]:
        """The settings that are not None, by name: the `thresholds` of a Configure message."""
        return {name: value for name, value in attrs.asdict(self).items() if value is not None}

    def query(self) -> str:
        """The settings that are not None, as an encoded query string: `eot_threshold=0.7&…`."""
        return urlencode(self.given())


def flux_to_ink(settings: FluxSettings, profile: TurnSettings | None = None) -> TurnSettings:
    """Ink 2's settings in place of these: the timeout is copied, a threshold never is.

    Flux's thresholds say how sure the server must be that the user has *finished*. Ink 2's say how likely it is that
    the user is still *in* a turn. They run opposite ways, and no formula is published: a copied 0.7 would be refused, a
    copied 0.5 would silently mean something else. So where a threshold is set, `profile` must say what is wanted
    instead (BALANCED, RESPONSIVE, PATIENT, or your own). Flux's timeout, where it is set, replaces the profile's.

    Raises ValueError, naming the field and its value, for a threshold without a profile and for a timeout outside Ink
    2's bounds; TypeError for other arguments."""
    if not isinstance(settings, FluxSettings):
        raise TypeError(f"flux_to_ink: settings must be a FluxSettings, got {settings!r}")
    if not isinstance(profile, TurnSettings | None):
        raise TypeError(f"flux_to_ink: profile must be a TurnSettings, got {profile!r}")
    thresholds = {name: value for name, value in settings.given().items() if name != "eot_timeout_ms"}
    if thresholds and profile is None:
        values = " and ".join(f"{name} is {value}" for name, value in thresholds.items())
        raise ValueError(
            f"flux_to_ink: {values}, but no value of Flux's thresholds carries over to Ink 2 (they run opposite ways). "
            "Say what you want instead: flux_to_ink(settings, profile=BALANCED)"
        )
    profile = profile or TurnSettings()
    timeout = settings.eot_timeout_ms
    if timeout is None:
        return profile
    low, high = INK_BOUNDS["end_timeout_ms"]
    if not low <= timeout <= high:
        raise ValueError(f"flux_to_ink: Ink 2's end_timeout_ms must be from {low} to {high}, got {timeout}")
    return attrs.evolve(profile, end_timeout_ms=timeout)
