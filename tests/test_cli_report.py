"""`inkturns report`: the answer first, options, faults on standard error, exit codes."""

import gzip
import io
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner, Result

from inkturns.cli.main import app
from inkturns.cli.stderr import progress
from inkturns.redact import hashed
from inkturns.report import TurnRow
from inkturns.report.fleet import Worst
from inkturns.report.worst import timelines_of, words_of
from tests.recorded import EVIL, Recorded, answered, hostile
from tests.test_report_rows import ABOUT, CALL, inputs, recorded


def run(*args: object, width: int = 140, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args], env={"COLUMNS": str(width)}, input=stdin)


def agents(call: str, **about: object) -> bytes:
    return b"".join(recorded(CALL, **ABOUT | {"call": call} | about))


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    """Twelve calls of an agent in two arms."""
    for n in range(12):
        (tmp_path / f"{n:02}.jsonl").write_bytes(agents(f"call {n}", labels={"arm": "ab"[n % 2]}))
    return tmp_path


ANSWER = (  # of three turns, one was thought ahead; three thoughts were unused, at a cost of 0.0015
    "Thinking ahead made replies begin 0.37 s earlier (p50; p90 0.37 s) in 33 % of 36 turns, for 1.00 more model calls "
    "a turn ($0.50 in 1,000 turns, 95 % 0.50\N{EN DASH}0.50)."
)


def test_the_answer_comes_first_then_the_table_the_worst_and_what_is_not_known(calls: Path) -> None:
    done = run("report", calls, "--by", "arm")
    assert done.exit_code == 0
    assert done.stderr == ""
    first, _, heads, number, *rest = done.stdout.splitlines()
    assert first == ANSWER
    assert heads.split() == ["all", "a", "b"]
    assert number.split() == ["calls", "12", "6", "6"]
    text = "\n".join(rest)
    assert "b against a, saved.p50: +0 (95 % +0 to +0), no more than chance" in text
    assert f"Worst by waste\n  3 unused thoughts: {calls}/00.jsonl:1, call call 0, turn 4\n" in text
    assert "  wasted_cost: usage was told of 50 % of the thoughts" in text
    assert "book it" not in done.stdout


def test_words_are_shown_where_they_are_asked_for(calls: Path) -> None:
    done = run("report", calls, "--words")
    assert f"0.50 s to the first sound: {calls}/00.jsonl:1, call call 0, turn 2: “hello”" in done.stdout
    (calls / "bare.jsonl").write_bytes(b"".join(answered(Recorded()).lines))
    assert run("report", "-", "--words", stdin=agents("x")).exit_code == 0  # it cannot be read again


def test_json_is_one_object(calls: Path) -> None:
    done = run("report", calls / "*.jsonl", "--json", "--by", "arm", "--cluster", "arm")
    (line,) = done.stdout.splitlines()
    values = json.loads(line)
    assert values["answer"].startswith("Thinking ahead made replies begin 0.37 s earlier")
    assert (values["calls"], values["unread"], list(values["arms"])) == (12, 0, ["a", "b"])


def test_what_cannot_be_read_is_named_and_counted_and_the_rest_is_reported(calls: Path) -> None:
    (calls / "cut.jsonl.gz").write_bytes(gzip.compress(agents("cut"))[:-9])
    (calls / "torn.jsonl").write_bytes(agents("torn") + b"no JSON\n" + agents("whole"))
    done = run("report", calls, "nowhere", "--json")
    assert done.exit_code == 2
    nowhere, cut, torn = done.stderr.splitlines()
    assert (nowhere, cut) == ("nowhere: no such file or directory", f"{calls}/cut.jsonl.gz: cut short")
    assert torn.startswith(f"{calls}/torn.jsonl:29: no JSON: ")
    values = json.loads(done.stdout)
    assert (values["calls"], values["unread"], values["unread_lines"]) == (14, 2, 1)
    shown = run("report", calls, "nowhere").stdout
    assert "  unread: 2 recordings or paths, 1 lines; the command named them on standard error" in shown


def test_of_nothing_there_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    done = run("report", tmp_path)
    assert (done.exit_code, done.stdout) == (0, "There is no answered turn in these recordings.\n")
    assert "unread: 1 recordings" in run("report", tmp_path / "nowhere").stdout


def test_standard_input_is_read(calls: Path) -> None:
    done = run("report", "-", "--json", stdin=(calls / "00.jsonl").read_bytes())
    assert json.loads(done.stdout)["calls"] == 1


def test_only_some_calls_are_asked_for(calls: Path) -> None:
    (calls / "new.jsonl").write_bytes(agents("new", started="2099-01-01"))
    asked = [["--where", "arm=a"], ["--since", "2098-01-01"], ["--since", "30d"], ["--since", "2026-01-01"]]
    counted = [json.loads(run("report", calls, "--json", *options).stdout)["calls"] for options in asked]
    assert counted == [6, 1, 1, 13]


def test_rows_are_written_and_read_again(calls: Path) -> None:
    done = run("report", calls, "--rows", calls / "rows.json", "--hash-call")
    assert done.exit_code == 0
    rows = [json.loads(line) for line in (calls / "rows.json").read_text().splitlines()]
    assert len(rows) == 48
    assert set(rows[0]) == {"file", *TurnRow.__struct_fields__}
    assert rows[0]["call"] == hashed("call 0")
    assert f"call {hashed('call 0')}" in done.stdout
    assert "call call" not in done.stdout


def test_the_page_is_written_with_the_timelines_of_the_worst_calls(calls: Path) -> None:
    nowhere = calls / "00.jsonl" / "report.html"
    done = run("report", calls, "--html", nowhere)
    assert (done.exit_code, done.stderr) == (2, f"--html {nowhere}: Not a directory\n")
    bare = b'{"type":"turn.start"}\n' + b'{"typ":1}\n' * 3 + b'{"type":"turn.end","transcript":"hi"}\n'
    (calls / "bare.jsonl").write_bytes(bare)
    assert run("report", calls, "--html", calls / "report.html").exit_code == 0
    page = (calls / "report.html").read_text("utf-8")
    links = [part.split('"')[0].split("#")[0] for part in page.split('<a href="')[1:]]
    assert links
    for link in links:
        assert "</html>" in (calls / link).read_text("utf-8")
    assert "bare.jsonl:0, turn 1" in page  # it has no times, and so no timeline


def test_a_watchers_calls_are_judged_by_an_assumed_latency(tmp_path: Path) -> None:
    (tmp_path / "w.jsonl").write_bytes(b"".join(recorded(inputs(CALL))))
    (tmp_path / "samples").write_text("0.25\n0.25\n")
    assert "is not known" in run("report", tmp_path).stdout
    for latency in ("0.25", tmp_path / "samples"):
        done = run("report", tmp_path, "--latency", latency)
        assert done.stdout.startswith("Thinking ahead would make replies begin 0.25 s earlier")
        assert "modelled, not measured: first_item, saved, saved_ahead" in done.stdout


def test_prices_and_worth(calls: Path) -> None:
    (calls / "prices").write_text('{"*": {"input": 1000, "output": 1000}}')
    # Unknown usage of turn 2's thought and of two in turn 4: nothing is known of the adopted thought of turn 4 either.
    values = json.loads(run("report", calls, "--json", "--prices", calls / "prices").stdout)
    assert values["modelled"] == ["wasted_cost", "wasted_cost_per_turn"]
    # A turn saves 0.375 s / 3 and costs 0.0005: worth 0.004 a second at least.
    assert run("report", calls, "--worth", "0.005").stdout.startswith("It pays: ")
    assert run("report", calls, "--worth", "0.003").stdout.startswith("It does not pay: ")
    assert run("report", calls, "--worth", "calls=0.9").stdout.startswith("It does not pay: ")
    assert run("report", calls, "--worth", "calls=1").stdout.startswith("It pays: ")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--where", "arm"], "--where arm: it must be LABEL=VALUE"),
        (["--where", "arm=a", "--where", "arm=b"], "--where arm=a and arm=b: no call has both; ask one at a time"),
        (
            ["--since", "soon"],
            "--since soon is no date (2026-01-31), no time (2026-01-31T12:00) and no period (30d, 12h",
        ),
        (["--since", "2026"], "--since 2026 is no date"),
        (["--latency", "soon"], "--latency soon: neither a number nor a file (No such file or directory)"),
        (["--latency", "-1"], "--latency -1: seconds must be 0 to 3600, and at least one"),
        (["--latency", "nan"], "--latency nan: seconds must be 0 to 3600, and at least one"),
        (["--latency", "words"], "--latency words: a line must be a number of seconds"),
        (["--latency", os.devnull], f"--latency {os.devnull}: seconds must be 0 to 3600, and at least one"),
        (["--prices", "nowhere"], "--prices nowhere: No such file or directory"),
        (["--prices", "words"], '--prices words: it must hold {"model": {"input": 2.5, "output": 10}} ('),
        (["--worth", "much"], "--worth much: it must be money for a saved second (0.02), or calls=0.5"),
        (["--worth", "-1"], "--worth -1: it must be 0 or more"),
        (["--worth", "calls=nan"], "--worth calls=nan: it must be 0 or more"),
        (["--by", "arm", "--primary", "speed"], "the primary measure must be one of turns_ahead, "),
        (["--primary", "gap.p50"], "--primary gap.p50 decides between arms: give --by too, which tells them apart"),
        (["--rows", "nowhere/rows"], "--rows nowhere/rows: No such file or directory"),
    ],
)
def test_an_option_that_cannot_be_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("words").write_text("one two")
    Path("a.jsonl").write_bytes(agents("a"))
    done = run("report", "a.jsonl", *options)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.startswith(sentence)


def test_dask_needs_its_extra(calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    done = run("report", calls, "--dask", "tcp://127.0.0.1:1")
    assert (done.exit_code, done.stderr) == (2, '--dask needs distributed: pip install "inkturns[fleet]"\n')


def test_f57_nothing_that_a_recording_holds_controls_the_terminal(tmp_path: Path) -> None:
    name = "\x1b[31m[red]\u202e"
    for n in range(2):
        call = Recorded(call=name + str(n), labels={"arm": name})
        (tmp_path / f"{n}.jsonl").write_bytes(b"".join(answered(call, words=name).lines))
    (tmp_path / "2.jsonl").write_bytes(b"".join(hostile().lines))
    done = run("report", tmp_path, "--by", "arm", "--words")
    assert done.exit_code == 0
    assert "\x1b" not in done.stdout
    assert "\u202e" not in done.stdout
    assert "[red]" in done.stdout
    assert run("report", tmp_path, "--by", EVIL).exit_code == 0


class Stderr(io.StringIO):
    """Standard error that says when something was written to it."""

    def __init__(self, is_terminal: bool) -> None:
        super().__init__()
        self.is_terminal = is_terminal
        self.written = threading.Event()

    def isatty(self) -> bool:
        return self.is_terminal

    def flush(self) -> None:
        self.written.set()

    def wait(self) -> None:
        assert self.written.wait(30)
        self.written.clear()


@pytest.mark.parametrize(
    ("is_terminal", "told"),
    [
        (False, "reading recordings\n"),  # the next one comes after half a minute
        (True, "\rreading recordings \rreading: 3 of 1,234 recordings \r\x1b[K"),
    ],
)
def test_progress_is_told_while_it_takes_long(monkeypatch: pytest.MonkeyPatch, is_terminal: bool, told: str) -> None:
    stderr = Stderr(is_terminal)
    monkeypatch.setattr(sys, "stderr", stderr)
    with progress("recordings", after=0.0) as done:
        stderr.wait()
        done(3, 1234)
        if is_terminal:
            stderr.wait()
    assert stderr.getvalue() == told


def test_what_is_quick_tells_no_progress(calls: Path) -> None:
    before = time.monotonic()
    done = run("report", calls)
    assert done.stderr == "" or time.monotonic() - before > 2


def test_help_imports_no_other_command() -> None:
    """What reads recordings is imported when it is run."""
    names = ("multiprocessing", "asyncio", "anyio", "inkturns.report", "inkturns.cli.check", "inkturns.cli.replay")
    code = (
        "import sys\nsys.argv = ['inkturns', 'report', '--help']\nfrom inkturns.cli.main import main\n"
        f"try:\n    main()\nexcept SystemExit:\n    pass\nprint([name for name in {names} if name in sys.modules],"
        " file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Does thinking ahead pay?" in done.stdout
    assert done.stderr == "[]\n"


def test_words_of_a_recording_that_is_gone_or_changed_are_missing(calls: Path) -> None:
    one = Worst(-1.0, str(calls / "00.jsonl"), 1, 2)
    assert words_of(one) == "hello"
    assert words_of(msgspec.structs.replace(one, begins=7)) is None
    assert words_of(msgspec.structs.replace(one, turn=99)) is None
    assert words_of(msgspec.structs.replace(one, file=str(calls / "gone.jsonl"))) is None
    assert timelines_of([msgspec.structs.replace(one, file="gone.jsonl"), one, one], calls / "t", words=True) == {
        (one.file, 1): "1.html"
    }


def test_a_hashed_id_stays_hashed_in_the_timelines(calls: Path) -> None:
    (calls / "none.jsonl").write_bytes(b"".join(answered(Recorded()).lines))
    for options, shown in (["--hash-call"], False), ([], True):
        assert run("report", calls, *options, "--html", calls / "r.html").exit_code == 0
        pages = [calls / "r.html", *(calls / "r-calls").iterdir()]
        assert len(pages) > 10
        assert any("call call 1" in page.read_text("utf-8").lower() for page in pages) is shown
        assert any(hashed("call 1") in page.read_text("utf-8") for page in pages[1:]) is not shown


@pytest.mark.parametrize("width", [30, 60, 80])
def test_no_figure_is_broken_in_two_where_there_are_many_arms(calls: Path, width: int) -> None:
    for n in range(6):
        (calls / f"{n:02}.jsonl").write_bytes(agents(f"call {n}", labels={"arm": f"arm {n}"}))
    wide, narrow = (run("report", calls, "--by", "arm", width=columns).stdout for columns in (400, width))
    words = {word for line in wide.splitlines()[2:30] for word in line.split()}
    assert words - {*narrow.split()} == set()


def test_a_report_of_any_name_does_not_widen_the_table(tmp_path: Path) -> None:
    call = answered(Recorded()).note(9.0, "report", 0, report={"kind": "x" * 5000})
    (tmp_path / "a.jsonl").write_bytes(b"".join(call.lines))
    assert max(map(len, run("report", tmp_path, width=80).stdout.splitlines()[1:30])) <= 80


def test_what_the_false_end_rate_does_not_see_is_said_where_it_is_shown(calls: Path) -> None:
    said = "false_end_rate: only turns whose words go on from the turn before"
    assert said in run("report", calls, "--html", calls / "r.html").stdout
    assert said in (calls / "r.html").read_text("utf-8")


def test_a_label_that_calls_lack_is_said(calls: Path) -> None:
    (calls / "00.jsonl").write_bytes(agents("call 0", labels={"customer": "c"}))
    said = run("report", calls, "--cluster", "customer").stdout
    assert "  cluster: 11 of 12 calls have no label customer: each counts by itself\n" in said
    assert "  cluster: " not in run("report", calls).stdout


def test_what_was_measured_is_not_called_assumed(calls: Path, tmp_path: Path) -> None:
    """The agents' calls have three turns whose first item was measured; the watcher's has one where none was."""
    assert run("report", calls, "--latency", "0.8").stdout.splitlines()[0] == ANSWER
    (calls / "w.jsonl").write_bytes(b"".join(answered(Recorded()).lines))
    done = run("report", calls, "--latency", "0.8")
    assert "if a model's first item came after 0.8 s in the 1 turns where none was measured (modelled)" in done.stdout
    assert "modelled, not measured: first_item, saved, saved_ahead" in done.stdout
