"""Ink's client when something goes wrong: losses, refusals, outages, and the hang-up at each of these moments."""

import asyncio
import io
import json
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

from inkturns.agent import Agent
from inkturns.errors import OutageError, RefusedError
from inkturns.events import Disconnected
from inkturns.ink import Ink, Sound
from inkturns.ink.backoff import LIMITER
from inkturns.recording import Recorder
from inkturns.report import turns_of
from tests.ink_calls import (
    RATE,
    Frame,
    Handler,
    Line,
    answering,
    closes,
    cut,
    heard,
    kinds,
    mulaw,
    now,
    run,
    says,
    serving,
    silent,
    speech,
    spoken,
)

# -- loss


def test_after_a_loss_the_call_goes_on_with_the_next_connection() -> None:
    async def call() -> None:
        data = speech(3)
        async with serving(line := Line({8000: cut})) as url:
            ink = mulaw(url)
            frames = await heard(ink, spoken(data))
            assert kinds(frames) == ["connected", "lost", "connected"]
            assert line.sound == data  # in order, and all of it
            assert (ink.stats.losses, ink.stats.connections, ink.stats.dropped) == (1, 2, 0)
            lost, again = frames[1][0], frames[2][0]
            assert lost == pytest.approx(1, abs=0.03)
            assert again - lost < 0.2  # the first pause is 0.1 s at most

    run(call())


@pytest.mark.parametrize(
    ("does", "why"),
    [
        (cut, "the connection was lost"),
        (closes(1000), "the server closed the connection (1000)"),
        (
            closes(1011, "restart\x1b[2J"),
            "the server closed the connection (1011: restart\N{REPLACEMENT CHARACTER}[2J)",
        ),
        (closes(4000), "the server closed the connection (4000)"),
    ],
)
def test_a_loss_says_why(does: Handler, why: str) -> None:
    async def call() -> list[Frame]:
        async with serving(Line({1600: does})) as url:
            return [frame for _, frame in await heard(mulaw(url), spoken(speech(1)))]

    assert [frame for frame in run(call()) if isinstance(frame, Disconnected)] == [Disconnected(why)]


def test_a_server_that_answers_no_ping_is_lost() -> None:
    async def deaf(socket: ServerConnection) -> None:
        socket.transport.pause_reading()

    async def call() -> None:
        async with serving(Line({1600: deaf}), Line()) as url:
            ink = mulaw(url)
            frames = await heard(ink, spoken(speech(30)))
            lost = [(at, frame) for at, frame in frames if isinstance(frame, Disconnected)]
            assert lost[0][0] == pytest.approx(11)
            assert [frame for _, frame in lost] == [Disconnected("the connection was lost (keepalive ping timeout)")]
            assert ink.stats.connections == 2

    run(call())


def test_the_sound_of_an_outage_is_kept_and_of_more_the_newest(caplog: pytest.LogCaptureFixture) -> None:
    async def call() -> None:
        data = speech(10)
        async with serving(
            line := Line({8000: cut}), process_request=answering((503, {"Retry-After": "5"}, ""), before=1)
        ) as url:
            ink = mulaw(url, keep=2)
            frames = await heard(ink, spoken(data))
            again = frames[2][0]
            assert 6 <= again < 6.3
            lost = round(ink.stats.dropped * RATE)
            assert lost == pytest.approx((again - 1 - 2) * RATE, abs=400)
            assert line.sound == data[:8000] + data[8000 + lost :]
            assert ink.stats.kept == pytest.approx(2, abs=0.05)
            assert ink.stats.sent + ink.stats.dropped == pytest.approx(10)
            assert f"{lost / RATE:.1f} s of sound were dropped" in caplog.text

    run(call())


def test_what_the_server_hears_of_an_outage_is_known_for_late() -> None:
    async def call() -> None:
        late: list[bool] = []
        async with serving(
            Line({8000: cut}), process_request=answering((503, {"Retry-After": "1"}, ""), before=1)
        ) as url:
            ink = mulaw(url)
            assert not ink.catching_up

            async def watched() -> AsyncIterator[bytes]:
                async for chunk in spoken(speech(6), 800):
                    late.append(ink.catching_up)
                    yield chunk

            await heard(ink, watched())
            assert late.count(True) == pytest.approx(10 * (1 + 1), abs=3)  # a second kept, another until its words
            assert not late[-1]

    run(call())


def test_a_recording_marks_the_turns_that_begin_in_kept_sound_and_the_report_leaves_out_their_times() -> None:
    def turn(number: int) -> Handler:
        names = ("turn.start", "turn.eager_end", "turn.end")
        texts: list[dict[str, Any]] = [{}, {"transcript": "a table"}, {"transcript": "a table"}]
        told = [{"type": name, "turn_id": str(number), **text} for name, text in zip(names, texts, strict=True)]
        return says(*told)

    async def call() -> None:
        again = Line({8000: turn(1), 36_000: turn(2)})
        refused = answering((503, {"Retry-After": "1"}, ""), before=1)
        async with serving(Line({4000: turn(1), 8000: cut}), again, process_request=refused) as url:
            agent = Agent(recorder=Recorder(file := io.BytesIO()))
            async with mulaw(url).connect(spoken(speech(7))) as frames:
                await agent.run(frames)
        lines = file.getvalue().splitlines()
        marks = [note for line in lines if (note := json.loads(line)).get("agent") == "catching_up"]
        assert [note["turn"] for note in marks] == [2]
        rows = turns_of(lines)
        assert [row.catching_up for row in rows] == [False, True, False]
        assert [row.answered for row in rows] == [True] * 3
        assert [(row.gap is None, row.head_start is None) for row in rows] == [(row.catching_up,) * 2 for row in rows]

    run(call())


def test_a_network_that_takes_nothing_makes_the_oldest_sound_go(caplog: pytest.LogCaptureFixture) -> None:
    async def call() -> None:
        async def pauses(socket: ServerConnection) -> None:
            socket.transport.pause_reading()
            asyncio.get_running_loop().call_later(8, socket.transport.resume_reading)

        data = speech(12, rate=RATE * 200)
        async with serving(line := Line({8000: pauses}), max_size=None) as url:
            ink = mulaw(url, sample_rate=RATE * 200, options={"ping_timeout": 20})
            await heard(ink, spoken(data, 160_000, RATE * 200))
            assert ink.stats.losses == 0
            assert ink.stats.dropped > 1
            assert ink.stats.kept == pytest.approx(2, abs=1.5)
            assert len(line.sound) == len(data) - round(ink.stats.dropped * RATE * 200)
            assert line.sound.endswith(data[-160_000:])
            assert "were dropped" in caplog.text

    run(call())


def test_what_waits_is_sent_though_nothing_more_is_said() -> None:
    async def call() -> None:
        async def pauses(socket: ServerConnection) -> None:
            socket.transport.pause_reading()
            asyncio.get_running_loop().call_later(1, socket.transport.resume_reading)

        async def two() -> AsyncIterator[bytes]:
            await asyncio.sleep(0.1)
            yield bytes(8000)
            await asyncio.sleep(0.1)
            yield speech(800, rate=RATE)
            yield b"the last"
            await asyncio.sleep(5)
            assert line.sound.endswith(b"the last")
            assert not line.commands

        async with serving(line := Line({8000: pauses}), max_size=None) as url:
            await heard(mulaw(url), two())
            assert line.commands

    run(call())


def test_the_attempts_of_a_process_are_spread() -> None:
    async def call() -> None:
        async with serving(Line({800: cut})) as url:
            for _ in range(60):  # others, who lost their connections too
                LIMITER.wait()
            frames = await heard(mulaw(url), spoken(speech(3)))
            assert frames[2][0] >= 0.1 + 0.3

    run(call())


# -- refusals


@pytest.mark.parametrize("status", [200, 302, 400, 401, 402, 403, 404])
def test_a_refused_upgrade_is_final(status: int) -> None:
    async def call() -> None:
        body = json.dumps({"title": "No", "message": "Your plan\nends"})
        async with serving(Line(), process_request=answering((status, {"Location": "ws://127.0.0.1:1"}, body))) as url:
            ink = mulaw(url, api_key="secret")
            with pytest.raises(RefusedError, match=rf"^Ink 2 refused: HTTP {status}: No: Your plan.ends$") as refused:
                await heard(ink, spoken(speech(60)))
            assert refused.value.status == status
            assert now() < 1
            assert (ink.stats.refusals, ink.stats.connections) == (1, 0)

    run(call())


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_busy_server_is_asked_again(status: int) -> None:
    async def call() -> None:
        async with serving(line := Line(), process_request=answering(status, status)) as url:
            ink = mulaw(url)
            frames = await heard(ink, spoken(data := speech(2)))
            assert kinds(frames) == ["connected"]
            assert line.sound == data
            assert ink.stats.refusals == 2

    run(call())


def test_retry_after_is_obeyed() -> None:
    async def call() -> None:
        async with serving(Line(), process_request=answering((429, {"Retry-After": "7"}, ""))) as url:
            frames = await heard(mulaw(url), spoken(speech(9)))
            assert 6.99 <= frames[0][0] < 7.5

    run(call())


def test_who_is_to_wait_longer_than_the_call_does_gives_up_at_once() -> None:
    async def call() -> None:
        async with serving(Line(), process_request=answering((429, {"Retry-After": "60"}, "Busy."))) as url:
            with pytest.raises(OutageError, match=r"HTTP 429: Busy\.; it asks to wait for 60 s$"):
                await heard(mulaw(url), spoken(speech(60)))
            assert now() < 1

    run(call())


@pytest.mark.parametrize("wait", [10, 60])
def test_an_address_that_asks_to_wait_does_not_keep_the_others_waiting(wait: int) -> None:
    async def call() -> None:
        busy = [(429, {"Retry-After": f"{wait}"}, "")] * 9
        async with (
            serving(one := Line(), process_request=answering(*busy)) as first,
            serving(Line({800: cut})) as second,
        ):
            ink = mulaw(urls=[first, second])
            frames = await heard(ink, spoken(speech(5)))
            assert kinds(frames) == ["connected", "lost", "connected"]  # the second, and the second again
            assert frames[0][0] < 0.2
            assert frames[2][0] < frames[1][0] + 0.3
            assert not one.requests
            assert ink.stats.refusals == 1

    run(call())


def test_where_all_addresses_ask_to_wait_the_first_to_be_free_is_tried_then() -> None:
    async def call() -> None:
        later = answering((503, {"Retry-After": "9"}, ""))
        sooner = answering((503, {"Retry-After": "4"}, ""))
        async with serving(Line(), process_request=later) as first, serving(Line(), process_request=sooner) as second:
            frames = await heard(mulaw(urls=[first, second]), spoken(speech(6)))
            assert frames[0][0] == pytest.approx(4.1, abs=0.15)

    run(call())


def test_a_401_asks_once_for_another_key() -> None:
    async def call() -> None:
        keys = iter(["old", "new"])

        async def key() -> str:
            await asyncio.sleep(0.1)
            return next(keys)

        async with serving(line := Line(), process_request=answering(401)) as url:
            await heard(mulaw(url, api_key=key), spoken(speech(2)))
            assert line.requests[0].headers["X-API-Key"] == "new"
            assert not list(keys)

    run(call())


def test_a_second_401_is_final_but_not_one_after_a_connection() -> None:
    async def call() -> None:
        async def key() -> str:
            return "k"

        async with serving(Line(), process_request=answering(401, 401)) as url:
            with pytest.raises(RefusedError, match="401") as refused:
                await heard(mulaw(url, api_key=key), spoken(speech(2)))
            assert refused.value.status == 401
        answers = answering(401, None, 401)  # type: ignore[arg-type]
        async with serving(Line({800: cut}), process_request=answers) as url:
            ink = mulaw(url, api_key=key)
            assert kinds(await heard(ink, spoken(speech(3)))) == ["connected", "lost", "connected"]
            assert ink.stats.refusals == 2

    run(call())


@pytest.mark.parametrize("bad", ["", "two words", "line\n", "schlüssel"])
def test_a_key_that_no_header_may_have_ends_the_call(bad: str) -> None:
    async def key() -> str:
        return bad

    async def call() -> None:
        why = "must be printable ASCII" if bad else "is empty"
        with pytest.raises(ValueError, match=f"api_key {why}") as wrong:
            await heard(mulaw("ws://127.0.0.1:1", api_key=key), spoken(speech(2)))
        assert not bad or bad not in str(wrong.value)

    run(call())


def test_a_key_function_that_is_none() -> None:
    async def seven() -> Any:
        return 7

    async def call() -> None:
        for key, why in ((lambda: "k", "must be an async function, this one returned str"), (seven, "got int")):
            with pytest.raises(TypeError, match=why):
                await heard(mulaw("ws://127.0.0.1:1", api_key=key), spoken(speech(2)))

    run(call())


def test_f55_a_key_function_that_was_cancelled_elsewhere_is_an_error() -> None:
    """It awaits a token that all calls share, say, and whose task somebody has cancelled."""

    async def key() -> str:
        raise asyncio.CancelledError

    async def call() -> None:
        with pytest.raises(
            RuntimeError, match="api_key raised CancelledError, though nobody had cancelled it"
        ) as error:
            await heard(mulaw("ws://127.0.0.1:1", api_key=key), silent())
        assert isinstance(error.value.__cause__, asyncio.CancelledError)

    run(call())


def test_a_key_function_that_is_cancelled_with_its_call_is_none() -> None:
    async def key() -> str:
        await asyncio.sleep(100)
        return "late"

    async def call() -> None:
        with pytest.raises(OutageError, match="no connection within 2 s"):
            await heard(mulaw("ws://127.0.0.1:1", api_key=key, connect_timeout=2, give_up=5), silent())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(heard(mulaw("ws://127.0.0.1:1", api_key=key), silent()), 3)

    run(call())


def test_a_key_that_comes_too_late_is_not_called_a_slow_connection() -> None:
    async def key() -> str:
        raise TimeoutError("the token service is slow")

    async def call() -> None:
        with pytest.raises(OutageError, match="no key: the token service is slow"):
            await heard(mulaw("ws://127.0.0.1:1", api_key=key, give_up=1), silent())

    run(call())


def test_a_key_that_cannot_be_had_ends_the_call_but_not_in_a_network_fault() -> None:
    async def call() -> None:
        answers: list[Exception | str] = [TimeoutError("slow"), OSError("down"), "key", LookupError("no such key")]

        async def key() -> str:
            match answers.pop(0):
                case str(found):
                    return found
                case error:
                    raise error

        async with serving(line := Line({800: cut})) as url:
            with pytest.raises(LookupError, match="no such key"):
                await heard(mulaw(url, api_key=key), spoken(speech(3)))
            assert len(line.requests) == 1

    run(call())


@pytest.mark.parametrize(("status", "final"), [(400, True), (402, True), (429, False), (500, False), (None, False)])
def test_an_error_instead_of_connected(status: int | None, final: bool) -> None:
    async def refuses(socket: ServerConnection) -> None:
        error = {"type": "error", "status_code": status, "title": "Bad request", "message": "Model\x07 not found"}
        await socket.send("no frame")
        await socket.send(json.dumps(error))

    async def call() -> None:
        async with serving(refuses, line := Line()) as url:
            ink = mulaw(url)
            if final:
                with pytest.raises(RefusedError, match=rf"Bad request: Model. not found \({status}\)$") as refused:
                    await heard(ink, spoken(speech(3)))
                assert refused.value.status == status
            else:
                frames = await heard(ink, spoken(data := speech(3)))
                assert frames[0][1] == "no frame"
                assert kinds(frames[1:]) == ["error", "connected"]  # the frames are all there; nothing was lost
                assert data.endswith(line.sound)
                assert ink.stats.refusals == 1

    run(call())


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"error": "no such key"}', ': {"error": "no such key"}'),
        ("[1]", r": \[1\]"),
        ('{"title": "<No>", "message": 7}', ": <No>"),
        ("<html><h1>No</h1>", ""),
        ("", ""),
        ("no\x1b[2J", r": no.\[2J"),
        ("[" * 3000, r": \[{199}…"),
    ],
)
def test_whatever_a_refusal_says_is_shown_but_for_a_page(body: str, said: str) -> None:
    async def call() -> None:
        async with serving(Line(), process_request=answering((401, {}, body))) as url:
            with pytest.raises(RefusedError, match=f"^Ink 2 refused: HTTP 401{said}$"):
                await heard(mulaw(url), silent())

    run(call())


async def mute(socket: ServerConnection) -> None:
    """A server that answers pings and says nothing."""
    async for _ in socket:
        pass


def test_f13_a_server_that_accepts_and_says_nothing_is_left_and_given_up() -> None:
    async def call() -> None:
        frames: list[tuple[float, Frame]] = []
        async with serving(mute) as url:
            ink = mulaw(url)
            with pytest.raises(OutageError, match=r"lost \(the server said nothing for 10 s\)$"):
                await asyncio.wait_for(heard(ink, silent(), frames), 600)
            assert [round(at) for at, _ in frames] == [10, 20, 30]
            assert ink.stats.losses == 3
        async with serving(mute, line := Line()) as url:
            ink = mulaw(url, connect_timeout=2)
            assert kinds(await heard(ink, spoken(data := speech(5)))) == ["lost", "connected"]
            assert data.endswith(line.sound)

    run(call())


def test_a_server_that_has_spoken_may_be_silent_for_long() -> None:
    async def call() -> None:
        async with serving(Line()) as url:
            ink = mulaw(url)
            await heard(ink, spoken(speech(60), RATE))
            assert ink.stats.losses == 0

    run(call())


def test_an_error_instead_of_connected_after_which_the_server_does_not_close() -> None:
    async def refuses(socket: ServerConnection) -> None:
        await says({"type": "error", "status_code": 401, "title": "No such key"})(socket)
        await mute(socket)

    async def call() -> None:
        async with serving(refuses) as url:
            with pytest.raises(RefusedError, match=r"No such key \(401\)$"):
                await asyncio.wait_for(heard(mulaw(url), silent()), 600)
            assert now() == pytest.approx(10)

    run(call())


def test_an_error_that_says_nothing_is_a_refusal_too() -> None:
    async def call() -> None:
        async with serving(says({"type": "error"})) as url:
            with pytest.raises(OutageError, match="it does not say why"):
                await heard(mulaw(url, give_up=3), silent())

    run(call())


def test_an_error_that_the_server_goes_on_after_is_no_refusal() -> None:
    async def call() -> None:
        error = says({"type": "error", "status_code": 400, "title": "Bad"})
        for first in ({1: error, 800: cut}, {800: error, 1600: cut}):  # before it accepts, and after
            line = Line(first, accepts=800 in first and first[800] is error)
            if not line.accepts:
                line.does[2] = says({"type": "connected", "request_id": "r"})
            async with serving(line, Line()) as url:
                assert kinds(await heard(mulaw(url), spoken(speech(3)))).count("lost") == 1

    run(call())


@pytest.mark.parametrize("reason", ["Invalid turn thresholds", ""])
def test_a_setting_that_the_server_does_not_take_is_final(reason: str) -> None:
    async def call() -> None:
        async with serving(closes(1008, reason)) as url:
            with pytest.raises(RefusedError, match=reason or "no reason given") as refused:
                await heard(mulaw(url), spoken(speech(3)))
            assert refused.value.status == 1008

    run(call())


@pytest.mark.parametrize(
    ("url", "proxy", "why"),
    [
        ("ws://example.invalid/", "nonsense://me:secret@proxy", "the proxy's address is wrong"),
        ("ws://example.invalid/", "http://a..b:1", "label"),
        ("ws://example.invalid/", "socks5://127.0.0.1:1", "python-socks"),
    ],
)
def test_a_way_that_cannot_be_is_tried_once(url: str, proxy: str, why: str) -> None:
    async def call() -> None:
        with pytest.raises(RefusedError, match=why) as refused:
            await heard(mulaw(url, options={"proxy": proxy}), silent())
        assert refused.value.status is None
        assert "secret" not in str(refused.value)

    asyncio.run(call())


def test_what_is_on_this_machine_is_reached_without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)

    async def call() -> None:
        async with serving(line := Line()) as url:
            await heard(mulaw(url), spoken(data := speech(1)))
            assert line.sound == data
        with pytest.raises(OutageError, match=r"no connection to ws://example\.invalid:80/"):  # by the proxy
            await heard(mulaw("ws://example.invalid/", give_up=1), silent())

    run(call())


# -- outages


def test_a_server_that_is_not_there_is_given_up() -> None:
    async def call() -> None:
        ink = mulaw("ws://me:secret@127.0.0.1:1/ink?token=secret")
        with pytest.raises(
            OutageError, match=r"^no connection to Ink 2 for 30 s: no connection to ws://127.0.0.1:1/ink:"
        ) as lost:
            await heard(ink, spoken(speech(60)))
        assert now() == pytest.approx(30)
        assert "secret" not in str(lost.value)
        assert ink.stats.dropped == pytest.approx(28, abs=0.1)  # the last two seconds would still be sent

    run(call())


def test_the_systems_certificates_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def call() -> None:
        with pytest.raises(OutageError, match=r"no connection to wss://127\.0\.0\.1:\d+/"):
            async with serving(Line()) as url:  # it speaks no TLS
                await heard(mulaw(url.replace("ws:", "wss:"), give_up=20), silent())

    read, real = list[ssl.SSLContext](), ssl.create_default_context

    def read_one() -> ssl.SSLContext:
        read.append(real())
        return read[-1]

    monkeypatch.setattr(ssl, "create_default_context", read_one)
    run(call())
    assert len(read) <= 1


def test_a_server_that_never_answers_is_not_waited_for() -> None:
    async def call() -> None:
        async def never(socket: ServerConnection, request: Request) -> None:
            await asyncio.sleep(100)

        async with serving(Line(), process_request=never, open_timeout=20) as url:
            with pytest.raises(OutageError, match="no connection within 3 s"):
                await heard(mulaw(url, connect_timeout=3, give_up=8), spoken(speech(60)))
            assert now() == pytest.approx(8)

    run(call())


def test_f61_attempts_are_counted_anew_once_a_connection_has_lived() -> None:
    """Five losses an hour are five first ones; connections that live for a second use the outage up."""

    async def call(lives: float, **options: Any) -> Ink:
        lines = [Line({round(lives * RATE): cut}) for _ in range(40)]
        async with serving(*lines) as url:
            ink = mulaw(url, **options)
            await heard(ink, spoken(speech(lives * 20), RATE))
            return ink

    assert run(call(11, give_up=1)).stats.losses >= 19
    with pytest.raises(OutageError):
        run(call(2, give_up=1))
    assert run(call(2, give_up=None)).stats.connections > 5


def test_the_addresses_are_tried_in_turn() -> None:
    async def call() -> None:
        async with serving(one := Line({800: cut})) as first, serving(two := Line()) as second:
            ink = mulaw(urls=["ws://127.0.0.1:1", first, second])
            assert kinds(await heard(ink, spoken(speech(3)))) == ["connected", "lost", "connected"]
            assert (len(one.requests), len(two.requests)) == (1, 1)

    run(call())


# -- hang-up


def test_the_end_of_the_sound_asks_for_the_last_events() -> None:
    async def call() -> None:
        last = [{"type": "turn.start"}, {"type": "turn.end", "transcript": "Bye."}]
        async with serving(line := Line(at_close=last)) as url:
            frames = await heard(mulaw(url), spoken(data := speech(1)))
            assert kinds(frames) == ["connected", "turn.start", "turn.end"]
            assert line.sound == data

    run(call())


def test_f61_a_connection_that_drops_as_the_caller_hangs_up_ends_the_call() -> None:
    """At each moment around the hang-up, and whoever is first."""

    async def call(after: float) -> None:
        async def later(socket: ServerConnection) -> None:
            asyncio.get_running_loop().call_later(after, socket.transport.abort)

        line = Line({8000: later})
        async with serving(line, Line()) as url:
            async with asyncio.timeout(20):
                frames = await heard(mulaw(url), spoken(speech(2), 800))
            assert kinds(frames)[0] == "connected"
            assert now() < 4

    for hundredths in range(90, 110, 2):
        run(call(hundredths / 100))


def test_f61_a_hang_up_at_any_step_of_connecting_ends_the_call() -> None:
    """Also in the very step in which the connection is there."""

    async def call(steps: int) -> bool:
        async def hangs_up() -> bool:
            for _ in range(steps):
                await asyncio.sleep(0)
            sound.end()
            return ink.connected

        sound = Sound()
        async with serving(Line()) as url:
            ink = mulaw(url)
            hung_up = asyncio.create_task(hangs_up())
            await asyncio.wait_for(heard(ink, sound), 60)
            return await hung_up

    assert {run(call(steps)) for steps in range(40)} == {False, True}


def test_f61_a_hang_up_and_the_end_of_the_block_in_any_step_of_an_outage() -> None:
    async def call(steps: int) -> None:
        sound = Sound()
        async with mulaw("ws://127.0.0.1:1").connect(sound) as frames:
            reader = asyncio.ensure_future(anext(frames, None))
            await asyncio.sleep(1)
            sound.end()
            for _ in range(steps):
                await asyncio.sleep(0)
        assert await reader is None

    for steps in range(10):
        run(call(steps))


@pytest.mark.parametrize("step", ["hang up", "cancel", "leave"])
def test_f61_at_any_step_after_a_loss_nothing_is_left(step: str) -> None:
    async def call(steps: int) -> None:
        async def cuts(socket: ServerConnection) -> None:
            await cut(socket)
            lost.set()

        async def talk() -> None:
            async with ink.connect(sound) as frames:
                reader = asyncio.ensure_future(_all(frames))
                await (left.wait() if step == "leave" else asyncio.wait([reader]))
            await asyncio.wait([reader])

        left, lost, sound = asyncio.Event(), asyncio.Event(), Sound()
        async with serving(Line({1: cuts}), Line()) as url:
            ink = mulaw(url)
            sound.put(speech(0.1))
            talking = asyncio.create_task(talk())
            await lost.wait()
            for _ in range(steps):
                await asyncio.sleep(0)
            ends: dict[str, Callable[[], object]] = {"hang up": sound.end, "cancel": talking.cancel, "leave": left.set}
            ends[step]()
            await asyncio.wait([talking], timeout=60)
            assert talking.done()

    for steps in range(0, 40, 2):
        run(call(steps))


async def _all(frames: AsyncIterator[Frame]) -> list[Frame]:
    return [frame async for frame in frames]


@pytest.mark.parametrize("when", [0.0, 0.05, 0.5, 1.0, 3.0])
def test_f61_a_hang_up_in_an_outage_ends_the_call_at_once(when: float, caplog: pytest.LogCaptureFixture) -> None:
    async def call() -> None:
        async def down(socket: ServerConnection, request: Request) -> Response | None:
            if (first := not seen) or now() < 1:
                seen.append(first)
                return None
            return socket.respond(503, "")

        seen: list[bool] = []
        async with serving(Line({8000: cut}), process_request=down) as url:
            frames = await heard(mulaw(url), spoken(data := speech(1 + when)))
            assert kinds(frames) in (["connected"], ["connected", "lost"])
            assert now() <= len(data) / RATE + 0.01
        assert when < 0.5 or "s of sound were dropped" in caplog.text

    run(call())


def test_a_hang_up_before_the_first_connection_ends_the_call_at_once() -> None:
    async def call() -> None:
        async def ends() -> AsyncIterator[bytes]:
            for _ in ():
                yield b""

        async with serving(line := Line()) as url:
            assert await heard(mulaw(url), ends()) == []
            assert line.commands == []

    run(call())


def test_a_hang_up_while_nobody_reads_frames_is_not_forgotten() -> None:
    async def call() -> None:
        async with serving(Line({800: cut})) as url, mulaw(url).connect(spoken(speech(1))) as frames:
            assert isinstance(await anext(frames), str)
            assert isinstance(await anext(frames), Disconnected)
            await asyncio.sleep(5)
            with pytest.raises(StopAsyncIteration):
                await anext(frames)

    run(call())


def test_a_loss_that_nobody_has_read_does_not_keep_the_hang_up() -> None:
    async def call() -> None:
        async with serving(Line({800: cut})) as url, mulaw(url).connect(spoken(speech(1))) as frames:
            assert isinstance(await anext(frames), str)
            await asyncio.sleep(5)
            with pytest.raises(StopAsyncIteration):
                await anext(frames)

    run(call())


def test_a_server_that_does_not_close_is_left(caplog: pytest.LogCaptureFixture) -> None:
    async def stays(socket: ServerConnection) -> None:
        async for _ in socket:
            pass

    async def call() -> None:
        async with serving(stays) as url:
            await heard(mulaw(url, close_timeout=3), spoken(speech(1)))
            assert now() == pytest.approx(4)

    run(call())
    assert "the server did not close within 3 s" in caplog.text


def test_a_network_that_is_stuck_does_not_hold_the_hang_up() -> None:
    async def deaf(socket: ServerConnection) -> None:
        socket.transport.pause_reading()

    async def call() -> None:
        async with serving(Line({8000: deaf}), max_size=None) as url:
            ink = mulaw(url, sample_rate=RATE * 400, options={"ping_timeout": 60})
            await heard(ink, spoken(speech(5, rate=RATE * 400), 320_000, RATE * 400))
            assert now() == pytest.approx(15)
            assert ink.stats.dropped > 0
            assert ink.stats.sent + ink.stats.dropped == pytest.approx(5)

    run(call())
