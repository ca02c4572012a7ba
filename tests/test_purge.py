"""`inkturns purge`: calls are removed whole, other lines stay to the byte, a file is replaced at once or not at all."""

import gzip
import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from inkturns.cli.main import app
from inkturns.recording import Recorder
from inkturns.redact import hashed
from inkturns.report.paths import UnreadError
from inkturns.report.purge import Purged, purge_file
from inkturns.turns import Turns
from tests.recorded import Recorded, answered


def call(name: str, **about: Any) -> bytes:
    return b"".join(answered(Recorded(call=name, **about)).lines)


def purge(*args: object) -> Result:
    return CliRunner().invoke(app, ["purge", *map(str, args)], env={"COLUMNS": "120"})


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    (tmp_path / "one.jsonl").write_bytes(call("a"))
    (tmp_path / "three.jsonl").write_bytes(call("b") + call("a") + call("c"))
    (tmp_path / "packed.jsonl.gz").write_bytes(gzip.compress(call("a") + call("b")))
    (tmp_path / "bare.jsonl").write_bytes(b'{"type":"turn.start"}\n' + call("a"))
    return tmp_path


def test_the_calls_of_an_id_are_removed_whole_and_the_rest_stays_to_the_byte(calls: Path) -> None:
    (calls / "three.jsonl").chmod(0o640)
    done = purge(calls, "--call", "a")
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        f"{calls}/bare.jsonl: 1 of 1 calls removed",
        f"{calls}/one.jsonl: 1 of 1 calls removed; the file goes",
        f"{calls}/packed.jsonl.gz: 1 of 2 calls removed",
        f"{calls}/three.jsonl: 1 of 3 calls removed",
        "4 calls removed, from 4 files; 3 calls stay",
    ]
    assert (calls / "three.jsonl").read_bytes() == call("b") + call("c")
    assert stat.S_IMODE((calls / "three.jsonl").stat().st_mode) == 0o640
    assert gzip.decompress((calls / "packed.jsonl.gz").read_bytes()) == call("b")
    assert (calls / "bare.jsonl").read_bytes() == b'{"type":"turn.start"}\n'
    assert sorted(path.name for path in calls.iterdir()) == ["bare.jsonl", "packed.jsonl.gz", "three.jsonl"]
    assert purge(calls, "--call", "a").exit_code == 1  # there is none any more


def test_a_hash_of_the_id_names_the_call_too(calls: Path) -> None:
    assert "1 calls removed, from 1 files" in purge(calls / "three.jsonl", "--call", hashed("c")).stdout
    assert (calls / "three.jsonl").read_bytes() == call("b") + call("a")


def test_old_calls_are_removed_and_those_without_a_beginning_stay(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    old, new = (now - timedelta(days=31)).isoformat(), (now - timedelta(days=29)).timestamp()
    path = tmp_path / "calls.jsonl"
    path.write_bytes(call("old", started=old) + call("new", started=new) + call("?", started="once"))
    done = purge(path, "--older", "30d")
    assert (done.exit_code, done.stderr) == (0, "of 1 calls nobody knows when they began; they stay\n")
    assert path.read_bytes() == call("new", started=new) + call("?", started="once")
    assert purge(path, "--older", "2001-01-01").exit_code == 0


def test_a_dry_run_changes_nothing(calls: Path) -> None:
    before = {path: path.read_bytes() for path in calls.iterdir()}
    done = purge(calls, "--call", "a", "--call", "b", "--dry-run")
    assert "one.jsonl: 1 of 1 calls would be removed; the file goes" in done.stdout
    assert done.stdout.endswith("6 calls would be removed, from 4 files; 1 calls stay\n")
    assert {path: path.read_bytes() for path in calls.iterdir()} == before


def test_a_file_without_such_a_call_is_not_touched(calls: Path) -> None:
    before = [(path, path.stat().st_ino, path.stat().st_mtime_ns) for path in sorted(calls.iterdir())]
    assert purge(calls, "--call", "z").exit_code == 1
    assert [(path, path.stat().st_ino, path.stat().st_mtime_ns) for path in sorted(calls.iterdir())] == before


def test_a_recording_that_is_being_written_stays_and_is_named(tmp_path: Path) -> None:
    path = tmp_path / "call.jsonl"
    recorder = Recorder(path, call="a")
    turns = Turns(recorder=recorder)
    turns.feed('{"type":"turn.start"}', 1.0)
    done = purge(path, "--call", "a")
    assert done.exit_code == 2
    assert done.stderr == f"{path}: another recorder writes into this file; nothing was removed from it\n"
    turns.feed('{"type":"turn.end","transcript":"hi"}', 2.0)
    recorder.close()
    assert recorder.failed is None
    assert len(path.read_bytes().splitlines()) == 3
    assert purge(path, "--call", "a").exit_code == 0


@pytest.mark.parametrize("name", ["cut.jsonl.gz", "nowhere.jsonl", "-", "s3://calls/a.jsonl"])
def test_what_cannot_be_read_or_replaced_stays_and_is_named(tmp_path: Path, name: str) -> None:
    data = gzip.compress(call("a"))[:-9]
    (tmp_path / "cut.jsonl.gz").write_bytes(data)
    with pytest.raises(UnreadError):
        purge_file(name if name in ("-", "s3://calls/a.jsonl") else str(tmp_path / name), lambda header: True)
    assert (tmp_path / "cut.jsonl.gz").read_bytes() == data
    assert len(list(tmp_path.iterdir())) == 1  # nothing is left beside it
    done = purge(tmp_path / "cut.jsonl.gz", "nowhere", "--call", "a")
    assert done.exit_code == 2
    assert done.stderr.splitlines() == [
        "nowhere: no such file or directory",
        f"{tmp_path}/cut.jsonl.gz: cut short; nothing was removed from it",
    ]


def test_a_call_whose_header_cannot_be_read_stays_and_is_named(tmp_path: Path) -> None:
    path = tmp_path / "call.jsonl"
    torn = call("a").replace(b'"version":', b'"version"', 1)
    deep = b'{"a":' + b"[" * 100_000 + b'"inkturns"\n'
    path.write_bytes(torn + call("a") + b'{"t":1,"frame":"\\"inkturns\\""}\n' + b'["inkturns"]\n' + deep)
    done = purge(path, "--call", "a")
    assert done.exit_code == 2
    assert done.stderr == f"{path}:1: this header cannot be read, so nobody knows which call it is; it stays\n"
    assert path.read_bytes() == torn


def test_a_link_stays_a_link(calls: Path) -> None:
    (calls / "link").symlink_to(calls / "three.jsonl")
    assert purge_file(str(calls / "link"), lambda header: header["call"] == "b") == Purged(1, 2, False, ())
    assert (calls / "link").is_symlink()
    assert (calls / "three.jsonl").read_bytes() == call("a") + call("c")


def test_a_disk_that_is_full_leaves_the_file_as_it_was(calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    before = (calls / "three.jsonl").read_bytes()
    done = purge(calls / "three.jsonl", "--call", "a")
    assert done.stderr == f"{calls}/three.jsonl: No space left on device; nothing was removed from it\n"
    assert (calls / "three.jsonl").read_bytes() == before
    assert len(list(calls.iterdir())) == 4


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "give --call ID or --older WHEN, one of them"),
        (["--call", "a", "--older", "1d"], "give --call ID or --older WHEN, one of them"),
        (["--older", "long"], "--older long is no date (2026-01-31)"),
    ],
)
def test_what_is_to_be_removed_must_be_said(calls: Path, options: list[str], sentence: str) -> None:
    done = purge(calls, *options)
    assert done.exit_code == 2
    assert done.stderr.startswith(sentence)
