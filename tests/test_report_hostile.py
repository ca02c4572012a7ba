"""Commands on recordings, with paths and options that nobody should give: nothing is lost, nothing waits without end,
and each fault is a sentence."""

import json
import os
import re
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from inkturns.cli.main import app
from inkturns.errors import RecordingError
from inkturns.events import ReplyDone, ReplyStarted, TurnEagerEnd, TurnEnd, TurnResume, TurnStart, TurnUpdate
from inkturns.policy import Policy
from inkturns.report import turns_of
from inkturns.report.calls import calls_of
from inkturns.report.paths import find
from inkturns.report.question import moment_of, since
from inkturns.report.summary import SHOWN
from tests.recorded import Recorded, answered
from tests.what_if_calls import independent, recorded


def run(*args: object) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args], env={"COLUMNS": "140"})


def lines(name: str | None = "a") -> bytes:
    return b"".join(answered(Recorded(call=name)).lines)


def renamed(data: bytes, **header: object) -> bytes:
    """The same call with these members of its header."""
    first, rest = data.split(b"\n", 1)
    return json.dumps({**json.loads(first), **header}, separators=(",", ":")).encode() + b"\n" + rest


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "calls"
    path.mkdir()
    (path / "a.jsonl").write_bytes(lines())
    return path


# -- what is written


@pytest.mark.parametrize("option", ["--rows", "--html"])
@pytest.mark.parametrize("target", ["calls/a.jsonl", "calls/link.jsonl", "link"])
def test_a_recording_is_never_written_over(calls: Path, option: str, target: str) -> None:
    for link in (calls / "link.jsonl", Path("link")):
        link.symlink_to(calls / "a.jsonl")
    done = run("report", "calls", option, target)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == f"{option} {target}: this is one of the recordings; name another file\n"
    assert (calls / "a.jsonl").read_bytes() == lines()


def test_rows_may_be_written_into_a_directory_that_is_read(calls: Path) -> None:
    done = run("report", "calls", "--rows", "calls/rows.jsonl")
    assert (done.exit_code, done.stderr) == (0, "")
    assert len((calls / "rows.jsonl").read_bytes().splitlines()) == 1
    assert run("report", "calls", "--where", "arm=none", "--rows", "none.json").exit_code == 0
    assert Path("none.json").read_bytes() == b""


@pytest.mark.parametrize("option", ["--rows", "--html"])
@pytest.mark.parametrize(
    ("target", "reason"),
    [
        (".", "it must be a file's name"),
        ("", "it must be a file's name"),
        ("calls", "it must be a file's name"),
        ("a\0b", "it must be a file's name"),
        ("nowhere/x", "No such file or directory"),
        ("calls/a.jsonl/x", "Not a directory"),
    ],
)
def test_what_cannot_be_written_is_refused_before_anything_is_read(
    calls: Path, option: str, target: str, reason: str
) -> None:
    done = run("report", "calls", "nowhere", option, target)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == f"{option} {target}: {reason}\n".replace("\0", "\ufffd")


def test_one_file_cannot_be_both(calls: Path) -> None:
    done = run("report", "calls", "--rows", "x", "--html", "x")
    assert (done.exit_code, done.stderr) == (2, "--rows and --html are both x: one would replace the other\n")


def test_a_full_disk_is_a_sentence(calls: Path) -> None:
    done = run("report", "calls", "--rows", "/dev/full")
    assert (done.exit_code, done.stderr) == (2, "--rows /dev/full: No space left on device\n")


def test_the_report_is_printed_though_its_page_cannot_be_written(calls: Path) -> None:
    Path("page.html").symlink_to("/dev/full")
    done = run("report", "calls", "--html", "page.html")
    assert (done.exit_code, done.stderr) == (2, "--html page.html: No space left on device\n")
    assert done.stdout.startswith("Thoughts began ahead")


def test_a_picture_has_a_files_name(calls: Path) -> None:
    for args in (["calls/a.jsonl", "-o", "a\0.html"], ["a\0", "-o", "a.html"]):
        done = run("timeline", *args)
        assert (done.exit_code, done.stderr.endswith("no file's name has a null character\n")) == (2, True)


# -- what is read


def test_a_pipe_in_a_directory_is_named_and_not_waited_for(calls: Path) -> None:
    os.mkfifo(calls / "pipe.jsonl")
    for path in ("calls", "calls/*"):
        found = find([path])
        assert found.names == ["calls/a.jsonl"]
        assert [str(error) for error in found.unread] == [
            "calls/pipe.jsonl: this is no file; a pipe is read where its own name is given"
        ]


@pytest.mark.parametrize(
    "args", [["what-if", "pipe", "--policy", "max_thoughts=1"], ["report", "pipe", "--html", "page.html"]]
)
def test_a_pipe_is_read_once(calls: Path, args: list[str]) -> None:
    os.mkfifo("pipe")
    writer = threading.Thread(target=Path("pipe").write_bytes, args=(lines(),), daemon=True)
    writer.start()
    done = run(*args)
    assert (done.exit_code, done.stderr) == (0, "")
    assert "1 turn" in done.stdout
    writer.join()


def test_a_header_that_cannot_be_read_begins_a_call() -> None:
    """Its lines would be the first call's otherwise, and change its figures."""
    call = answered(Recorded(call="a")).lines
    torn = b'{"t":9,"event":"none"}\n'  # so that the call is read line by line
    second = [b'{"inkturns":1,oops\n', *call[1:]]
    faults: list[RecordingError] = []
    some = [*call, torn, *second, b'{"inkturns":1,oops\n', b'{"agent":"began","turn":1}\n']
    one, other = calls_of(some, faults.append)
    assert (one.name, other.name) == ("a", None)
    assert len(one.steps) == len(other.steps) == len(call) - 1
    assert [row.begins for row in turns_of(some, on_error=faults.append)] == [1, len(call) + 2]
    (alone,) = calls_of([line.decode() for line in second], faults.append)
    assert len(alone.steps) == len(call) - 1


# -- when a call began


@pytest.mark.parametrize("text", ["1795010112123", "1795010112123.5", "22911.7", "0", "1e9", "12345678901", "True"])
def test_a_number_that_is_no_seconds_since_1970_is_no_moment(text: str) -> None:
    """Milliseconds would be a moment of the year 1795, and a monotonic clock's seconds one of 1970: `purge --older`
    would remove today's calls."""
    assert moment_of(text) is None


def test_seconds_since_1970_and_dates_are_moments() -> None:
    assert moment_of("1795010112.5") == datetime(2026, 11, 18, 13, 55, 12, 500_000, UTC)
    assert moment_of("20260131") == moment_of("2026-01-31") == datetime(2026, 1, 31, tzinfo=UTC)


def test_a_period_may_be_longer_than_the_calendar(calls: Path) -> None:
    assert since("999999d", datetime(2026, 1, 1, tzinfo=UTC)) == datetime(1, 1, 1, tzinfo=UTC)
    assert run("report", "calls", "--since", "999999d").exit_code == 0
    assert run("purge", "calls", "--older", "999999d").stdout == "0 calls removed, from 0 files; 1 calls stay\n"


# -- purge


def test_today_s_calls_stay_whatever_clock_said_when_they_began(calls: Path) -> None:
    for n, started in enumerate((1795010112123, 22911.7)):
        (calls / f"{n}.jsonl").write_bytes(renamed(lines(), started=started))
    (calls / "a.jsonl").unlink()
    done = run("purge", "calls", "--older", "30d")
    assert done.stdout == "0 calls removed, from 0 files; 2 calls stay\n"
    assert done.stderr == "of 2 calls nobody knows when they began; they stay\n"


def test_a_call_goes_whatever_stands_before_its_id(calls: Path) -> None:
    (calls / "bom.jsonl").write_bytes(b"\xef\xbb\xbf" + lines("marked"))
    (calls / "number.jsonl").write_bytes(renamed(lines(), call=7))
    (calls / "none.jsonl").write_bytes(lines(None))
    done = run("purge", "calls", "--call", "marked", "--call", "7")
    assert done.exit_code == 0
    assert "2 calls removed, from 2 files; 2 calls stay" in done.stdout
    assert sorted(path.name for path in calls.iterdir()) == ["a.jsonl", "none.jsonl"]


def test_a_pipe_is_no_file_to_remove_calls_from(calls: Path) -> None:
    os.mkfifo("pipe")
    for option in ([], ["--dry-run"]):
        done = run("purge", "pipe", "--call", "a", *option)
        assert done.exit_code == 2
        assert done.stderr == (
            "pipe: calls can be removed from files of this machine only; nothing was removed from it\n"
        )


def test_an_id_that_is_no_call_s_is_named(calls: Path) -> None:
    done = run("purge", "calls", "--call", "a", "--call", "b")
    assert done.exit_code == 1
    assert done.stdout.endswith("1 calls removed, from 1 files; 0 calls stay\n")
    assert done.stderr == "--call b: there is no such call in these recordings\n"


# -- what is asked


def test_a_field_of_the_policy_is_given_once(calls: Path) -> None:
    done = run("what-if", "calls", "--policy", "max_thoughts=1", "--policy", "max-thoughts=2")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == "--policy max-thoughts=2: Policy.max_thoughts is given twice\n"


@pytest.mark.parametrize("price", ["-1", "1e300"])
def test_prices_are_amounts_of_money(calls: Path, price: str) -> None:
    Path("prices").write_text(f'{{"*": {{"input": {price}, "output": 1}}}}')
    for command in (["report", "calls"], ["what-if", "calls", "--policy", "max_thoughts=1"]):
        done = run(*command, "--prices", "prices")
        assert (done.exit_code, done.stdout) == (2, "")
        assert done.stderr.startswith("--prices prices: it must hold")


def test_no_policy_is_best_where_nobody_knows_what_any_gains(calls: Path) -> None:
    done = run("what-if", "calls", "--sweep")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == (
        "no model's first item was recorded, so nobody knows what a policy gains; --latency 0.8 says how late to "
        "assume it\n"
    )
    assert "It gains most" in run("what-if", "calls", "--sweep", "--latency", "0.8").stdout


def test_an_arm_that_no_call_has_and_calls_that_nothing_leaves_are_said(calls: Path) -> None:
    assert "arms: no call has the label arn" in run("report", "calls", "--by", "arn").stdout
    assert "no call has the label" not in run("report", "calls", "--by", "policy").stdout
    for option in (["--where", "arm=a"], ["--since", "2099-01-01"]):
        assert run("report", "calls", *option).stdout.startswith(
            "There is no answered turn in the calls that --since and --where leave."
        )


def test_a_second_is_not_worth_any_sum(calls: Path) -> None:
    (calls / "a.jsonl").write_bytes(on_paper("a"))
    done = run("report", "calls", "--worth", "1e308")
    assert (done.exit_code, done.stderr) == (2, "--worth 1e308: it must be 0 or more, and a billion at most\n")
    assert run("report", "calls", "--worth", "1e9").stdout.startswith("It pays: ")


# -- figures, on paper


def settled(
    call: Recorded, thought: tuple[int, int], began: float, first: float | None, over: float, **more: Any
) -> None:
    """The note on a thought (turn, number) that was finished then, or cancelled where it has no usage."""
    ends = {"cancelled_at" if more else "finished": over}
    said = {"thought": thought[1], "outcome": "adopted", "began": began, "first_item": first, **ends}
    call.note(over, "settled", thought[0], settled=said | ({"usage": more} if more else {}))


def on_paper(name: str, arm: str = "a", customer: str = "c") -> bytes:
    """Three turns.

    1: thought at 1.5, end at 2.0, item at 2.3. gap = head start = 0.5, L = 0.8, saved 0.5; item 0.3 after the end.
    2: thought at 6 and cut at 6.2 (resumed); thought at 7 with an item at 7.3, cut at the end at 7.4 (mismatched);
       thought at the end, item at 8.0. L = 0.6, saved 0; item 0.6 after the end. Interrupted while audible.
    3: thought at 9.5, item at 9.7, end at 10 with other letters. gap = 0.5, L = 0.2, saved 0.2; item at the end."""
    call = Recorded(call=name, labels={"arm": arm, "customer": customer})
    call.at(0, TurnStart()).at(1, TurnUpdate("a table")).at(1.5, TurnEagerEnd("a table")).at(2, TurnEnd("a table"))
    settled(call, (1, 1), 1.5, 2.3, 3.0)
    call.note(2.3, "replied", 1, replied={"first_item": 2.3}).at(2.4, ReplyStarted(1)).at(4, ReplyDone(1))
    call.at(5, TurnStart()).at(5.5, TurnUpdate("and")).at(6, TurnEagerEnd("and")).at(6.2, TurnResume())
    call.at(6.5, TurnUpdate("and a cab")).at(7, TurnEagerEnd("and a cab")).at(7.4, TurnEnd("and a cab please"))
    settled(call, (2, 1), 6, None, 6.2, input_tokens=10, cost=0.001)
    settled(call, (2, 2), 7, 7.3, 7.4, input_tokens=10, output_tokens=5, cost=0.002)
    settled(call, (2, 3), 7.4, 8.0, 8.5)
    call.note(8.0, "replied", 2, replied={"first_item": 8.0}).at(8.1, ReplyStarted(2))
    call.at(9, TurnStart()).at(9.2, TurnUpdate("no wait")).at(9.5, TurnEagerEnd("no wait")).at(10, TurnEnd("No, wait!"))
    settled(call, (3, 1), 9.5, 9.7, 11)
    call.note(10, "replied", 3, replied={"first_item": 10.0}).at(10.0, ReplyStarted(3)).at(11, ReplyDone(3))
    return b"".join(call.lines)


def test_figures_on_paper(calls: Path) -> None:
    """Nearest rank of three values: p50 is the second, p90 and p99 are the third."""
    (calls / "a.jsonl").write_bytes(on_paper("a"))
    figures = json.loads(run("report", "calls", "--json").stdout)
    counts = {"turns": 3, "eager_ends": 4, "resumes": 1, "thoughts": 5, "adopted": 3, "unused": 2, "adopted_inexact": 1}
    assert {name: figures[name] for name in counts} == counts
    assert figures["cancelled"] == {"mismatched": 1, "resumed": 1}
    assert figures["turns_ahead"] == 2 / 3
    assert figures["hit_rate"] == 2 / 4
    assert figures["waste_ratio"] == 2 / 5
    assert figures["extra_calls_per_turn"] == 2 / 3
    assert figures["usage_known"] == 2 / 5
    assert (figures["wasted_tokens"], figures["wasted_cost"]) == (25, 0.003)
    assert (figures["interrupts"], figures["peak_calls"], figures["false_end_rate"]) == (1, 1, 0.0)
    times = {  # sorted: the second, the third
        "gap": (0.5, 0.5),  # 0.5 0.5
        "head_start": (0.5, 0.5),  # 0 0.5 0.5
        "first_item": (0.6, 0.8),  # 0.2 0.6 0.8
        "saved": (0.2, 0.5),  # 0 0.2 0.5
        "saved_ahead": (0.2, 0.5),  # 0.2 0.5
        "end_to_first_item": (0.3, 0.6),  # 0 0.3 0.6
        "end_to_first_item_without": (0.6, 0.8),  # 0.2 0.6 0.8
        "end_to_first_sound": (0.4, 0.7),  # 0 0.4 0.7
    }
    for name, (p50, rest) in times.items():
        assert figures[name] == {
            of: pytest.approx(value, rel=0.005) for of, value in zip(SHOWN, (p50, rest, rest), strict=True)
        }
    assert figures["answer"] == (
        "Thinking ahead made replies begin 0.20 s earlier (p50; p90 0.50 s) in 67 % of 3 turns, for 0.67 more model "
        "calls a turn ($1.00 in 1,000 turns)."
    )


def test_where_time_runs_backwards_nothing_is_known(calls: Path) -> None:
    """The figures would be 0 otherwise, as if thinking ahead gained nothing."""
    data = re.sub(rb'("t"|"began"|"first_item"|"finished"|"cancelled_at"):([0-9])', rb"\1:-\2", on_paper("a"))
    (calls / "a.jsonl").write_bytes(data)
    done = run("report", "calls")
    assert done.stdout.startswith("Thoughts began ahead in 67 % of 3 turns")
    figures = json.loads(run("report", "calls", "--json").stdout)
    for name in ("gap", "first_item", "saved", "end_to_first_item", "end_to_first_sound"):
        assert figures[name] is None or figures[name]["p99"] == 0.0
    assert (figures["gap"], figures["first_item"], figures["saved"]) == (None, None, None)
    assert run("what-if", "calls", "--sweep").stderr.startswith("no model's first item was recorded")


def test_calls_that_belong_together_are_no_certainty(calls: Path) -> None:
    """All draws of one group are the same: an interval without width would say that arms differ by more than chance."""
    for n in range(8):
        arm = "ab"[n % 2]
        data = on_paper(f"call {n}", arm, "c") if n % 2 else renamed(lines(f"call {n}"), labels={"arm": arm})
        (calls / f"{n}.jsonl").write_bytes(data)
    (calls / "a.jsonl").unlink()
    apart = run("report", "calls", "--by", "arm", "--primary", "extra_calls_per_turn").stdout
    assert "more than chance" in apart
    for n in range(0, 8, 2):
        (calls / f"{n}.jsonl").write_bytes(renamed(lines(f"call {n}"), labels={"arm": "a", "customer": "c"}))
    together = run("report", "calls", "--by", "arm", "--cluster", "customer", "--worth", "0.001").stdout
    assert "chance" not in together
    assert "95 %" not in together.splitlines()[0]
    assert "an interval needs two calls that do not belong together (the same id, or the same --cluster)" in together


# -- what is shown


def test_a_label_neither_reorders_nor_controls_the_page(calls: Path) -> None:
    (calls / "a.jsonl").write_bytes(renamed(on_paper("a"), labels={"arm": "\u202e\x1b[31m\0<b>"}))
    run("report", "calls", "--by", "arm", "--html", "page.html")
    page = Path("page.html").read_text("utf-8")
    assert "\ufffd\ufffd[31m\ufffd&lt;b&gt;" in page
    assert not set("\u202e\x1b\0") & set(page)


# -- the same policy


def test_the_recorded_policy_comes_to_what_was_recorded(tmp_path: Path) -> None:
    """In virtual time no task is late, so that each figure is the same, but for what depends on the user."""
    for seed in range(3):
        data = recorded(seed, Policy(think_after=0.1), independent("a"))
        (tmp_path / f"{seed}.jsonl").write_bytes(b"".join(data))
    done = json.loads(run("what-if", tmp_path, "--policy", "think_after=0.1", "--json").stdout)
    was, other, grades = done["recorded"], done["other"], done["grades"]
    different = {name for name in grades if was[name] != other[name]}
    assert different <= {name for name, grade in grades.items() if grade == "not known"}
