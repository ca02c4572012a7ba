"""TurnSettings: the server's four numbers, checked when made."""

import math
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inkturns.policy import Policy
from inkturns.settings import BALANCED, PATIENT, RESPONSIVE, TurnSettings

BOUNDS: dict[str, tuple[float, float]] = {  # as the vendor has them, the wider range where its sources differ
    "start_threshold": (0.5, 0.9),
    "eager_end_threshold": (0.3, 0.8),
    "end_threshold": (0.05, 0.5),
    "end_timeout_ms": (640, 11200),
}
THRESHOLDS = tuple(BOUNDS)[:3]


def outside(name: str) -> tuple[float, float]:
    low, high = BOUNDS[name]
    if name == "end_timeout_ms":
        return low - 1, high + 1
    return math.nextafter(low, 0), math.nextafter(high, 1)


def test_nothing_is_set_by_itself() -> None:
    assert TurnSettings().given() == {}
    assert TurnSettings().query() == ""


@pytest.mark.parametrize("name", BOUNDS)
def test_both_bounds_are_within(name: str) -> None:
    for value in BOUNDS[name]:
        assert TurnSettings(**{name: value}).given() == {name: value}  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in BOUNDS for value in outside(name)])
def test_what_is_out_of_bounds_is_refused_with_field_value_and_bounds(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name) as found:
        TurnSettings(**{name: value})  # type: ignore[arg-type]
    for part in (value, *BOUNDS[name]):
        assert str(part) in str(found.value)


@pytest.mark.parametrize("name", THRESHOLDS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0, 1, -0.7])
def test_what_is_no_likelihood_is_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"{name}.*{value}"):
        TurnSettings(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name in BOUNDS for value in ("0.5", True, False, [0.5], {}, 0.5j, b"1", object())]
    + [("end_timeout_ms", 640.0), ("end_timeout_ms", math.nan)],
)
def test_what_is_no_number_is_refused_with_field_and_value(name: str, value: Any) -> None:
    with pytest.raises(TypeError) as found:
        TurnSettings(**{name: value})
    assert name in str(found.value)
    assert repr(value) in str(found.value)


def test_unknown_names_and_positions_are_refused() -> None:
    with pytest.raises(TypeError, match="start_treshold"):
        TurnSettings(start_treshold=0.8)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        TurnSettings(0.8)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("upper", "high", "lower", "low"),
    [
        ("start_threshold", 0.6, "eager_end_threshold", 0.6),
        ("start_threshold", 0.6, "eager_end_threshold", 0.7),
        ("eager_end_threshold", 0.4, "end_threshold", 0.4),
        ("eager_end_threshold", 0.4, "end_threshold", 0.5),
        ("start_threshold", 0.5, "end_threshold", 0.5),  # the middle one absent
    ],
)
def test_a_pair_out_of_order_is_refused_with_both_names_and_values(
    upper: str, high: float, lower: str, low: float
) -> None:
    with pytest.raises(ValueError, match=lower) as found:
        TurnSettings(**{upper: high, lower: low})  # type: ignore[arg-type]
    for part in (upper, str(high), str(low)):
        assert part in str(found.value)
    below = math.nextafter(high, 0)
    assert TurnSettings(**{upper: high, lower: below}).given() == {upper: high, lower: below}  # type: ignore[arg-type]


@given(st.tuples(*(st.none() | st.floats(*BOUNDS[name]) for name in THRESHOLDS)), st.none() | st.integers(640, 11200))
def test_thresholds_are_accepted_just_where_those_set_are_in_strict_order(
    values: tuple[float | None, ...], timeout: int | None
) -> None:
    fields: dict[str, Any] = dict(zip(THRESHOLDS, values, strict=True)) | {"end_timeout_ms": timeout}
    said = [value for value in values if value is not None]
    if said == sorted(set(said), reverse=True):
        assert TurnSettings(**fields).given() == {name: v for name, v in fields.items() if v is not None}
    else:
        with pytest.raises(ValueError, match="must be below"):
            TurnSettings(**fields)


def test_a_query_says_what_is_set_in_the_order_of_the_fields() -> None:
    assert TurnSettings(end_timeout_ms=640, eager_end_threshold=0.5).query() == (
        "turn_eager_end_threshold=0.5&turn_end_timeout_ms=640"
    )
    assert BALANCED.query() == (
        "turn_start_threshold=0.8&turn_eager_end_threshold=0.6&turn_end_threshold=0.3&turn_end_timeout_ms=5600"
    )


@given(st.floats(*BOUNDS["end_threshold"]))
def test_a_query_holds_every_digit(value: float) -> None:
    assert float(TurnSettings(end_threshold=value).query().removeprefix("turn_end_threshold=")) == value


@pytest.mark.parametrize(
    ("profile", "values"),
    [
        (BALANCED, (0.8, 0.6, 0.3, 5600)),
        (RESPONSIVE, (0.7, 0.6, 0.4, 4500)),
        (PATIENT, (0.8, 0.3, 0.1, 8000)),
    ],
)
def test_the_profiles_are_the_vendors(profile: TurnSettings, values: tuple[float, ...]) -> None:
    assert tuple(profile.given().values()) == values
    assert tuple(profile.given()) == tuple(BOUNDS)


def test_settings_are_values() -> None:
    assert TurnSettings(start_threshold=0.8) == TurnSettings(start_threshold=0.8)
    assert attrs.evolve(BALANCED, end_timeout_ms=640).end_timeout_ms == 640
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        BALANCED.end_timeout_ms = 1  # type: ignore[misc]
    with pytest.raises(ValueError, match="end_threshold"):
        attrs.evolve(BALANCED, end_threshold=0.9)


def test_f12_a_stall_timeout_that_is_not_above_the_servers_own_is_refused() -> None:
    with pytest.raises(ValueError, match=r"stall_timeout.*end_timeout_ms, 5600.*5\.0 s"):
        Policy(stall_timeout=5.0).check(BALANCED)
    with pytest.raises(ValueError, match="5600"):  # the server's default, where none is set
        Policy(stall_timeout=5.0).check(TurnSettings())
    Policy(stall_timeout=5.0).check(RESPONSIVE)
    Policy(stall_timeout=5.601).check(TurnSettings())
    Policy().check(BALANCED)  # no watchdog by itself
    assert Policy().stall_timeout is None


def test_f12_nor_one_that_equals_it_to_the_millisecond(full: bool) -> None:
    for timeout in range(640, 11201, 1 if full else 7):
        settings = TurnSettings(end_timeout_ms=timeout)
        with pytest.raises(ValueError, match="stall_timeout"):
            Policy(stall_timeout=timeout / 1000).check(settings)
        Policy(stall_timeout=(timeout + 1) / 1000).check(settings)
