"""Ink's client and the emulator over TLS, with a certificate that is made here."""

import ssl
import subprocess
from pathlib import Path

import attrs
import pytest

from inkturns.errors import RefusedError
from inkturns.testing.emulator import InkEmulator, Script, say, trouble
from tests.ink_calls import heard, kinds, mulaw, now, run, silent, speech, spoken


@attrs.frozen
class Certificate:
    """A certificate of its own authority: who trusts it has a `client` context."""

    server: ssl.SSLContext
    client: ssl.SSLContext


def certificate(folder: Path, name: str, *more: str) -> Certificate:
    key, made = folder / "key.pem", folder / "made.pem"
    what = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=test", *more]
    files = ["-keyout", str(key), "-out", str(made)]
    subprocess.run(
        ["openssl", "req", "-x509", *what, *files, "-addext", f"subjectAltName={name}"], check=True, capture_output=True
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(made, key)
    return Certificate(server, ssl.create_default_context(cafile=made))


@pytest.fixture(scope="module")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return certificate(tmp_path_factory.mktemp("trusted"), "IP:127.0.0.1")


def test_a_call_over_tls_comes_back_after_a_loss(trusted: Certificate) -> None:
    scripts = [Script(say("I would like", trouble("drop", on="turn.end"))), Script(say("to book a table."))]
    data = speech(sum(script.seconds for script in scripts))

    async def call() -> None:
        received: list[bytes] = []
        async with InkEmulator(
            scripts, ssl=trusted.server, on_audio=lambda _, audio: received.append(audio)
        ) as emulator:
            assert emulator.url.startswith("wss://127.0.0.1:")
            ink = mulaw(emulator.url, options={"ssl": trusted.client})
            frames = await heard(ink, spoken(data))
            lost = kinds(frames).index("lost")
            assert kinds(frames).count("lost") == 1
            assert frames[lost][0] - frames[lost - 1][0] < 0.5  # the emulator does not wait for a client that stays
            assert [str(frame) for _, frame in frames if "turn.end" in str(frame)][1:] == [
                out for _, out in emulator.connections[1].sent if "turn.end" in str(out)
            ]
            assert ink.stats.sent + ink.stats.dropped == pytest.approx(len(data) / 8000)
            assert data.startswith(received[0])
            assert data.endswith(received[-1])

    run(call())


@pytest.mark.parametrize(
    ("name", "options", "why"),
    [
        ("IP:127.0.0.1", {}, "self-signed certificate"),  # the system's authorities do not know it
        ("IP:127.0.0.2", None, "IP address mismatch"),
    ],
)
def test_a_certificate_that_is_not_trusted_ends_the_call_at_once(
    name: str, options: dict[str, object] | None, why: str, tmp_path: Path
) -> None:
    made = certificate(tmp_path, name)

    async def call() -> None:
        async with InkEmulator(Script(say("Hi.")), ssl=made.server) as emulator:
            ink = mulaw(emulator.url, options={"ssl": made.client} if options is None else options)
            with pytest.raises(
                RefusedError,
                match=rf"^no connection to wss://127\.0\.0\.1:\d+/.*: its certificate is not trusted \({why}",
            ) as refused:
                await heard(ink, silent())
            assert 'options={"ssl": context}' in str(refused.value)
            assert refused.value.status is None
            assert now() < 1
            assert emulator.connections == []

    run(call())
