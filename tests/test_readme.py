"""Every block of every README is run, or compared with what it shows. CI runs the top README's two commands besides,
and tests/integrations the blocks that need a framework; test_recipes.py runs what the recipes define."""

import contextlib
import importlib.metadata
import importlib.util
import io
import re
import shlex
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import attrs
import pytest
import typer.main
from rich.console import Console

import inkturns
from inkturns import Agent, Policy, Turns
from inkturns.cli.main import app, main
from inkturns.demo.call import SETTINGS, SimulatedCall, conversation
from inkturns.demo.view import View
from inkturns.recording import Recorder
from inkturns.replay import replay
from inkturns.testing.emulator import Script
from inkturns.testing.virtual_time import run
from tests.readmes import BLOCKS, FRAMEWORKS, ROOT, Block, name_of, names_of, pages, table_under

TOP = (ROOT / "README.md").read_text("utf-8")


def cases(*languages: str) -> list[Any]:
    found = [block for block in BLOCKS if block.language in languages]
    return [pytest.param(block, id=f"{block.page}-{block.heading}-{i}") for i, block in enumerate(found)]


# -- the blocks


@pytest.mark.parametrize("block", [one for one in cases("python") if not FRAMEWORKS.search(one.values[0].code)])
def test_python_runs_and_prints_what_is_shown(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        names_of(block)
    assert out.getvalue() == (block.shown or "")


def commands(block: Block) -> Iterator[list[str]]:
    for line in block.code.splitlines():
        for command in line.split("&&"):
            words = shlex.split(command, comments=True)
            if words:
                yield [words[0].removeprefix(".venv/bin/"), *words[1:]]


@pytest.mark.parametrize("block", cases("bash"))
def test_commands_exist_and_so_do_their_options(block: Block) -> None:
    """Whatever `inkturns` is given is parsed; other programs are known ones."""
    for program, *words in commands(block):
        if program != "inkturns":
            assert program in {"git", "pip", "pytest", "python", "python3"}
            continue
        group = typer.main.get_command(app)
        name, command, rest = group.resolve_command(group.make_context("inkturns", list(words)), words)  # type: ignore[attr-defined]
        command.make_context(name, [word for word in rest if word != "--help"])


def test_json_is_a_recording_or_a_script() -> None:
    for block in BLOCKS:
        lines = block.code.splitlines()
        if block.language != "json":
            continue
        if '"inkturns"' in lines[0]:
            assert [one.differs for one in replay(lines)] == [None] * (len(lines) - 1), block.page
        else:
            assert list(Script.from_lines(lines).frames()), block.page


def test_text_is_what_something_prints() -> None:
    """A text block follows the block that prints it: Python, whose output is compared above, or a command, below."""
    assert [(block.page, block.heading) for block in BLOCKS if block.language == "text"] == []
    assert {block.language for block in BLOCKS if block.shown is not None} <= {"python", "bash"}


def test_no_block_is_of_another_kind() -> None:
    assert {block.language for block in BLOCKS} <= {"bash", "json", "mermaid", "python"}


@pytest.mark.parametrize("block", [one for one in cases("bash") if one.values[0].shown])
def test_a_command_prints_what_is_shown(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last one of a block, 120 columns wide. The demo's call is made in virtual time: on a socket its times are
    some milliseconds later."""
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(ROOT)
    given = list(commands(block))
    if given[0] == ["inkturns", "demo", "--record", "demo.jsonl"]:
        monkeypatch.chdir(tmp_path)
        call = SimulatedCall(View(Console(file=io.StringIO()), ""), recorder=Recorder("demo.jsonl"))

        async def go() -> None:
            call.begin()
            await call.agent.run(conversation().play(SETTINGS))

        run(go)
        given = given[1:]
    for words in given:
        capsys.readouterr()
        monkeypatch.setattr("sys.argv", words)
        with contextlib.suppress(SystemExit):
            main()
    out = "\n".join(line.rstrip() for line in capsys.readouterr().out.splitlines())
    assert block.shown
    assert block.shown.rstrip("\n") in out


def test_the_picture_is_the_diagram() -> None:
    drawn = [(block.page, block.code) for block in BLOCKS if block.language == "mermaid"]
    assert drawn == [("README.md", (ROOT / "diagrams/turns.mmd").read_text())]


# -- the top README


def test_it_is_read_in_five_minutes() -> None:
    assert len(TOP.splitlines()) <= 260


def test_the_hooks_are_those_that_there_are() -> None:
    rows = [re.fullmatch(r"`(on_\w+)\((.*)\)`", hook) for hook, *_ in table_under("Hooks")]
    named = [row[1] for row in rows if row]
    assert len(named) == len(rows)
    assert sorted(named) == sorted(name for name in dir(Agent) if name.startswith("on_"))
    of_agent = {name for name, (_, when) in zip(named, table_under("Hooks"), strict=True) if "(`Agent`" in when}
    assert of_agent == {name for name in named if not hasattr(Turns, name)}


def test_the_policy_is_the_one_that_there_is() -> None:
    """Each field with its default: an enum's member and a function by their names."""
    given = {field.strip("`"): default.strip("`") for field, default, _ in table_under("Policy")}
    values = {field.name: getattr(Policy(), field.name) for field in attrs.fields(Policy)}
    assert given == {name: shown(value) for name, value in values.items()}


def shown(value: object) -> str:
    return value.name if isinstance(value, Enum) else str(getattr(value, "__name__", value))


def test_every_link_leads_somewhere() -> None:
    for page in pages():
        text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            if "://" in link:
                continue
            path, _, anchor = link.partition("#")
            to = (page.parent / path).resolve() if path else page
            assert to.exists(), f"{name_of(page)}: {link}"
            if anchor:
                heads = re.findall(r"^#+ (.+)$", to.read_text("utf-8"), re.MULTILINE)
                anchors = {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
                assert anchor in anchors, f"{name_of(page)}: {link}"


def test_every_extra_that_is_named_exists() -> None:
    extras = set(importlib.metadata.metadata("inkturns").get_all("Provides-Extra") or ())
    for page in pages():
        for given in re.findall(r"(?:inkturns|\.)\[([\w,]+)\]", page.read_text("utf-8")):
            assert set(given.split(",")) <= extras, f"{name_of(page)}: {given}"


# -- the other pages


def test_the_figures_are_those_that_are_measured() -> None:
    path = ROOT / "tests/benchmarks/conftest.py"
    spec = importlib.util.spec_from_file_location("figures_of_the_benchmarks", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def said(value: float | None, unit: str) -> str:
        return "" if value is None else f"{value:g} {unit}".rstrip()

    figures = [
        [name, figure.what, said(figure.bar, figure.unit), said(figure.aim, figure.unit)]
        for name, figure in module.FIGURES.items()
    ]
    assert [row[:4] for row in table_under("Figures", "tests/benchmarks/README.md")] == figures


PACKAGE = Path(inkturns.__file__).parent  # the wheel's, where there is no other
FAILURES = table_under("Failures", "tests/README.md")


def texts() -> Iterator[tuple[str, str]]:
    """Each file that somebody wrote, by its name; but for this one, which names what must not be there."""
    found = {ROOT / name for name in ("README.md", "CHANGELOG.md", "pyproject.toml", ".ci/run")}
    for room in (PACKAGE, ROOT / "tests", ROOT / "diagrams"):
        found |= {path for kind in ("py", "md", "mmd", "txt") for path in room.rglob(f"*.{kind}")}
    for path in sorted(found - {Path(__file__)}):
        if path.exists():  # the wheel's tests have no .ci
            yield path.name, path.read_text("utf-8")


def test_each_failure_that_is_cited_has_its_line() -> None:
    numbers = [row[0] for row in FAILURES]
    assert numbers == [f"F{number:02}" for number in range(1, len(numbers) + 1)]
    for name, text in texts():
        assert set(re.findall(r"\bF\d\d\b", text)) <= set(numbers), name
        assert {f"F{number}" for number in re.findall(r"def test_f(\d\d)_", text)} <= set(numbers), name


def test_each_failure_has_its_test() -> None:
    """Or its line says with what it comes."""
    there = {test for _, text in texts() for test in re.findall(r"def (test_f\d\d_\w+)", text)}
    for number, happened, kept, proof in FAILURES:
        assert happened
        assert kept
        tests = re.findall(r"`(\w+)`", proof)
        assert tests or proof.startswith("comes with "), number
        for test in tests:
            assert test.startswith(f"test_{number.lower()}_"), number
            assert test in there, number


def test_nothing_refers_to_a_document_that_is_not_here() -> None:
    for name, text in texts():
        for document in re.findall(r"[\w./-]*\w\.md\b", text):
            rooms = ("", "inkturns", "inkturns/testing", "tests", "tests/benchmarks")
            assert any((ROOT / room / document.lstrip("/")).exists() for room in rooms), (name, document)
        assert not re.search(r"\bthe (design|specification)\b", text, re.IGNORECASE), name
