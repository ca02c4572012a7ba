"""`inkturns timeline`: what it writes, and what it says where something is wrong."""

import gzip
import json
import tempfile
import webbrowser
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from inkturns.cli.main import app
from inkturns.events import TurnStart
from tests.recorded import Recorded, answered

ROOT = Path(__file__).parent.parent
SESSIONS = ROOT / "tests" / "sessions"


def run(*args: object, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(app, ["timeline", *map(str, args)], input=stdin)


def written(path: Path, *calls: Recorded) -> Path:
    path.write_bytes(b"".join(line for call in calls for line in call.lines))
    return path


@pytest.fixture
def call(tmp_path: Path) -> Path:
    return written(tmp_path / "call.jsonl", answered(Recorded(call="7f3a")))


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("name", "begins"), [("a.html", "<!doctype html>"), ("a.svg", "<svg "), ("a.JSON", '{"traceEvents":')]
)
def test_the_names_ending_says_what_is_written(name: str, begins: str, call: Path, tmp_path: Path) -> None:
    done = run(call, "-o", tmp_path / name)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{tmp_path / name}: ")
    assert done.stdout.endswith(" kB\n")
    assert (tmp_path / name).read_text("utf-8").startswith(begins)


def test_without_a_name_the_page_is_named_after_the_call_and_stands_here(call: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    call = call.rename(tmp_path / "there" / "yesterday.jsonl")
    assert run(call).exit_code == 0
    assert (tmp_path / "yesterday.html").exists()
    assert run("-", stdin=call.read_bytes()).stdout.startswith("call.html: ")


def test_words_are_shown_where_they_are_asked_for(call: Path) -> None:
    for arguments, shown in ((), False), (("--words",), True):
        for name in ("a.html", "a.svg", "a.json"):
            assert run(call, "-o", name, *arguments).exit_code == 0
            assert ("book a table" in Path(name).read_text("utf-8")) is shown
            assert ("xxxx x xxxxx" in Path(name).read_text("utf-8")) is not shown


# -- one call of many


def test_one_call_of_many_is_named_or_asked_for(tmp_path: Path) -> None:
    first, second = (answered(Recorded(call=name), words=name) for name in ("alpha", "beta"))
    both = written(tmp_path / "both.jsonl", first, second)
    done = run(both, "--words")
    assert done.exit_code == 2
    assert done.stderr == f"{both} has 2 calls (alpha, beta); choose one with --call ID, or --call 2 for the second\n"
    for wanted in ("beta", "2"):
        assert run(both, "--words", "--call", wanted).exit_code == 0
        assert "beta" in (tmp_path / "both.html").read_text()
        assert "alpha" not in (tmp_path / "both.html").read_text()
    done = run(both, "--call", "gamma")
    assert (done.exit_code, done.stderr) == (2, f"--call gamma: {both} has no such call; it has alpha, beta\n")


def test_calls_without_an_id_are_counted_and_long_lists_are_short(tmp_path: Path) -> None:
    many = written(tmp_path / "many.jsonl", *(answered(Recorded()) for _ in range(12)))
    assert "has 12 calls (1, 2, 3, 4, 5, 6, 7, 8, 9, 10 …)" in run(many).stderr
    assert run(many, "--call", "12").exit_code == 0
    assert run(many, "--call", "13").exit_code == 2


# -- what is wrong


def test_what_cannot_be_read_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    for name, said in {
        "none.jsonl": "none.jsonl: No such file or directory\n",
        ".": ".: Is a directory\n",
        "empty.jsonl": "empty.jsonl: no call was recorded in it\n",
        SESSIONS / "ink2-complete-turn.jsonl": "no input of the call has a time",
    }.items():
        done = run(name, "-o", "a.html")
        assert done.exit_code == 2
        assert said in done.stderr
        assert not Path("a.html").exists()


def test_bad_lines_are_named_and_the_rest_is_drawn(call: Path) -> None:
    lines = call.read_bytes().splitlines(keepends=True)
    call.write_bytes(b"".join([lines[0], *[b"garbage\n"] * 12, *lines[1:]]))
    done = run(call)
    assert done.exit_code == 2
    said = done.stderr.splitlines()
    assert len(said) == 11
    assert said[0].startswith(f"{call}:2: no JSON: ")
    assert said[-1] == f"{call}: 2 more lines could not be read"
    assert Path("call.html").exists()


def test_a_recording_that_was_cut_short_is_drawn(call: Path) -> None:
    call.write_bytes(call.read_bytes()[:-20])
    done = run(call)
    assert (done.exit_code, done.stderr.count("\n")) == (0, 1)
    assert "cut short" in done.stderr


def test_ten_megabytes_of_nothing_and_hours_of_nan(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(
        b"".join([b"x" * 10_000_000 + b"\n", b'{"t": NaN, "frame": "{}"}\n' * 500, b"[" * 100_000 + b"\n"])
    )
    done = run(path)
    assert done.exit_code == 2
    assert len(done.stderr) < 10_000
    assert done.exception is None or isinstance(done.exception, SystemExit)


def test_what_cannot_be_written_is_a_sentence(call: Path, tmp_path: Path) -> None:
    for out, said in {
        "a.png": "-o a.png: the name must end in .html, .svg or .json\n",
        "a": "-o a: the name must end in .html, .svg or .json\n",
        "none/a.svg": "-o none/a.svg: No such file or directory\n",
    }.items():
        done = run(call, "-o", out)
        assert (done.exit_code, done.stderr) == (2, said)
    recording = call.rename(tmp_path / "call.json")
    before = recording.read_bytes()
    done = run(recording, "-o", "call.json")
    assert (done.exit_code, done.stderr) == (2, "-o call.json: this is the recording itself; name another file\n")
    assert recording.read_bytes() == before


def test_names_from_a_recording_are_harmless_on_the_terminal(tmp_path: Path) -> None:
    both = written(tmp_path / "both.jsonl", answered(Recorded(call="\x1b[2J")), answered(Recorded(call="b")))
    assert "\x1b" not in run(both).stderr


# -- the browser


def test_open_shows_the_page(call: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []

    def browser(url: str) -> bool:
        shown.append(url)
        return True

    monkeypatch.setattr(webbrowser, "open", browser)
    assert run(call, "-o", "a.svg", "--open").exit_code == 0
    assert shown == [(tmp_path / "a.svg").resolve().as_uri()]
    done = run(call, "-o", "a.json", "--open")
    assert (done.exit_code, len(shown)) == (2, 1)
    assert "https://ui.perfetto.dev" in done.stderr


def test_without_a_browser_it_says_where_the_page_is(call: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webbrowser, "open", lambda _: False)
    done = run(call, "--open")
    assert (done.exit_code, done.stderr) == (0, "no browser could be opened; the picture is call.html\n")


# -- the demo's


def test_the_demo_ends_with_its_timeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr(webbrowser, "open", shown.append)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (script := tmp_path / "script.jsonl").write_text('{"say": ["Are there any pears left?"]}\n')
    done = CliRunner().invoke(app, ["demo", "--speed", "100", "--script", str(script), "--open"])
    assert done.exit_code == 0
    [made] = tmp_path.glob("inkturns-*/demo.html")
    assert shown == [made.as_uri()]
    assert "Are there any pears left?" in made.read_text("utf-8")
    record = tmp_path / "mine.jsonl"
    for _ in range(2):  # the second call of one file is drawn, too
        done = CliRunner().invoke(
            app, ["demo", "--speed", "100", "--script", str(script), "--open", "--record", str(record)]
        )
        assert (done.exit_code, shown[-1]) == (0, (tmp_path / "mine.html").as_uri())


def test_what_cannot_be_read_back_is_not_drawn(tmp_path: Path) -> None:
    (script := tmp_path / "script.jsonl").write_text('{"pause": 0.5}\n')
    done = CliRunner().invoke(
        app, ["demo", "--speed", "100", "--script", str(script), "--open", "--record", "/dev/null"]
    )
    assert done.exit_code == 2
    assert done.stderr == "--open: /dev/null cannot be read back; record to a file\n"


def test_the_picture_for_the_readme_is_not_stale() -> None:
    drawn = (ROOT / "diagrams/timeline.svg").read_text("utf-8")
    made = CliRunner().invoke(app, ["diagram", "timeline"]).stdout
    assert drawn == made, "inkturns diagram timeline > diagrams/timeline.svg"
    assert "And when do you close?" in drawn


def test_a_trace_names_the_call(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", Recorded(call="one").at(1, TurnStart()))
    assert run(path, "-o", "a.json").exit_code == 0
    values = json.loads(Path("a.json").read_text())
    assert values["traceEvents"][0]["args"]["name"] == "Call one"


def test_a_packed_recording_is_drawn(call: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed.jsonl.gz"
    packed.write_bytes(gzip.compress(call.read_bytes()))
    assert run(packed).exit_code == 0
    assert run(call, "-o", "plain.html").exit_code == 0
    assert Path("packed.html").read_bytes() == Path("plain.html").read_bytes()
