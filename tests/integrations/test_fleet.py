"""Recordings in object stores, and on a real cluster of dask: each call is counted once, whatever is lost."""

import gzip
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from distributed import Client, LocalCluster
from fsspec.implementations.memory import MemoryFileSystem
from typer.testing import CliRunner

from inkturns.cli.main import app
from inkturns.report import Fleet, Hearing, analyse
from inkturns.report.paths import find
from tests.readmes import BLOCKS, names_of
from tests.recorded import Recorded, answered
from tests.test_report_rows import ABOUT, CALL, recorded


def call(name: str) -> bytes:
    return b"".join(answered(Recorded(call=name)).lines)


class Broken(MemoryFileSystem):  # type: ignore[misc]
    """A store that lists its files, and answers every read with an error of its own kind."""

    protocol = "broken"

    def open(self, path: str, mode: str = "rb", *more: Any, **options: Any) -> Any:
        raise RuntimeError("503 Slow Down")


@pytest.fixture
def store() -> Iterator[Any]:
    fsspec.register_implementation("broken", Broken, clobber=True)
    store = fsspec.filesystem("memory")
    store.pipe("/calls/a.jsonl", call("a"))
    store.pipe("/calls/2026/b.jsonl.gz", gzip.compress(call("b") + call("c")))
    store.pipe("/calls/2026/b.html", b"<p>a picture")
    yield store
    store.rm("/calls", recursive=True)


def test_urls_of_files_directories_and_patterns_are_read(store: Any) -> None:
    whole = find(["memory://calls"])
    assert whole.names == ["memory:///calls/2026/b.jsonl.gz", "memory:///calls/a.jsonl"]
    assert find(["memory://calls/2026/*.gz"]).names == ["memory:///calls/2026/b.jsonl.gz"]
    assert analyse(["memory://calls"], jobs=1).figures()["calls"] == 3
    assert analyse(["memory://calls/a.jsonl", "memory://calls/**/*.gz"], jobs=1).figures()["calls"] == 3


def test_what_a_store_does_not_have_or_give_is_named_and_counted(store: Any, tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_bytes(call("d"))
    said: list[str] = []
    fleet = analyse(
        ["memory://nowhere", "memory://calls/*.txt", "nothing://a", "broken://calls/a.jsonl", (tmp_path / "d.jsonl")],
        jobs=1,
        hearing=Hearing(unread=lambda error: said.append(str(error))),
    )
    assert fleet.figures()["calls"] == 1
    assert fleet.unread == 4
    assert said[:2] == [
        "memory://nowhere: no recordings there; their names end in .jsonl or .jsonl.gz or .ndjson or .ndjson.gz",
        "memory://calls/*.txt: no file matches this",
    ]
    assert said[2].startswith("nothing://a: ValueError: ")
    assert "broken://calls/a.jsonl" in said[3]


def test_a_url_of_this_machine_is_read_by_processes(tmp_path: Path) -> None:
    for n in range(4):
        (tmp_path / f"{n}.jsonl").write_bytes(call(f"{n}"))
    fleet = analyse([f"file://{tmp_path}"])  # of unknown size: read by processes
    assert fleet.figures()["calls"] == 4


# -- a cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as running:  # type: ignore[no-untyped-call]
        yield running


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    for n in range(200):
        (tmp_path / f"{n:03}.jsonl").write_bytes(call(f"call {n}") * 5)
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(call("cut"))[:-9])
    return tmp_path


def test_on_a_cluster_the_numbers_are_those_of_this_machine(cluster: Any, calls: Path) -> None:
    with Client(cluster) as client:  # type: ignore[no-untyped-call]
        fleet = analyse([calls], client.get_executor())
    assert fleet == analyse([calls], jobs=1)
    assert (fleet.figures()["calls"], fleet.unread) == (1000, 1)


def test_a_worker_that_is_killed_in_mid_run_costs_nothing_and_no_call_counts_twice(cluster: Any, calls: Path) -> None:
    killed: list[int] = []
    with Client(cluster) as client:  # type: ignore[no-untyped-call]
        workers = list(client.run(os.getpid).values())

        def kill(done: int, of: int) -> None:
            if not killed and done < of:
                killed.append(workers[0])
                os.kill(workers[0], signal.SIGKILL)

        fleet = analyse([calls], client.get_executor(), hearing=Hearing(progress=kill))
        client.wait_for_workers(2)
    assert killed
    assert fleet == analyse([calls], jobs=1)
    assert fleet != Fleet()


def test_the_command_takes_a_cluster(cluster: Any, calls: Path) -> None:
    done = CliRunner().invoke(app, ["report", str(calls), "--dask", cluster.scheduler_address, "--json"])
    assert done.exit_code == 2  # one is cut short
    values = json.loads(done.stdout)
    assert (values["calls"], values["unread"]) == (1000, 1)


def test_a_cluster_that_is_not_there_is_a_sentence(calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = CliRunner().invoke(app, ["report", str(calls), "--dask", "nonsense://nowhere"])
    assert done.exit_code == 2
    assert done.stderr.startswith("--dask nonsense://nowhere: ")


def test_the_readmes_question_to_duckdb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for n in range(4):
        labels = {"arm": "ab"[n % 2]} | ({"region": "eu"} if n else {})
        (tmp_path / f"{n}.jsonl").write_bytes(b"".join(recorded(CALL, **ABOUT | {"labels": labels})))
    assert CliRunner().invoke(app, ["report", ".", "--rows", "rows.json"]).exit_code == 0
    (block,) = (one for one in BLOCKS if "import duckdb" in one.code)
    names_of(block)
    said = [line.split("│")[1:4] for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    found = [[cell.strip() for cell in line] for line in said]
    arms = sorted(row for row in found if row[0] in ("a", "b"))
    assert arms == [["a", "6", "0.0"], ["b", "6", "0.0"]]  # three answered turns a call: 0.375, 0, 0
