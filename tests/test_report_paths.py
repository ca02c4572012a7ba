"""Paths to recordings: files, directories, patterns, standard input, gzip; a fault is named, and the rest is read. URLs
are in integrations/test_fleet.py."""

import gzip
import io
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from inkturns.errors import RecordingError
from inkturns.report.paths import UnreadError, calls_in, find, lines_of
from tests.recorded import Recorded, answered, no_fault


def lines(name: str = "a") -> bytes:
    return b"".join(answered(Recorded(call=name)).lines)


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with three recordings, two of them deeper, and a file that is none."""
    monkeypatch.chdir(tmp_path)
    deep = tmp_path / "calls" / "2026" / "01"
    deep.mkdir(parents=True)
    (tmp_path / "calls" / "b.jsonl").write_bytes(lines("b"))
    (deep / "a.jsonl").write_bytes(lines("a"))
    (deep / "z.jsonl.gz").write_bytes(gzip.compress(lines("z")))
    (deep / "a.html").write_text("<p>a picture")
    return tmp_path


def test_a_directory_is_its_recordings_however_deep(calls: Path) -> None:
    found = find(["calls"])
    assert found.names == ["calls/b.jsonl", "calls/2026/01/a.jsonl", "calls/2026/01/z.jsonl.gz"]
    assert found.unread == []


def test_a_pattern_is_the_files_that_match_and_the_recordings_of_directories(calls: Path) -> None:
    assert find(["calls/*.jsonl"]).names == ["calls/b.jsonl"]
    assert find(["calls/**/a.*"]).names == ["calls/2026/01/a.html", "calls/2026/01/a.jsonl"]
    assert find(["calls/20*"]).names == ["calls/2026/01/a.jsonl", "calls/2026/01/z.jsonl.gz"]


def test_a_file_that_is_named_twice_is_read_once(calls: Path) -> None:
    assert find(["calls/b.jsonl", str(calls / "calls" / "b.jsonl"), "./calls/*.jsonl", "-", "-"]).names[1:] == ["-"]


def test_a_name_with_a_bracket_is_a_file_before_it_is_a_pattern(calls: Path) -> None:
    (calls / "call[1].jsonl").write_bytes(lines())
    (calls / "call1.jsonl").write_bytes(lines())
    assert find(["call[1].jsonl"]).names == ["call[1].jsonl"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("nowhere.jsonl", "no such file or directory"),
        ("calls/*.json", "no file matches this"),
        ("empty", "no recordings in it; their names end in .jsonl or .jsonl.gz or .ndjson or .ndjson.gz"),
    ],
)
def test_what_is_not_found_is_named_and_the_rest_is_found(calls: Path, path: str, reason: str) -> None:
    (calls / "empty").mkdir()
    found = find([path, "calls/b.jsonl"])
    assert found.names == ["calls/b.jsonl"]
    assert [str(error) for error in found.unread] == [f"{path}: {reason}"]


def test_a_pattern_passes_over_a_directory_without_recordings(calls: Path) -> None:
    (calls / "calls" / "0").mkdir()
    found = find(["calls/*"])
    assert found.names == ["calls/2026/01/a.jsonl", "calls/2026/01/z.jsonl.gz", "calls/b.jsonl"]
    assert [error.name for error in found.unread] == ["calls/0"]


def test_a_directory_that_cannot_be_read_is_named(calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel refuses root nothing, so the refusal comes from the call that would raise it."""
    listed = os.scandir

    def scandir(path: str) -> Any:
        if str(path).endswith("01"):
            raise PermissionError(13, "Permission denied", path)
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = find(["calls", "calls/2026"])
    assert found.names == ["calls/b.jsonl"]
    assert [str(error) for error in found.unread] == ["calls/2026/01: Permission denied"] * 2


def test_a_pipe_is_read(calls: Path) -> None:
    os.mkfifo("pipe")
    assert find(["pipe"]).names == ["pipe"]
    writer = subprocess.Popen(["cp", "calls/b.jsonl", "pipe"])
    assert b"".join(lines_of("pipe")) == lines("b")
    assert writer.wait() == 0


@pytest.mark.parametrize("name", ["calls/2026/01/z.jsonl.gz", "renamed.jsonl"])
def test_gzip_is_known_by_what_it_holds(calls: Path, name: str) -> None:
    (calls / "renamed.jsonl").write_bytes(gzip.compress(lines("z")))
    (call,) = calls_in(name, no_fault)
    assert call.name == "z"


def test_standard_input_may_be_gzip(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdin:
        buffer = io.BufferedReader(io.BytesIO(gzip.compress(lines("s"))))

    monkeypatch.setattr(sys, "stdin", Stdin)
    assert [call.name for call in calls_in("-", no_fault)] == ["s"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (gzip.compress(lines())[:-20], "cut short"),
        (b"\x1f\x8b\x09" + bytes(30), "BadGzipFile: Unknown compression method"),
        (gzip.compress(lines())[:10] + b"\xff" * 99, "error: Error -3 while decompressing data: invalid block type"),
    ],
)
def test_broken_gzip_is_unread(tmp_path: Path, data: bytes, reason: str) -> None:
    name = tmp_path / "call.jsonl.gz"
    name.write_bytes(data)
    with pytest.raises(UnreadError) as raised:
        list(calls_in(str(name), no_fault))
    assert str(raised.value) == f"{name}: {reason}"


def test_a_file_that_is_gone_is_unread() -> None:
    with pytest.raises(UnreadError, match=r"^nowhere.jsonl: No such file or directory$"):
        list(lines_of("nowhere.jsonl"))


def test_an_empty_file_has_no_calls(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    assert list(calls_in(str(tmp_path / "empty.jsonl"), no_fault)) == []


def test_a_line_that_cannot_be_read_costs_that_line(tmp_path: Path) -> None:
    faults: list[RecordingError] = []
    (tmp_path / "a.jsonl").write_bytes(lines("a") + b"no JSON\n" + lines("b"))
    assert [call.name for call in calls_in(str(tmp_path / "a.jsonl"), faults.append)] == ["a", "b"]
    assert len(faults) == 1


def test_a_url_without_fsspec_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    said = 's3://calls: a URL needs fsspec: pip install "inkturns[fleet]"'
    assert [str(error) for error in find(["s3://calls"]).unread] == [said]
    with pytest.raises(UnreadError) as raised:
        list(lines_of("s3://calls"))
    assert str(raised.value) == said


def test_what_cannot_be_read_in_a_worker_comes_back_whole() -> None:
    error = pickle.loads(pickle.dumps(UnreadError("a", "b")))
    assert (error.name, error.reason, str(error)) == ("a", "b", "a: b")
