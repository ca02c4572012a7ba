"""`inkturns serve`: what it says, what it serves, how it ends."""

import gc
import inspect
import json
import os
import re
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from threading import Thread, main_thread
from typing import Any
from urllib.parse import quote

import pytest
from typer.testing import CliRunner
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from inkturns import Turns, close_command, connect_query
from inkturns.cli.main import app
from inkturns.cli.serve import serve
from inkturns.testing.emulator import InkEmulator, Script, say, trouble
from inkturns.testing.emulator.connection import Connection

ARGUMENTS = ["serve", "--port", "0", "--speed", "1000"]
QUERY = connect_query(encoding="pcm_mulaw", sample_rate=8000)


class Served:
    """The command, in this process, until a client in a thread has done what it wants and presses Ctrl-C."""

    def __init__(self, *arguments: str, client: Callable[[str], Any]) -> None:
        self.lines: list[str] = []
        self.got: Any = None
        read, write = os.pipe()

        def other() -> None:
            with os.fdopen(read, encoding="utf-8") as said:
                self.lines.append(said.readline())
                try:
                    self.got = client(self.lines[0].split()[-1])
                except Exception as error:
                    self.got = error
                finally:
                    signal.pthread_kill(main_thread().ident or 0, signal.SIGINT)  # it sleeps in its loop
                self.lines += said.readlines()

        thread = Thread(target=other)
        with os.fdopen(write, "w", encoding="utf-8") as out, redirect_stdout(out):
            thread.start()
            self.code = app([*ARGUMENTS, *arguments], standalone_mode=False)
        thread.join()


def talk(url: str) -> list[str]:
    turns, ends = Turns(), list[str]()
    turns.on_end(lambda turn: ends.append(turn.transcript))
    with connect(f"{url}?{QUERY}") as client:
        client.send(bytes(400_000))
        client.send(close_command())
        for frame in client:
            turns.feed(frame)
    return ends


def test_it_says_where_it_is_what_a_script_says_and_what_happens(tmp_path: Path) -> None:
    script = tmp_path / "call.jsonl"
    script.write_text("\n".join(Script(say("Book a table.")).to_lines()), encoding="utf-8")
    served = Served(str(script), client=talk)
    assert served.got == ["Book a table."]
    assert served.code == 0
    assert re.fullmatch(r"listening on ws://127\.0\.0\.1:\d+/stt/turns/websocket\n", served.lines[0])
    assert "websocket_base_url" in served.lines[1]
    assert re.fullmatch(r" +\d+\.\d\d  connection 0: open, \S+\n", served.lines[2])
    assert "connection 0: closed after 50.00 s of audio\n" in served.lines[-1]


@pytest.mark.parametrize("arguments", [("--turns", "2", "--seed", "5"), ("--turns", "2", "--storm", "--seed", "7")])
def test_without_a_script_callers_come_by_chance(arguments: tuple[str, ...]) -> None:
    assert Served(*arguments, client=talk).got


@pytest.mark.usefixtures("only_new_garbage")
def test_it_forgets_the_calls_that_are_over() -> None:
    def sessions() -> int:
        gc.collect()
        return sum(type(one) is Connection for one in gc.get_objects())  # not isinstance: some objects lie

    def client(url: str) -> int:
        before = sessions()
        for _ in range(5):
            talk(url)
        return sessions() - before

    assert Served("--turns", "1", client=client).got <= 2  # the last may be going yet


@pytest.mark.parametrize(
    ("lines", "what"),
    [
        (b'{"pause": 1}\n{"puase": 1}\n', "call.jsonl:2: a part must have exactly one of"),
        (b'{"pause": 1}\n{"trouble": "rain"}\n', "call.jsonl:2: trouble must be one of refuse"),
        (b"\xff\n", "call.jsonl:1: "),
        (None, "call.jsonl: No such file"),
    ],
)
def test_a_bad_script_is_one_sentence(tmp_path: Path, lines: bytes | None, what: str) -> None:
    script = tmp_path / "call.jsonl"
    if lines is not None:
        script.write_bytes(lines)
    result = CliRunner().invoke(app, ["serve", str(script)])
    assert result.exit_code == 2
    assert what in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_port_that_is_taken_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = CliRunner().invoke(app, ["serve", "--port", str(port)])
    assert result.exit_code == 2
    assert result.stderr == f"--port {port} is in use; name another one, or 0 for any that is free\n"


def test_an_address_that_is_not_here_is_one_sentence() -> None:
    result = CliRunner().invoke(app, ["serve", "--host", "256.0.0.1", "--port", "0"])
    assert result.exit_code == 2
    assert "inkturns serve: " in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_speed_of_nothing_is_one_sentence() -> None:
    result = CliRunner().invoke(app, ["serve", "--speed", "0"])
    assert result.exit_code == 2
    assert "speed must be above 0, got 0" in result.stderr


def test_a_script_may_come_from_standard_input() -> None:
    result = CliRunner().invoke(app, ["serve", "-"], input='{"pause": "x"}\n')
    assert result.exit_code == 2
    assert "-:1: " in result.stderr


def test_without_the_extra_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("inkturns.testing.emulator")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "websockets.asyncio.server", None)
    result = CliRunner().invoke(app, ["serve"])
    assert result.exit_code == 2
    assert 'pip install "inkturns[testing]"' in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_refused_upgrade_is_said(tmp_path: Path) -> None:
    script = tmp_path / "call.jsonl"
    script.write_text("\n".join(Script(trouble("refuse", status=429)).to_lines()), encoding="utf-8")
    served = Served(str(script), client=talk)
    assert isinstance(served.got, InvalidStatus)
    assert "connection 0: refused with HTTP 429" in served.lines[-1]


def test_f57_what_a_client_sends_is_printed_without_control_characters() -> None:
    hostile = "\x1b]0;pwned\x07\x1b[2J\r\n   9.99  connection 0: forged\x9b31m\u202eevil"

    def client(url: str) -> None:
        with connect(f"{url}?{QUERY}&keyterm={quote('+' + hostile)}") as socket:
            socket.recv()
            socket.send(hostile)
            socket.recv()

    served = Served("--turns", "1", client=client)
    assert not isinstance(served.got, Exception)
    assert sum("pwned" in line for line in served.lines) == 2
    assert not any(line.startswith("   9.99") for line in served.lines)
    assert all(line[:-1].isprintable() for line in served.lines)


def test_f57_limits_are_options() -> None:
    def client(url: str) -> list[int]:
        with connect(f"{url}?{QUERY}", origin=Origin("https://app.example")) as socket:
            socket.recv()
            with pytest.raises(InvalidStatus) as many:
                connect(f"{url}?{QUERY}")
            socket.send(bytes(101))
            with pytest.raises(ConnectionClosed):
                socket.recv()
        with pytest.raises(InvalidStatus) as foreign:
            connect(f"{url}?{QUERY}", origin=Origin("https://evil.example"))
        with connect(f"{url}?{QUERY}") as idle:
            assert [json.loads(frame)["type"] for frame in idle] == ["connected"]
        return [many.value.response.status_code, foreign.value.response.status_code]

    options = ["--origin", "https://app.example", "--max-frame", "100", "--max-connections", "1"]
    served = Served(*options, "--idle-timeout", "0.3", client=client)
    assert served.got == [429, 403]
    said = "".join(served.lines)
    for why in (
        "a frame had more than 100 bytes",
        "the limit of open connections, 1, is reached",
        "from https://evil.example",
        "for 0.3 s",
    ):
        assert why in said


def test_f57_the_limits_of_the_command_are_the_emulators() -> None:
    command, emulator = (inspect.signature(one).parameters for one in (serve, InkEmulator.__init__))
    for name in ("max_frame", "idle_timeout", "max_connections"):
        assert command[name].default == emulator[name].default
