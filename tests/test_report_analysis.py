"""Recordings to one Fleet: processes, any split, lost workers, hostile files. A dask cluster is in
integrations/test_fleet.py."""

import gzip
import json
import os
import signal
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from inkturns.errors import RecordingError
from inkturns.redact import hashed
from inkturns.report import Fleet, Hearing, Price, Question, TurnRow, analyse
from inkturns.report.analysis import HELD, row_lines
from inkturns.report.paths import UnreadError
from tests.recorded import Recorded, answered, eventful
from tests.test_report_rows import ABOUT, CALL, ROWS, recorded


def call(name: str, **about: Any) -> bytes:
    return b"".join(answered(Recorded(call=name, **about)).lines)


class Heard:
    """Everything that is told."""

    def __init__(self) -> None:
        self.unread: list[str] = []
        self.faults: list[str] = []
        self.rows: list[bytes] = []
        self.progress: list[tuple[int, int]] = []

    @property
    def hearing(self) -> Hearing:
        return Hearing(
            unread=lambda error: self.unread.append(str(error)),
            fault=lambda name, error: self.faults.append(f"{Path(name).name}: {error}"),
            rows=self.rows.append,
            progress=lambda done, of: self.progress.append((done, of)),
        )


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    """Ten recordings: seven of one call, one of three in gzip, two that cannot be read."""
    for n in range(7):
        (tmp_path / f"{n}.jsonl").write_bytes(call(f"call {n}", labels={"arm": "ab"[n % 2]}))
    (tmp_path / "7.jsonl.gz").write_bytes(gzip.compress(call("x") + call("y") + call("z")))
    (tmp_path / "8.jsonl.gz").write_bytes(gzip.compress(call("cut"))[:-12])
    (tmp_path / "9.jsonl").mkdir()
    return tmp_path


PATHS = [f"{n}.jsonl" for n in range(7)] + ["7.jsonl.gz", "8.jsonl.gz", "nowhere.jsonl"]


def test_each_call_is_counted_once_and_what_is_unread_is_named_and_counted(calls: Path) -> None:
    heard = Heard()
    fleet = analyse([calls / name for name in PATHS], hearing=heard.hearing)
    assert fleet.figures()["calls"] == fleet.figures()["turns"] == 10
    assert fleet.unread == 2
    assert heard.unread == [f"{calls}/nowhere.jsonl: no such file or directory", f"{calls}/8.jsonl.gz: cut short"]
    assert heard.progress == [(n, 9) for n in range(1, 10)]


def test_on_processes_threads_and_none_the_numbers_are_the_same(calls: Path) -> None:
    paths = [str(calls / name) for name in PATHS]
    alone, heard = Heard(), Heard()
    expected = analyse(paths, jobs=1, hearing=alone.hearing)
    assert analyse(paths, jobs=2, hearing=heard.hearing) == expected
    assert (heard.unread, b"".join(heard.rows)) == (alone.unread, b"".join(alone.rows))
    with ThreadPoolExecutor(3) as threads:
        assert analyse(paths, threads) == expected
    halves = analyse(paths[:4]) + analyse(paths[4:])
    assert halves == expected
    assert msgspec.json.encode([halves.figures(), halves.intervals()]) == msgspec.json.encode(
        [expected.figures(), expected.intervals()]
    )


class Deadly(str):
    """A path whose reader is killed, as the kernel does where memory runs out."""

    def __reduce__(self) -> Any:
        return _killed, ()


def _killed() -> str:
    os.kill(os.getpid(), signal.SIGKILL)
    return ""


def test_a_process_that_is_lost_costs_its_recording_and_no_other(calls: Path) -> None:
    heard = Heard()
    paths = [Deadly(calls / name) if name == "3.jsonl" else str(calls / name) for name in PATHS]
    fleet = analyse(paths, jobs=2, hearing=heard.hearing)
    assert fleet.figures()["calls"] == 9
    assert fleet.unread == 3
    assert sum("3.jsonl: the process that read it was lost: BrokenProcessPool" in said for said in heard.unread) == 1


class Lossy(Executor):
    """A cluster that loses a task and then refuses one."""

    def __init__(self) -> None:
        self.taken = 0

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.taken += 1
        if self.taken == 2:
            raise RuntimeError("no worker is left")
        done: Future[Any] = Future()
        if self.taken == 1:
            done.set_exception(KeyError())
        else:
            done.set_result(function(*args, **kwargs))
        return done


def test_what_an_executor_loses_is_unread_and_the_rest_is_counted(calls: Path) -> None:
    heard = Heard()
    fleet = analyse([str(calls / name) for name in PATHS[:5]], Lossy(), hearing=heard.hearing)
    assert fleet.figures()["calls"] == 3
    assert heard.unread == [
        f"{calls}/0.jsonl: the process that read it was lost: KeyError",
        f"{calls}/1.jsonl: the process that read it was lost: RuntimeError: no worker is left",
    ]
    assert fleet.unread == 2


def test_there_is_at_least_one_process() -> None:
    with pytest.raises(ValueError, match=r"^jobs must be 1 or more, got 0$"):
        analyse([], jobs=0)


def test_of_nothing_there_is_an_empty_fleet() -> None:
    assert analyse([]) == analyse([], jobs=3) == Fleet()


def test_many_megabytes_are_read_by_processes(calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sparse file is large and quickly read: it is one fault, a line of zeros."""
    with (calls / "big.jsonl").open("wb") as file:
        file.write(call("first"))
        file.truncate(9_000_000)
    heard = Heard()
    fleet = analyse([str(calls / "0.jsonl"), str(calls / "big.jsonl")], hearing=heard.hearing)
    assert fleet.figures()["calls"] == 2
    assert fleet.faults == 1


def test_the_calls_of_a_long_recording_are_summed_up_meanwhile(tmp_path: Path) -> None:
    one = b"".join(recorded(CALL, **ABOUT))
    (tmp_path / "long.jsonl").write_bytes(one * (HELD + 1))
    fleet = analyse([tmp_path / "long.jsonl"])
    assert fleet.figures()["calls"] == HELD + 1
    assert fleet.figures()["turns"] == 3 * (HELD + 1)
    (tmp_path / "long.jsonl.gz").write_bytes(gzip.compress(one * (HELD + 1))[:-9])
    assert analyse([tmp_path / "long.jsonl.gz"]).figures()["calls"] == 0  # cut short: none of it counts


# -- hostile recordings


def hostile() -> dict[str, bytes]:
    good = call("good")
    lines = good.splitlines(keepends=True)
    nan = good.replace(b'"t":100.5', b'"t":NaN')
    return {
        "truncated": good[:-30],
        "two calls, the first one cut": good[:-30] + b"\n" + call("second"),
        "two calls": good + call("second"),
        "another format": good.replace(b'{"inkturns":1', b'{"inkturns":9'),
        "another version": good.replace(b'"version":"0.1.0"', b'"version":"99"'),
        "hours of NaN": nan + nan.splitlines(keepends=True)[2] * 5000,
        "Infinity": good.replace(b'"t":100.5', b'"t":1e999'),
        "ten megabytes in a line": good + b'{"t":1,"frame":"' + b"x" * 10_000_000 + b'"}\n',
        "a deep line": good + b"[" * 100_000 + b"\n",
        "bare frames": b'{"type":"turn.start"}\n{"type":"turn.end","transcript":"hi"}\n',
        "bare frames, then a recording": b'{"type":"turn.start"}\n' + good,
        "no UTF-8": good + b'{"t":1,"frame":"\xff"}\n',
        "another's JSON": b'{"a": [1, 2, {"b": null}]}\n' * 3,
        "a picture": bytes(range(256)) * 40,
        "nothing": b"",
        "half a header": lines[0][:40],
        "no actions": b"".join(Recorded(out=False).at(0, *()).lines) + b"",
        "a wrong policy": good.replace(b'"max_thoughts":3', b'"max_thoughts":"3"').replace(b',"out":[', b',"no":['),
        "CRLF": good.replace(b"\n", b"\r\n"),
        "UTF-16": good.decode().encode("utf-16"),
    }


WHOLE = {  # how many calls are counted of each, and how many lines are faults
    "truncated": (0, 0),  # the line that is cut is the end of its turn
    "two calls, the first one cut": (1, 0),
    "two calls": (2, 0),
    "another format": (0, 1),
    "another version": (1, 0),
    "hours of NaN": (1, 5001),
    "Infinity": (1, 1),
    "ten megabytes in a line": (1, 0),
    "a deep line": (1, 1),
    "bare frames": (1, 0),
    "bare frames, then a recording": (1, 0),
    "no UTF-8": (1, 1),
    "nothing": (0, 0),
    "half a header": (0, 0),
    "CRLF": (1, 0),
}


@pytest.mark.parametrize("what", hostile())
def test_a_hostile_recording_raises_nothing_and_is_counted(tmp_path: Path, what: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(hostile()[what])
    (tmp_path / "b.jsonl").write_bytes(call("b"))
    heard = Heard()
    fleet = analyse([tmp_path], hearing=heard.hearing)
    json.dumps([fleet.figures(), fleet.intervals()])
    assert fleet.unread == 0
    assert len(heard.faults) <= 10
    if what in WHOLE:
        assert (fleet.figures()["calls"] - 1, fleet.faults) == WHOLE[what]


def test_of_a_redacted_recording_the_figures_are_the_same(tmp_path: Path) -> None:
    for redact in (False, True):
        (tmp_path / f"{redact}.jsonl").write_bytes(b"".join(recorded(CALL, redact=redact, **ABOUT)))
    plain, redacted = (analyse([tmp_path / f"{redact}.jsonl"]) for redact in (False, True))
    assert plain.figures() == redacted.figures()
    assert plain.intervals() == redacted.intervals()


# -- what is asked


def test_only_calls_with_these_labels_count(calls: Path) -> None:
    assert analyse([calls / "*.jsonl"], question=Question(where={"arm": "a"})).figures()["calls"] == 4
    assert analyse([calls / "*.jsonl"], question=Question(where={"arm": "a", "x": "y"})).figures()["calls"] == 0


def test_only_calls_since_a_moment_count_and_those_without_one_are_said(tmp_path: Path) -> None:
    starts = ["2026-01-01", "2026-01-02T03:00:00+02:00", "2026-01-02T01:00:00", 1_767_315_600.0, "yesterday", 1e300]
    for n, started in enumerate(starts):
        (tmp_path / f"{n}.jsonl").write_bytes(call(f"{n}", started=started))
    fleet = analyse([tmp_path], question=Question(since=datetime(2026, 1, 2, 1, tzinfo=UTC)))
    assert fleet.figures()["calls"] == 3  # the second to the fourth: the same moment
    assert fleet.left_out == 2


def test_a_call_without_a_beginning_is_left_out() -> None:
    question = Question(since=datetime(2026, 1, 1, tzinfo=UTC))
    assert question.of([TurnRow(number=1, end="server", answered=True, length=1)]) == ([], 1)


def test_ids_are_hashed_where_that_is_asked(calls: Path) -> None:
    heard = Heard()
    fleet = analyse([calls / "0.jsonl"], question=Question(hash_calls=True), hearing=heard.hearing)
    (row,) = (json.loads(line) for line in heard.rows)
    assert row["call"] == hashed("call 0") == hashed("call 0")
    assert len(row["call"]) == 32
    assert hashed("call 0", "salt") != hashed("call 0")
    assert "call 0" not in repr(fleet)


def test_rows_are_written_with_all_their_fields_and_the_file() -> None:
    (line,) = row_lines(ROWS[:1], "a.jsonl").splitlines()
    values = json.loads(line)
    assert list(values) == ["file", *TurnRow.__struct_fields__]
    assert values["file"] == "a.jsonl"
    assert values["thoughts"][1]["model"] == "gpt"
    assert values["end_to_first_item"] == 0.0


def test_latency_is_assumed_where_none_was_measured(tmp_path: Path) -> None:
    """The thought of a watcher began 0.5 s before the end: with a first item after 0.8 s it would save 0.5 s, after
    0.2 s it would save 0.2 s. What an Agent measured stays."""
    (tmp_path / "a.jsonl").write_bytes(call("a"))
    measured = analyse([tmp_path], question=Question(latency=(0.8,))).figures()
    assert measured["saved"]["p50"] == pytest.approx(0.5, rel=0.01)
    assert measured["first_item"]["p50"] == pytest.approx(0.8, rel=0.01)
    shorter = analyse([tmp_path], question=Question(latency=(0.2,))).figures()
    assert shorter["saved"]["p50"] == pytest.approx(0.2, rel=0.01)
    (rows, _) = Question(latency=(9.0,)).of(ROWS)
    assert rows == ROWS


def test_each_sample_of_a_latency_is_drawn_and_the_same_again() -> None:
    watched = [TurnRow(number=n, end="server", answered=True, length=1, head_start=9.0) for n in range(200)]
    (rows, _) = Question(latency=(1.0, 2.0)).of(watched)
    assert {row.saved for row in rows} == {1.0, 2.0}
    assert Question(latency=(1.0, 2.0)).of(watched) == (rows, 0)


def test_prices_fill_in_what_unused_thoughts_cost() -> None:
    """Of turn 4 the first thought told 55 + 5 tokens and its cost; without the cost it is 55 x 2 + 5 x 10 = 160
    millionths. The second told nothing, and no item came: 0 output, and the input of the adopted one, had that told."""
    rows = [msgspec.structs.replace(ROWS[3], thoughts=tuple(_free(one) for one in ROWS[3].thoughts))]
    rows[0] = msgspec.structs.replace(
        rows[0],
        thoughts=(*rows[0].thoughts[:2], msgspec.structs.replace(rows[0].thoughts[2], usage=True, tokens=40)),
    )
    (found, _) = Question(prices={"*": Price(2.0, 10.0)}).of(rows)
    assert [one.cost for one in found[0].thoughts] == [pytest.approx(cost) for cost in (160e-6, 80e-6, 80e-6)]
    assert Question(prices={"gpt": Price(1.0, 1.0)}).of(rows) == (rows, 0)  # a model without a price
    (told, _) = Question(prices={"*": Price(2.0, 10.0)}).of(ROWS)
    assert told[0] == ROWS[0]  # what was told stays


def test_without_a_price_a_thought_costs_what_the_adopted_one_did() -> None:
    adopted = msgspec.structs.replace(ROWS[3].thoughts[2], usage=True, tokens=40, cost=0.5)
    row = msgspec.structs.replace(ROWS[3], thoughts=(*ROWS[3].thoughts[:2], adopted))
    (found, _) = Question(prices={"gpt": Price(1.0, 1.0)}).of([row])
    assert [one.cost for one in found[0].thoughts] == [0.0005, 0.5, 0.5]


def _free(thought: Any) -> Any:
    return msgspec.structs.replace(thought, cost=0.0)


def test_worst_calls_are_kept_with_file_and_turn(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"".join(recorded(CALL, **ABOUT)))
    (tmp_path / "b.jsonl").write_bytes(b"".join(eventful().lines))
    worst = analyse([tmp_path]).worst()
    (latency, *_) = worst["latency"]
    assert (latency.low, Path(latency.file).name, latency.begins, latency.turn, latency.call) == (
        *(-0.5, "a.jsonl", 1, 2, "7f"),  # turn 2: 0.5 s to the first sound
    )
    assert [(-one.low, Path(one.file).name, one.turn) for one in worst["waste"]] == [
        (3.0, "a.jsonl", 4),  # 1 + 0 + 0 + 2
        (2.0, "b.jsonl", 1),  # one was cancelled by a resume, one failed
    ]
    assert [(-one.low, Path(one.file).name, one.turn) for one in worst["reports"]] == [
        (1.0, "a.jsonl", 4),
        (1.0, "b.jsonl", 3),
    ]


def test_errors_are_those_of_a_recording() -> None:
    assert issubclass(RecordingError, Exception)
    assert str(UnreadError("a", "b")) == "a: b"
