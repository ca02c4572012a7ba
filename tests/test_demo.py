"""`inkturns demo`: a whole call on this machine, what is seen of it, and its recording."""

import asyncio
import html
import io
import json
import os
import re
import signal
import subprocess
import sys
import wave
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cartesia import AsyncCartesia
from rich.console import Console
from typer.testing import CliRunner, Result
from websockets.exceptions import ConnectionClosedOK

from inkturns.actions import Abandon, Action, Cancel, EndReason, Interrupt, Respond, Think
from inkturns.agent import Outcome
from inkturns.cli.listen import listen
from inkturns.cli.main import app
from inkturns.demo.call import BOOK, CHUNK, RATE, REPLIES, SEED, SETTINGS, SimulatedCall, conversation, microphone
from inkturns.demo.show import demo, picture
from inkturns.demo.view import View
from inkturns.events import UsePolicy
from inkturns.policy import Policy
from inkturns.recording import Recorder
from inkturns.replay import replay
from inkturns.testing import virtual_time
from inkturns.testing.emulator import InkEmulator, Script, hesitation, noise, pause, say, trouble
from inkturns.testing.oracle import Oracle
from inkturns.turns import Turns
from inkturns.wire import close_command

ROOT = Path(__file__).parent.parent
SHORT = Script(say("I'd like", hesitation(1.2), "a table."), seed=2)


def run(*args: object, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args], env={"COLUMNS": "120"}, input=stdin)


def written(path: Path, script: Script) -> Path:
    path.write_text("\n".join(script.to_lines()))
    return path


def simulated(
    script: Script, seed: int = 0, recorder: Recorder | None = None, policy: Policy | None = None
) -> SimulatedCall:
    """The demo's call without a socket, in virtual time."""
    call = SimulatedCall(View(Console(file=io.StringIO(), width=200), "a call"), seed, recorder=recorder)

    async def go() -> None:
        call.begin()
        await call.agent.run(items())

    async def items() -> AsyncIterator[object]:
        if policy is not None:
            yield UsePolicy(policy)
        async for frame in script.play(SETTINGS):
            yield frame

    virtual_time.run(go)
    return call


def rows(call: SimulatedCall, who: str) -> list[str]:
    return [row.said for row in call.view.rows if row.who == who]


# -- the command, through the socket and the SDK


def test_it_runs_headless_and_its_recording_replays_to_the_same_actions(tmp_path: Path) -> None:
    record = tmp_path / "demo.jsonl"
    done = run("demo", "--speed", 10, "--record", record)
    assert done.exit_code == 0
    for said in ("is cancelled", "and is held", "is the reply", "agent   begins to speak", "s earlier than without"):
        assert said in done.stdout
    assert re.search(r"simulated  the user, the model, the voice and the tool", done.stdout)
    assert not re.search(r"\x1b|╭", done.stdout)
    replayed = list(replay(record.read_bytes().splitlines()))
    assert [one.differs for one in replayed] == [None] * len(replayed)
    actions = [action for one in replayed for action in one.actions]
    assert {Respond, Cancel, Interrupt, Abandon, Think} <= {type(action) for action in actions}
    header = json.loads(record.read_text().splitlines()[0])
    assert header["labels"] == {"simulated": "user, model, voice, tool", "speed": "10"}
    assert header["settings"] == SETTINGS.given()
    assert run("replay", record).exit_code == 0
    assert run("check", record).exit_code == 0


def test_on_a_terminal_it_is_drawn_as_it_goes_and_stays(tmp_path: Path) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, height=30)
    assert demo(console, speed=5, script=SHORT) == 0
    drawn = out.getvalue()
    assert drawn.count("now") > 5
    assert "speaking" in drawn
    assert "eager ended" in drawn
    assert re.search(r"[▃▄▅▆▇]{3}", drawn)
    last = drawn[drawn.rindex("a simulated call") :]
    assert "You said" not in last
    assert "I have a table for two" in last
    assert "simulated" in last


def test_plain_it_is_lines_on_a_terminal_too() -> None:
    out = io.StringIO()
    assert demo(Console(file=out, force_terminal=True, width=60), plain=True, speed=20, script=SHORT, seed=1) == 0
    assert "╭" not in out.getvalue()
    assert "hears: I'd like" in out.getvalue()
    assert "seed 1, 20 times as fast" in out.getvalue()


class Terminal(io.TextIOWrapper):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "environment", "live"),
    [
        (Terminal, {"TERM": "xterm-256color"}, True),
        (Terminal, {"TERM": "dumb"}, False),
        (io.TextIOWrapper, {"TERM": "xterm-256color", "FORCE_COLOR": "1"}, False),
    ],
)
def test_it_is_drawn_where_a_cursor_can_move(
    stream: type[io.TextIOWrapper], environment: dict[str, str], live: bool, tmp_path: Path, monkeypatch: Any
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdout", stream(screen := io.BytesIO(), "utf-8"))
    path = written(tmp_path / "words.jsonl", SHORT)
    assert app(["demo", "--speed", "20", "--script", str(path)], standalone_mode=False) == 0
    sys.stdout.flush()
    assert (b"\x1b[?25l" in screen.getvalue()) is live
    assert (b"hears: " in screen.getvalue()) is not live


def test_a_script_is_read_from_a_file_or_from_standard_input(tmp_path: Path) -> None:
    path = written(tmp_path / "words.jsonl", Script(say("Are there any pears left at all?"), seed=3))
    for name, stdin in ((path, None), ("-", path.read_text())):
        done = run("demo", "--plain", "--speed", 20, "--script", name, stdin=stdin)
        assert done.exit_code == 0
        assert "You said: Are there any pears left at all?" in done.stdout


@pytest.mark.parametrize(
    ("line", "why"), [('{"say": 3}', "words.jsonl: line 1: "), (None, "words.jsonl: No such file or directory")]
)
def test_a_script_that_is_none_is_a_sentence(line: str | None, why: str, tmp_path: Path) -> None:
    path = tmp_path / "words.jsonl"
    if line is not None:
        path.write_text(f"{line}\n")
    done = run("demo", "--script", path)
    assert done.exit_code == 2
    assert why in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "what", [trouble("drop", on="turn.update"), trouble("garbage", on="turn.update", kind="text")], ids=str
)
def test_a_lost_connection_ends_the_call_with_the_words_in_hand(what: Any) -> None:
    out = io.StringIO()
    script = Script(say("One two three four five six seven"), what, say("eight nine ten eleven twelve"), seed=4)
    assert demo(Console(file=out, width=200), speed=20, script=script) == 0
    assert "the connection is lost" in out.getvalue()
    assert "nothing to answer (lost)" in out.getvalue()


def test_a_connection_lost_during_a_reply_lets_it_finish() -> None:
    out = io.StringIO()
    script = Script(say("Are there any pears left?", pause(2.2), trouble("drop", code=1011)), seed=5)
    assert demo(Console(file=out, width=200), speed=20, script=script) == 0
    assert "the connection is lost" in out.getvalue()
    assert "You said: Are there any pears left?\n" in out.getvalue()


def test_a_refused_connection_is_a_sentence() -> None:
    out = io.StringIO()
    script = Script(trouble("refuse", status=429), say("Hello"))
    assert demo(Console(file=out, width=200), speed=20, script=script) == 1
    assert out.getvalue().splitlines()[-1].startswith("the emulator refused the connection: ")
    assert "429" in out.getvalue()


@pytest.mark.parametrize(
    ("variable", "proxy"),
    [("https_proxy", "http://127.0.0.1:1"), ("https_proxy", "nonsense"), ("all_proxy", "socks5://127.0.0.1:1")],
)
def test_it_needs_no_proxy(variable: str, proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, proxy)
    assert demo(Console(file=io.StringIO()), speed=100, script=SHORT) == 0


def test_a_reader_that_goes_away_ends_it_without_a_word(tmp_path: Path) -> None:
    record = tmp_path / "demo.jsonl"
    args = [sys.executable, "-c", "from inkturns.cli.main import main; main()", "demo", "--record", str(record)]
    with subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout
        assert child.stderr
        child.stdout.readline()
        child.stdout.close()
        assert child.stderr.read() == b""
        assert child.wait() in (0, 1)
    assert "table for two" not in record.read_text()


def test_a_reader_that_was_never_there_ends_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    record = tmp_path / "demo.jsonl"
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        assert app(["demo", "--record", str(record)], standalone_mode=False) == 0
    assert "table for two" not in record.read_text()
    assert caplog.records == []


def test_ctrl_c_ends_it_without_a_word(tmp_path: Path) -> None:
    record = tmp_path / "demo.jsonl"
    args = [sys.executable, "-c", "from inkturns.cli.main import main; main()", "demo", "--record", str(record)]
    child = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout
    while "turn 1 has begun" not in child.stdout.readline():
        assert child.poll() is None
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=20)
    assert (child.returncode, err) == (130, "")
    *_, last = replay(record.read_bytes().splitlines())
    assert isinstance(last.actions[-1], Abandon)


@pytest.mark.parametrize("args", [("demo",), ("diagram", "demo")])
def test_without_the_sdk_it_says_what_to_install(args: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("inkturns.demo.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cartesia", None)
    done = run(*args)
    assert done.exit_code == 2
    assert 'needs cartesia: pip install "inkturns[cartesia,testing]"' in done.stderr


# -- the call, in virtual time


@pytest.mark.parametrize("seed", range(12))
def test_whatever_the_seed_the_laws_hold_and_no_wrong_guess_is_heard(seed: int, tmp_path: Path) -> None:
    record = tmp_path / "demo.jsonl"
    call = simulated(conversation(seed), seed, Recorder(record))
    oracle = Oracle()
    for one in replay(record.read_bytes().splitlines()):
        assert one.differs is None
        oracle.step(one.event, one.actions)
    assert rows(call, "odd") == []
    assert len(call.saved) <= sum(one.outcome is Outcome.ADOPTED for one in call.settled)
    assert "Gladly!" not in "".join(said for said in rows(call, "agent"))  # what a cut sentence would have got
    assert all(0 <= seconds < 3 for seconds in call.saved)
    assert any(call.saved)


def test_the_default_call_shows_all_that_it_is_to_show() -> None:
    call = simulated(conversation(), SEED)
    guesses, user, agent, tool = (rows(call, who) for who in ("guess", "user", "agent", "tool"))
    assert any(re.search(r"wrong \(resumed\).*with \d+ words that nobody heard", said) for said in guesses)
    assert any("is the reply" in said for said in guesses)
    assert '"Mhm.": nothing to answer (backchannel)' in user
    assert "a sound without words: nothing to answer (empty)" in user
    assert any("speaks into reply" in said for said in user)
    assert any(said.endswith("—") for said in agent)
    assert tool[:2] == ["book_table waits: this may be a wrong guess", "book_table runs: the turn is over"]
    assert max(call.saved) > 0.1
    sums = dict(call.summary())
    assert "than without speculation" in sums["replies"]
    assert "wasted" in sums["thoughts"]


def test_the_sum_is_right_about_the_time_that_was_saved() -> None:
    """Against the same call where nothing is thought ahead: its first word comes that much later."""
    script = Script(say("Are there any pears left?"), seed=5)
    ahead, later = simulated(script), simulated(script, policy=Policy(speculate=False))
    first, second = (next(row.at for row in call.view.rows if "begins to" in row.said) for call in (ahead, later))
    assert later.saved == [0.0]
    assert second - first == pytest.approx(ahead.saved[0], abs=0.01)
    assert ahead.saved[0] > 0.05
    assert dict(later.summary())["thoughts"].endswith(
        "0 guessed right, 0 wasted (0 words that nobody heard), 1 begun at the end"
    )


def test_what_is_out_of_contract_is_seen() -> None:
    call = simulated(Script(trouble("lose", on="turn.start"), say("Are there any pears left?"), seed=5))
    assert rows(call, "odd")[0].startswith("missed_start: ")
    assert len(call.saved) == 1


def test_a_call_without_a_reply_has_a_sum() -> None:
    call = simulated(Script(noise(0.8), seed=1))
    assert dict(call.summary())["thoughts"].startswith("0: ")
    assert dict(call.summary())["replies"] == "none"


def test_the_tools_wish_is_no_word() -> None:
    assert all(BOOK not in said for seed in range(3) for said in rows(simulated(conversation(seed), seed), "agent"))
    assert any(BOOK in reply for reply in REPLIES.values())


# -- the sound


def test_the_sound_is_speech_where_there_are_words_and_silence_elsewhere() -> None:
    chunks = list(microphone(SHORT))
    assert {len(chunk) for chunk, _ in chunks} == {int(RATE * CHUNK) * 2}
    assert len(chunks) * CHUNK == pytest.approx(SHORT.seconds, abs=2 * CHUNK)
    assert all(any(chunk) == (level > 0) for chunk, level in chunks)
    loud = [level > 0 for _, level in chunks]
    assert 0.1 < sum(loud) / len(loud) < 0.6
    assert not loud[0]
    assert not loud[-1]


def test_the_sound_is_made_as_it_is_sent() -> None:
    chunks = microphone(Script(pause(60)))
    first, _ = next(chunks)
    assert all(chunk is first for chunk, _ in chunks)


# -- the picture


def words_of(svg: str) -> list[str]:
    """What is written in it."""
    return [html.unescape(text).replace("\N{NO-BREAK SPACE}", " ") for text in re.findall(r">([^<>\n]+)</text>", svg)]


def test_the_picture_is_not_stale() -> None:
    drawn = (ROOT / "diagrams/demo.svg").read_text("utf-8")
    assert words_of(drawn) == words_of(picture()), "inkturns diagram demo > diagrams/demo.svg"
    assert picture() == picture() == run("diagram", "demo").stdout
    assert "http" not in drawn.replace("http://www.w3.org/", "").replace("https://www.textualize.io", "")


# -- what others may rely on


def test_the_sdks_objects_and_its_raw_frames_give_the_same_actions() -> None:
    async def call() -> tuple[list[Action], list[Action]]:
        objects, raw = Turns(), Turns()
        async with (
            InkEmulator(conversation(), speed=float("inf")) as emulator,
            AsyncCartesia(api_key="none", websocket_base_url=emulator.base_url) as client,
            client.stt.auto_finalize.websocket(model="ink-2", encoding="pcm_s16le", sample_rate=RATE) as ink,
        ):
            for chunk, _ in microphone(conversation()):
                await ink.send_raw(chunk)
            await ink.send_raw(close_command())
            from_objects: list[Action] = []
            from_raw: list[Action] = []
            with suppress(ConnectionClosedOK):
                while frame := await ink.recv_bytes():
                    from_raw += raw.feed(frame)
                    from_objects += objects.feed(ink.parse_event(frame))
        return from_objects, from_raw

    objects, raw = asyncio.run(call())
    assert objects == raw
    assert {Think, Respond, Cancel} <= {type(action) for action in raw}


def test_listen_hears_the_emulator(tmp_path: Path) -> None:
    """The sound of a script as a file, sent to an emulator of it."""
    with wave.open(str(path := tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes(b"".join(chunk for chunk, _ in microphone(SHORT)))
    out, record = io.StringIO(), tmp_path / "a.jsonl"

    async def call() -> int:
        async with InkEmulator(SHORT, speed=20) as emulator:
            to = Console(file=out, width=120)
            return await asyncio.to_thread(
                listen, str(path), emulator.url, str(record), speed=20, out=to, err=Console(file=io.StringIO())
            )

    assert asyncio.run(call()) == 0
    assert "I'd like a table." in out.getvalue()
    replayed = list(replay(record.read_bytes().splitlines()))
    assert [one.differs for one in replayed] == [None] * len(replayed)
    assert [action.turn.end for one in replayed for action in one.actions if isinstance(action, Respond)] == [
        EndReason.SERVER
    ]
