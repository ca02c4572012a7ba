"""The command: what a person sees, what a program gets, and what is said of files that are not as they should be."""

import io
import json
import re
import runpy
import signal
import subprocess
import sys
import wave
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import attrs
import pytest
from typer.testing import CliRunner, Result

from inkturns import cli, diagrams
from inkturns.cli.main import app, main
from inkturns.cli.policy import read_policy
from inkturns.events import ContextChanged, Disconnected, EndNow, ReplyDone, ReplyStarted, ThoughtFailed, UsePolicy
from inkturns.policy import Policy, min_words
from inkturns.printable import printable
from inkturns.recording import Recorder
from inkturns.testing.oracle import LAWS
from inkturns.turns import Turns

ROOT = Path(__file__).parent.parent
COMPLETE, CUT = (ROOT / "tests" / "sessions" / f"ink2-{name}.jsonl" for name in ("complete-turn", "turn-cut-by-error"))
WORDS = "So the derivative of x squared is 2 x. Watch what happens when we apply the power rule to x"
RUN = [sys.executable, "-c", "from inkturns.cli.main import main; main()"]


def run(*args: object, width: int = 120, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args], env={"COLUMNS": str(width)}, input=stdin)


def frame(kind: str, **fields: Any) -> str:
    return json.dumps({"type": kind, **fields})


def written(path: Path, items: Iterable[object], policy: Policy | None = None, **about: Any) -> Path:
    """A recording of these items, a quarter of a second apart; None: no time."""
    turns = Turns(policy or Policy(), recorder=Recorder(path, **about))
    for n, item in enumerate(items):
        turns.feed(item, 100 + n / 4)
    return path


def call() -> list[object]:
    return [
        frame("connected", request_id="a"),
        frame("turn.start"),
        frame("turn.update", transcript="one"),
        frame("turn.eager_end", transcript="one"),
        frame("turn.resume"),
        frame("turn.eager_end", transcript="one two"),
        frame("turn.end", transcript="One, two."),
        ReplyStarted(1),
        frame("turn.start"),
        frame("turn.update", transcript="stop that noise"),
        frame("turn.update", transcript="halt that noise"),
        EndNow(),
        UsePolicy(Policy(interrupts=min_words(2))),
        frame("turn.sigh", how="deep"),
        ThoughtFailed(2, 1),
        ReplyDone(),
        frame("turn.start"),
        frame("turn.end"),
        Disconnected("hung up"),
    ]


# -- replay


def test_the_real_turn_is_shown_as_it_went() -> None:
    done = run("replay", COMPLETE)
    assert done.exit_code == 0
    rows = done.stdout.splitlines()
    assert re.fullmatch(r" +4  update +speaking +So the", rows[4])
    assert re.fullmatch(
        r" +23  eager end +eager ended +… apply the power rule to x circumflex 5\. +think 1, ahead", rows[23]
    )
    assert re.search(r" 24  end +idle +So the derivative .* respond 1, adopted$", rows[24])
    shown = " ".join(row[40:84].strip() for row in rows[24:27])
    assert shown == f"{WORDS} circumflex 5."
    assert "turns  1: 1 answered (server)" in done.stdout
    assert "thoughts  1: 1 adopted" in done.stdout
    assert max(map(len, rows)) <= 120
    assert not done.stderr


def test_the_turn_that_was_cut_is_still_open_with_its_words() -> None:
    done = run("replay", COMPLETE, CUT)
    assert done.exit_code == 0
    assert "turns  2: 1 answered (server), 1 still open" in done.stdout
    assert f'turn 1 is still open: "{WORDS}"' in done.stdout
    shown = " ".join(row[40:84].strip() for row in done.stdout.splitlines())
    assert 'Invalid client message: Unrecognized message type "finalize". Expected one of: "done", "close",' in shown
    assert "report server error" in done.stdout


def test_a_call_with_times_is_shown_and_summed_up(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", call(), call="7f3a", started="noon", labels={"agent": "x\x1b[31m"})
    done = run("replay", path)
    assert done.exit_code == 0
    out = done.stdout
    assert out.splitlines()[0].endswith("a.jsonl  call 7f3a  started noon  agent x�[31m")
    for shown in (
        r" 0\.000  connected",
        r"1\.000  resume +speaking +resume, cancel 1: resumed",
        r"1\.500  end +idle +One, two\. +revised, respond 2, adopted 0\.250",
        r"reply started 1 ",
        r"listen, turn 2, interrupt reply 1",
        r"halt that noise +revised",
        r"end now +idle +halt that noise +think 1, respond 1, forced",
        r"use policy +idle +interrupts=\{'min_words': 2",
        r"turn\.sigh .*report unknown type: an event",
        r"failed 2\.1",
        r"reply done +idle",
        r"end +idle +abandon: empty",
        r"disconnected +idle +hung up",
        r"turns  3: 1 answered \(server\), 1 answered \(forced\), 1 abandoned \(empty\)",
        r"thoughts  3: 1 adopted, 1 begun at the end, 1 cancelled \(resumed\)",
        r"head start  min 0\.250 s, median 0\.250 s, max 0\.250 s",
        r"reports  1: 1 unknown type",
    ):
        assert re.search(shown, out), shown


def test_json_is_an_object_a_line_and_the_summary_last(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", [*call(), "nonsense"])
    done = run("replay", path, "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == len(call()) + 2
    assert lines[6]["actions"][-1]["type"] == "Respond"
    assert (lines[6]["line"], lines[6]["t"], lines[6]["phase"]) == (8, 101.5, "idle")
    assert lines[12]["event"]["policy"]["interrupts"]["min_words"] == 2
    assert lines[-2]["event"] is None
    assert lines[-1]["summary"]["answered"] == {"server": 1, "forced": 1}
    assert lines[-1]["summary"]["head_start"] == {"min": 0.25, "median": 0.25, "max": 0.25}
    assert done.exit_code == 2


def test_a_different_policy_shows_what_it_would_change(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", call())
    done = run("replay", path, "--policy", "speculate=false", "--policy", "max-thoughts=1")
    assert done.exit_code == 0
    assert "differs (line 5)" in done.stdout
    assert "differs from the recording: " in done.stdout
    assert "2 begun at the end" in done.stdout
    assert done.stderr.startswith("the recorded inputs are fed as they were")
    assert done.stderr.endswith("inkturns what-if tells\n")
    assert run("replay", path).stderr == ""


def test_actions_that_are_not_the_recorded_ones_are_pointed_out(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", call() * 9)
    path.write_text(path.read_text().replace('"delta":"one"', '"delta":"two"'))
    done = run("replay", path)
    assert done.exit_code == 1
    assert re.search(r"one +differs \(line 4\)", done.stdout)
    assert "differs from the recording: 9 inputs" in done.stdout
    assert '"recorded":[' in run("replay", "--json", path).stdout
    path.write_text(path.read_text().replace('"transcript":"stop', '"transcript":"stopp'))
    assert "a.jsonl:" in run("replay", path).stdout.splitlines()[-1]
    assert run("replay", path).stdout.splitlines()[-1].endswith(" …")


def test_a_masked_call_is_shown_masked(tmp_path: Path) -> None:
    done = run("replay", written(tmp_path / "a.jsonl", call(), redact=True))
    assert done.exit_code == 0
    assert "xxx, xxx." in done.stdout
    assert "one" not in done.stdout.lower().replace("done", "")


def test_standard_input_and_narrow_screens() -> None:
    done = run("replay", "-", stdin=COMPLETE.read_bytes(), width=20)
    assert done.exit_code == 0
    assert done.stdout.startswith("-\n")
    assert "… circumflex 5.    think 1," in done.stdout


def test_text_of_any_script_fits(tmp_path: Path) -> None:
    path = tmp_path / "wide.jsonl"
    path.write_text("\n".join(frame("turn.update", transcript="語" * n + "\x1b]0;x\x07") for n in (1, 20, 70)), "utf-8")
    done = run("replay", path, width=100)
    assert "\x1b" not in done.stdout
    assert "… 語" in done.stdout
    assert "語�]0;x�" in done.stdout


def test_an_open_turn_without_words_and_a_live_thought() -> None:
    started = run("replay", "-", stdin=frame("turn.start").encode())
    assert "turn 1 is still open, without words" in started.stdout
    eager = run("replay", "-", stdin=COMPLETE.read_bytes().rpartition(b'{"type": "turn.end"')[0])
    assert "thoughts  1: 1 still live" in eager.stdout


def test_a_kept_turn_goes_on_and_a_stall_is_shown() -> None:
    lines = [
        '{"t":0,"frame":"{\\"type\\":\\"turn.start\\",\\"turn_id\\":\\"1\\"}"}',
        '{"t":0,"frame":"{\\"type\\":\\"turn.end\\",\\"turn_id\\":\\"1\\",\\"transcript\\":\\"a\\"}"}',
        '{"t":1,"frame":"{\\"type\\":\\"turn.update\\",\\"turn_id\\":\\"1\\",\\"transcript\\":\\"a b\\"}"}',
        '{"t":9,"app":{"type":"tick"}}',
        '{"t":9,"app":{"type":"stop_reply"}}',
        '{"t":9,"app":{"type":"disconnected"}}',
        '{"t":9,"app":{"type":"reply_started","number":0}}',
        '{"t":9,"app":{"type":"stop_reply"}}',
    ]
    done = run("replay", "-", "--policy", "stall_timeout=2", stdin="\n".join(lines).encode())
    assert "listen, turn 2, goes on from 1, interrupt reply 1" in " ".join(done.stdout.split())
    assert re.search(r"9\.000  tick .* stall\n", done.stdout)
    assert re.search(r"stop reply +idle +interrupt\n", done.stdout)
    assert re.search(r"disconnected +idle +a b +abandon: lost", done.stdout)


# -- files that are not as they should be


def test_what_is_wrong_is_one_sentence_with_file_and_line_and_the_rest_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'{frame("turn.start")}\nnonsense\n{{"typ": 1}}\n{frame("turn.end", transcript="hi")}\n')
    for command in ("replay", "check"):
        done = run(command, tmp_path / "none.jsonl", tmp_path, path)
        assert done.exit_code == 2
        missing, folder, no_json, no_frame = done.stderr.splitlines()
        assert missing == f"{tmp_path}/none.jsonl: No such file or directory"
        assert folder == f"{tmp_path}: Is a directory"
        assert no_json.startswith(f"{path}:2: no JSON: ")
        assert no_frame == f"{path}:3: this frame cannot be read: frame has no `type`"
    done = run("replay", path)
    assert re.search(r"bad frame +speaking +report bad frame", done.stdout)
    assert "think 1, respond 1" in done.stdout
    assert run("replay", tmp_path / "none.jsonl").stdout == ""
    assert run("check", tmp_path / "none.jsonl").stdout == ""


def test_standard_input_named_twice_is_read_once() -> None:
    for command in ("replay", "check"):
        once, twice = (run(command, *names, stdin=COMPLETE.read_bytes()) for names in (["-"], ["-", "-"]))
        assert once.stdout == twice.stdout
        assert (twice.exit_code, twice.stderr) == (0, "-: no inputs\n")


def test_a_file_without_inputs_is_said(tmp_path: Path) -> None:
    empty, begun = tmp_path / "empty.jsonl", written(tmp_path / "begun.jsonl", [])
    empty.touch()
    for command in ("replay", "check"):
        done = run(command, empty, begun)
        assert done.exit_code == 0
        assert done.stderr == f"{empty}: no inputs\n{begun}: no inputs\n"


def test_a_recording_that_was_cut_short_is_no_failure(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", call())
    path.write_bytes(path.read_bytes()[:-9])
    done = run("replay", path)
    assert done.exit_code == 0
    assert done.stderr == f"{path}:20: cut short; its writer was killed\n"


def test_a_policy_that_a_recording_may_not_import_can_be_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_agent.py").write_text("def same(eager, final): return eager[0] == final[0]\n")
    path = written(tmp_path / "a.jsonl", call())
    path.write_text(path.read_text().replace("inkturns.policy.same_words", "my_agent.same"))
    done = run("replay", path)
    assert done.exit_code == 2
    assert done.stderr.startswith(f"{path}:1: Policy.match is 'my_agent.same'")
    assert "my_agent" not in sys.modules
    assert run("replay", path, "--policy", "match=my_agent.same").exit_code == 0


# -- --policy


@pytest.mark.parametrize(
    "pair",
    [
        *(
            "speculate=no",
            "speculate=ON",
            "after_resume=keep",
            "after-disconnect=respond",
            "after_stall=END",
            "match=same_text",
        ),
        *("match=inkturns.policy.same_words", "max_thoughts=none", "max_thoughts=1", "interrupts=none"),
        *("think_after=0.2", "speculate=min_words(2)"),
        *(
            "interrupts=min_words(3)",
            "interrupts=min_words(2, stop, hold on)",
            "interrupts=inkturns.testing.strategies.always",
            "stall_timeout=6.5",
        ),
    ],
)
def test_policies_are_said_as_key_and_value(pair: str) -> None:
    assert run("replay", COMPLETE, "--policy", pair).exit_code == 0


@pytest.mark.parametrize(
    ("typed", "function"),
    [
        ("min_words(2)", min_words(2)),
        ("min_words(2, stop, hold on)", min_words(2, ("stop", "hold on"))),
        ("min_words(2, 'stop', \"hold on\")", min_words(2, ("stop", "hold on"))),
        ("min_words(2, or_any=('stop', 'no, wait'))", min_words(2, ("stop", "no, wait"))),
        ("min_words(n=2)", min_words(2)),
    ],
)
def test_min_words_is_taken_as_typed_and_as_python_writes_it(typed: str, function: min_words) -> None:
    assert read_policy([f"speculate={typed}"]) == {"speculate": function}
    assert read_policy([f"interrupts={function!r}"]) == {"interrupts": function}


@pytest.mark.parametrize(
    ("pair", "why"),
    [
        ("haste=1", "Policy has no field 'haste'; it has speculate, "),
        ("speculate=perhaps", "must be true or false"),
        ("after_resume=explode", "must be cancel or keep, got 'explode'"),
        ("max_thoughts=many", "must be a whole number or none, got 'many'"),
        ("max_thoughts=-1", "Policy.max_thoughts must be 0 or more"),
        ("think_after=none", "must be a number, got 'none'"),
        ("stall_timeout=soon", "must be a number or none, got 'soon'"),
        ("match=fuzzy", "must be same_words or same_text or package.function, got 'fuzzy'"),
        ("match=no.such.module", "cannot import no.such.module: No module named 'no'"),
        ("interrupts=min_words(2", "must be a function, as package.function or min_words(2), got 'min_words(2'"),
        (
            "interrupts=min_words(2, or_any=stop)",
            "must be min_words(2), or min_words(2, stop, no), or as Python writes it",
        ),
        ("interrupts=min_words(2)(3)", "must be min_words(2), or min_words(2, stop, no), or as Python writes it, got "),
        ("interrupts=min_words(2.5)", "min_words: n must be a whole number, got 2.5"),
        ("match=.same_text", "must be a function, as package.function or min_words(2), got '.same_text'"),
        (
            "interrupts=inkturns.policy.none",
            "cannot import inkturns.policy.none: module 'inkturns.policy' has no attribute 'none'",
        ),
        ("match=inkturns.policy.DEFAULT_END_TIMEOUT_MS", "Policy.match must be a sync function of two texts"),
        ("speculate", "must be true or false"),
    ],
)
def test_a_policy_that_cannot_be_is_refused_in_one_sentence(pair: str, why: str) -> None:
    done = run("replay", COMPLETE, "--policy", pair)
    assert done.exit_code == 2
    assert done.stderr.startswith(f"--policy {pair}: {why}")
    assert done.stderr.count("\n") == 1
    assert not done.stdout


# -- check


def test_the_laws_hold_for_what_was_recorded(tmp_path: Path) -> None:
    masked = written(tmp_path / "masked.jsonl", call(), redact=True)
    done = run("check", COMPLETE, CUT, written(tmp_path / "a.jsonl", [*call(), ContextChanged()]), masked)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == "83 inputs in 4 calls; the laws hold\n"


def test_a_broken_law_is_named_with_the_shortest_prefix(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", call())
    lines = path.read_text().splitlines()
    lines[7] = re.sub(r',\{"type":"Respond",.*"thought":2\}', "", lines[7])
    path.write_text("\n".join([*lines, "nonsense", *lines[:3]]) + "\n")
    done = run("check", path)
    assert done.exit_code == 1
    assert f"{path}:8: the actions differ from the recorded ones" in done.stderr
    law = re.search(r":(\d+): law ([A-K]): ", done.stderr)
    assert law
    assert f"; the law: {LAWS[law[2]]}\n" in done.stderr
    shown = [line for line in done.stdout.splitlines()[1:-1] if re.match(r" +\d", line)]
    assert len(shown) == int(law[1]) - 1
    assert done.stderr.count("law ") == 1
    assert "the laws hold" not in done.stdout
    assert done.stdout.splitlines()[-1] == "21 inputs in 2 calls"


def test_actions_of_no_kind_are_said(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", call())
    path.write_text(path.read_text().replace('"type":"Hear"', '"type":"Dance"', 1))
    done = run("check", path)
    assert done.exit_code == 1
    assert f"{path}:4: Invalid value 'Dance'" in done.stderr
    done = run("replay", path)
    assert done.exit_code == 1


def test_a_respond_out_of_nowhere_is_shown_all_the_same(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", call())
    path.write_text(path.read_text().replace('"type":"Think"', '"type":"Stall"').replace(',"speculative":true', ""))
    done = run("check", path)
    assert done.exit_code == 1
    assert ": law " in done.stderr


# -- --record, of demo and listen


@pytest.mark.parametrize("command", [("demo", "--script"), ("listen", "--url", "ws://127.0.0.1:1")])
def test_a_recording_that_cannot_be_is_refused_before_the_call(command: tuple[str, ...], tmp_path: Path) -> None:
    source = tmp_path / "source"
    if command[0] == "demo":
        source.write_text('{"say": ["Hello?"]}\n')
    else:
        with wave.open(str(source), "wb") as sound:
            sound.setparams((1, 2, 8000, 0, "NONE", ""))
            sound.writeframes(bytes(1600))
    before = source.read_bytes()
    (link := tmp_path / "link").symlink_to(source)
    (other := tmp_path / "agent.py").write_text("import inkturns\n")
    for record, why in (
        (source, "this is the file that is read; name another one"),
        (link, "this is the file that is read; name another one"),
        (other, "this file holds something else than recordings; name another one"),
        (tmp_path, "this is not a file that can be written to"),
        (tmp_path / "none" / "a.jsonl", "this is not a file that can be written to"),
    ):
        done = run(*command, source, "--record", record)
        assert (done.exit_code, done.stdout) == (2, "")
        assert done.stderr == f"--record {record}: {why}\n"
    assert source.read_bytes() == before
    assert other.read_text() == "import inkturns\n"


def test_a_recording_that_is_there_is_appended_to(tmp_path: Path) -> None:
    (script := tmp_path / "script.jsonl").write_text('{"say": ["Hello?"]}\n')
    record = written(tmp_path / "a.jsonl", call())
    before = record.read_bytes()
    assert run("demo", "--speed", 100, "--script", script, "--record", record).exit_code == 0
    assert record.read_bytes().startswith(before)
    assert run("check", record).stdout.endswith("in 2 calls; the laws hold\n")
    assert run("demo", "--speed", 100, "--script", script, "--record", tmp_path / "new.jsonl").exit_code == 0
    assert run("check", tmp_path / "new.jsonl").stdout.endswith("in 1 call; the laws hold\n")


# -- diagram, help, and the world around


def test_diagrams_are_printed() -> None:
    assert run("diagram").stdout == run("diagram", "turns").stdout == diagrams.turns()
    assert run("diagram", "machine").stdout == diagrams.machine()
    assert run("diagram", "cat").exit_code == 2


def test_help_names_the_commands() -> None:
    done = run("--help")
    assert done.exit_code == 0
    assert all(name in done.stdout for name in ("replay", "check", "diagram"))
    assert done.stdout.index(" demo ") < done.stdout.index(" replay ")  # where a newcomer begins


def test_the_version_is_that_of_the_package() -> None:
    done = run("--version")
    assert (done.exit_code, done.stdout) == (0, f"inkturns {metadata.version('inkturns')}\n")


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_its_extra_the_command_says_which(
    missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(cli.__file__).with_name("main.py")  # wherever it is installed
    for name in [name for name in sys.modules if name.partition(".")[0] == missing or name.startswith("inkturns.cli.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(path))
    assert caught.value.code == 2
    assert f'the command needs {missing}: pip install "inkturns[cli]"' in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    path.write_bytes(COMPLETE.read_bytes() * 200)
    for args in (["replay", str(path)], ["replay", "--json", str(path)]):
        with subprocess.Popen([*RUN, *args], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.readline()
            process.stdout.close()
            assert process.stderr.read() == b""
            assert process.wait() in (0, 1)


def test_ctrl_c_ends_without_a_word() -> None:
    with subprocess.Popen(
        [*RUN, "replay", "-"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(frame("turn.start").encode() + b"\n" * 10_000)
        process.stdin.flush()
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
        assert process.stderr.read() == b""


class Terminal(io.TextIOWrapper):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_long_files_show_their_progress_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "long.jsonl"
    path.write_bytes(COMPLETE.read_bytes() * 450)
    screen = io.BytesIO()
    monkeypatch.setattr(sys, "argv", ["inkturns", "check", str(path), str(COMPLETE)])
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "utf-8"))
    monkeypatch.setattr(sys, "stderr", Terminal(screen, "utf-8"))
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 0
    sys.stderr.flush()
    assert b"100%" in screen.getvalue()
    assert screen.getvalue().count(b"ink2-complete") == 0  # too short for a bar


def test_an_interrupt_is_exit_code_130(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(io.BytesIO):
        def __next__(self) -> bytes:
            raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["inkturns", "replay", "-"])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Interrupted(), "utf-8"))
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 130


def test_replays_of_many_lines_take_their_time_and_no_more(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    path.write_bytes(COMPLETE.read_bytes() * 20)
    done = run("replay", path)
    assert done.exit_code == 0
    assert "20 answered (server)" in done.stdout


# -- what came over the wire


HOSTILE = "\x1b]0;pwned\x07\x1b[2J\r\nforged \x9b31m\u202eevil\u2066\x00\x7f\U000e0001[bold red]"


def test_f57_nothing_that_a_recording_holds_controls_the_terminal(tmp_path: Path) -> None:
    """Its words, ids, types, labels, the server's errors, and its own name."""
    items: list[object] = [
        frame("connected", request_id=HOSTILE),
        frame("turn.start", turn_id=HOSTILE),
        frame("turn.update", transcript=HOSTILE),
        frame("turn.eager_end", transcript=HOSTILE + " more"),
        frame("turn." + HOSTILE),
        frame("error", status_code=400, title=HOSTILE, message=HOSTILE, error_code=HOSTILE, doc_url=HOSTILE),
        frame("turn.update", transcript={HOSTILE: 1}),
        frame("turn.update", turn_id=HOSTILE * 2, transcript="other"),
        HOSTILE,
        b"\xff\x1b",
        frame("connected", request_id=HOSTILE * 2),
        Disconnected(HOSTILE),
        frame("turn.start"),
        frame("turn.update", transcript=HOSTILE),
    ]
    path = written(tmp_path / "a\x1b[2J.jsonl", items, call=HOSTILE, labels={HOSTILE: HOSTILE})
    path.write_text(
        path.read_text("utf-8") + HOSTILE + "\n" + json.dumps({"t": HOSTILE, "app": HOSTILE}) + "\n", "utf-8"
    )
    for arguments in (["replay", path], ["check", path], ["replay", path, "--policy", f"match={HOSTILE}"]):
        done = run(*arguments)
        shown = done.stdout + done.stderr
        assert shown.replace("\n", "").isprintable()
        assert not re.search(r"^forged", shown, re.MULTILINE)
    assert "pwned" in run("replay", path).stdout
    lines = run("replay", path, "--json").stdout.splitlines()
    assert all(line.isprintable() for line in lines)
    assert json.loads(lines[2])["event"]["transcript"] == HOSTILE


def test_f57_a_broken_law_is_shown_without_control_characters(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", [frame("turn.start"), frame("turn.end", transcript=HOSTILE)])
    path.write_text(re.sub(r',\{"type":"Respond",.*"thought":1\}', "", path.read_text("utf-8")), "utf-8")
    done = run("check", path)
    assert done.exit_code == 1
    assert "law " in done.stderr
    assert (done.stdout + done.stderr).replace("\n", "").isprintable()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Grüße, 語, naïve 🙂", "Grüße, 語, naïve 🙂"),
        ("a\tb\r\nc\x00\x1b[2J\x7f", "a�b��c��[2J�"),
        ("\x9b31m\u202eevil\u2066\u200e\u2028\ufeff", "�31m�evil����"),
        ("1\u00a0000\u202f€\u3000", "1 000 € "),
        ("क्\u200dष", "क्\u200dष"),
        ("\ud800\ue000", "��"),
    ],
)
def test_f57_text_is_printable_and_as_long_as_it_was(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert len(shown) == len(text)


def test_python_m_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "inkturns", "diagram"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, diagrams.turns(), "")


def test_the_module_runs_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["inkturns", "diagram"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("inkturns", run_name="__main__")
    assert (ended.value.code, capsys.readouterr().out) == (0, diagrams.turns())


def test_the_help_of_policy_lists_the_fields_that_there_are() -> None:
    shown = " ".join(run("replay", "--help", width=200).stdout.replace("│", " ").split())
    for field in attrs.fields(Policy):
        assert f" {field.name}" in shown
