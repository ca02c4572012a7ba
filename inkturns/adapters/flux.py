"""Deepgram Flux: its messages to events, and its settings to Ink 2's as far as they carry over.

Rules of this file: a Flux turn is an Ink turn, said more often, so what is left out adds nothing: messages of an idle
line, and text that has not moved. Of the open turn only its latest text is remembered. No number is copied into a
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

from inkturns.adapters import readers, unknown
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
    """One message. Any field may be absent, or null where the SDK knows the field and the message has it not."""

    request_id: str | None = None


class FluxConnected(FromFlux, frozen=True, tag="Connected"):
    """A connection is open; `turn_index` begins at 0 again."""


class TurnInfo(FromFlux, frozen=True, tag="TurnInfo"):
    """All that Flux says of a turn. `event` is an open set, and numbers may come as strings."""

    event: str
    turn_index: Annotated[int, Meta(ge=0, le=2**63 - 1)] | str | None = None
    transcript: str | None = None


class Complaint(FromFlux, frozen=True):
    """What is wrong; `code` is in capitals, `description` is prose."""

    code: str | None = None
    description: str | None = None


class FatalError(Complaint, frozen=True, tag="Error"):
    """The session is over: the server closes the connection."""


class Warned(Complaint, frozen=True, tag="Warning"):
    """The session goes on: a ForceEndTurn with no turn to end, say."""


class ConfigureFailure(Complaint, frozen=True, tag="ConfigureFailure"):
    """The settings are what they were."""


class ConfigureSuccess(FromFlux, frozen=True, tag="ConfigureSuccess"):
    """The settings are what was asked for."""


_straight, _the_long_way = readers(FluxConnected, TurnInfo, FatalError, Warned, ConfigureFailure, ConfigureSuccess)


@attrs.define(eq=False)
class Flux:
    """The source for Deepgram Flux (`wss://api.deepgram.com/v2/listen`); one per call, over all of its connections.

    Takes raw frames (str, bytes, mappings) and the objects of `deepgram-sdk`. A `turn_index` becomes the `turn_id`.
    Raw frames say more: of a message whose type it does not know the SDK makes None, which is a bad frame (F09)."""

    checks_fields: ClassVar[bool] = True  # msgspec does, as it reads them

    _said: tuple[str | None, str | None, str] | None = attrs.field(init=False, default=None)
    """The open turn's latest text, and whose it is."""

    def events(self, frame: object) -> tuple[Event, ...]:
        """The events that a frame says. Raises DecodeError for one that it cannot read, and nothing else."""
        try:
            message = _straight(frame)
        except Exception:  # not only msgspec's own, as in `decode`
            message = _the_long_way(frame)
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
                self._said = None  # what comes later is late, and the machine's to judge (F30)
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
                # CHOICE: the open turn is settled here. It will never end by itself, and a socket may take its time to
                # close, or be read by nobody any more; a second Disconnected, when it does close, changes nothing.
                self._said = None
                return (complaint, Disconnected(code))
            case _:
                return ()


# -- settings

# The wider range where the vendor's sources differ: until it took ForceEndTurn, `eot_threshold` ended at 0.9 and
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
        raise TypeError(f"FluxSettings.{field.name} is a {'whole ' if whole else ''}number, not {value!r}")
    if not low <= value <= high:
        raise ValueError(f"FluxSettings.{field.name} is {value!r}; it must be from {low} to {high}")


@attrs.frozen(kw_only=True)
class FluxSettings:
    """When Flux says that a turn ends; the thresholds are likelihoods that the user has finished. None is not sent, and
    the server's default holds.

    eot_threshold        EndOfTurn above it                   0.5-1.0; higher: later, and surer; 1.0: never by itself
    eager_eot_threshold  EagerEndOfTurn above it              0.3-0.9; None: there are no eager ends
    eot_timeout_ms       EndOfTurn after so much silence      500-60000 ms of audio

    Raises TypeError or ValueError when made, naming the field, its value and its bounds."""

    eot_threshold: float | None = attrs.field(default=None, validator=_in_bounds)
    eager_eot_threshold: float | None = attrs.field(default=None, validator=_in_bounds)
    eot_timeout_ms: int | None = attrs.field(default=None, validator=_in_bounds)

    def given(self) -> dict[str, float]:
        """What is set, by name, in the order of the fields: as the Configure message has its `thresholds`."""
        return {name: value for name, value in attrs.asdict(self).items() if value is not None}

    def query(self) -> str:
        """What is set, as an encoded query string: `eot_threshold=0.7&…`."""
        return urlencode(self.given())


def flux_to_ink(settings: FluxSettings, profile: TurnSettings | None = None) -> TurnSettings:
    """Ink 2's settings for who had these: the timeout is copied, a threshold never is.

    Flux's thresholds say how sure it must be that the user has *finished*, each of its own kind of end; Ink's say how
    likely it still is that the user is *in* a turn. No formula from the one to the other is published, and they run
    opposite ways: a copied 0.7 would be refused, a copied 0.5 would do something else in silence. So where a threshold
    is set, `profile` has to name what is wanted instead (BALANCED, RESPONSIVE, PATIENT, or your own); its own timeout
    gives way to Flux's where that is set.

    Raises ValueError, naming the field and its value, for a threshold without a profile and for a timeout out of Ink's
    bounds; TypeError for what are no such settings."""
    if not isinstance(settings, FluxSettings):
        raise TypeError(f"flux_to_ink: settings is a FluxSettings, not {settings!r}")
    if not isinstance(profile, TurnSettings | None):
        raise TypeError(f"flux_to_ink: profile is a TurnSettings, not {profile!r}")
    thresholds = {name: value for name, value in settings.given().items() if name != "eot_timeout_ms"}
    if thresholds and profile is None:
        values = " and ".join(f"{name} is {value}" for name, value in thresholds.items())
        raise ValueError(
            f"flux_to_ink: {values}, of a likelihood that the user has finished (higher: later, surer); Ink 2's are of "
            "the likelihood that the user is still in a turn (higher: earlier, riskier), so no value carries over. "
            "Say what you want instead: flux_to_ink(settings, profile=BALANCED)"
        )
    profile = profile or TurnSettings()
    timeout = settings.eot_timeout_ms
    if timeout is None:
        return profile
    low, high = INK_BOUNDS["end_timeout_ms"]
    if not low <= timeout <= high:
        raise ValueError(f"flux_to_ink: eot_timeout_ms is {timeout}; Ink 2's must be from {low} to {high}")
    return attrs.evolve(profile, end_timeout_ms=timeout)
