"""Ink's arguments: what is wrong with one is said when Ink is made."""

from typing import Any

import pytest

from inkturns.ink import LIVE, Ink
from inkturns.ink.opening import plain, where
from inkturns.settings import TurnSettings


@pytest.mark.parametrize(
    ("options", "kind", "why"),
    [
        ({"api_key": 7}, TypeError, "api_key must be a string or an async function, got int"),
        ({"api_key": ""}, ValueError, "api_key is empty; it is the key of your Cartesia account"),
        ({"api_key": "k\u00e9y"}, ValueError, "api_key must be printable ASCII"),
        ({"api_key": "key\n"}, ValueError, "a line break at its end"),
        ({"encoding": "mp3"}, ValueError, "encoding"),
        ({"sample_rate": 0}, ValueError, "sample_rate"),
        ({"settings": "balanced"}, TypeError, "settings"),
        ({"keyterms": [""]}, ValueError, "keyterm"),
        ({"keyterms": "Cartesia"}, TypeError, "keyterms must be a list of strings, got 'Cartesia'"),
        ({"model": ""}, ValueError, "model"),
        ({"version": ""}, ValueError, "version"),
        ({"url": "ws://a", "urls": ["ws://b"]}, ValueError, "give url or urls, not both"),
        ({"urls": ["ws://a", "http://b"]}, ValueError, "url must be the address of a WebSocket"),
        ({"url": "ws://a:port/"}, ValueError, "url must be the address of a WebSocket"),
        ({"url": "ws://a..b/"}, ValueError, "url must be the address of a WebSocket"),
        ({"url": "ws://a/#there"}, ValueError, "fragment"),
        ({"url": ""}, ValueError, "url must be the address of a WebSocket"),
        ({"url": 7}, TypeError, "url must be a string, got int"),
        ({"urls": "ws://a"}, TypeError, "urls must be a list of addresses, got str"),
        ({"urls": 7}, TypeError, "urls must be a list of addresses, got int"),
        ({"options": None}, TypeError, "options must be a mapping, got NoneType"),
        ({"give_up": -1}, ValueError, "give_up must be from 0 to 3600 seconds, got -1"),
        ({"keep": 2000000}, ValueError, "keep must be from 0 to 3600 seconds, got 2000000"),
        ({"keep": "2"}, TypeError, "keep must be a number of seconds, got '2'"),
        ({"keep": None}, TypeError, "keep must be a number of seconds, got None"),
        ({"connect_timeout": True}, TypeError, "connect_timeout must be a number"),
        ({"close_timeout": float("nan")}, ValueError, "close_timeout"),
        ({"fill": 1}, ValueError, 'fill must be False, True or "open_turn", got 1'),
        ({"fill": "always"}, ValueError, "fill must be False, True or \"open_turn\", got 'always'"),
        ({"retries": 3}, TypeError, "retries"),
    ],
)
def test_a_wrong_argument_is_refused(options: dict[str, Any], kind: type[Exception], why: str) -> None:
    with pytest.raises(kind) as wrong:
        Ink(**options)
    assert why in str(wrong.value)


def test_f57_an_address_that_is_wrong_is_not_shown_with_its_password() -> None:
    with pytest.raises(ValueError, match="must be the address") as wrong:
        Ink(url="ws://me:secret@host:port/")
    assert "secret" not in str(wrong.value)
    assert "secret" not in repr(Ink(url="ws://me:secret@host/", api_key="secret", urls=()))


def test_what_an_ink_is_without_arguments() -> None:
    ink = Ink()
    assert (ink.give_up, ink.keep, ink.fill, ink.connect_timeout, ink.close_timeout) == (30, 2, False, 10, 10)
    assert not ink.connected
    assert not ink.catching_up
    assert ink.stats.connections == 0
    assert Ink(give_up=None).give_up is None
    assert where(LIVE) == "wss://api.cartesia.ai:443/stt/turns/websocket"
    assert where("ws://me:you@[::1]:8/a?token=b") == "ws://[::1]:8/a"


def test_use_takes_settings_alone() -> None:
    ink = Ink()
    with pytest.raises(TypeError, match="must be a TurnSettings, got dict"):
        ink.use({})  # type: ignore[arg-type]
    ink.use(TurnSettings(end_threshold=0.2))
    ink.use(TurnSettings(start_threshold=0.7))
    assert ink.settings == TurnSettings(end_threshold=0.2, start_threshold=0.7)


def test_f57_words_off_the_wire_are_made_harmless() -> None:
    assert (
        plain(" one\x1b[2J\r\ntwo ")
        == "one\N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}two"
    )
    assert len(plain("x" * 1000)) == 200
