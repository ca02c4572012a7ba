"""The package: its public names, what its modules may import, what it ships."""

import ast
import importlib
import importlib.metadata
import inspect
import re
import subprocess
import sys
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

import inkturns

ROOT = Path(__file__).parent.parent
SOURCE = Path(inkturns.__file__).parent
CORE = (
    *("events", "wire", "settings", "actions", "policy", "table", "machine", "hooks", "history", "errors"),
    *("recording", "plain"),
)
PRESENT = tuple(name for name in CORE if (SOURCE / f"{name}.py").exists())
OUTSIDE = {  # clocks, sockets, loops, threads, loggers, chance
    *("time", "datetime", "calendar", "sched", "asyncio", "anyio", "trio", "sniffio", "concurrent", "contextvars"),
    *("socket", "socketserver", "ssl", "select", "selectors", "http", "urllib.request", "threading", "_thread"),
    *("queue", "multiprocessing", "subprocess", "signal", "logging", "random", "secrets", "uuid"),
}
KEPT_BACK = {  # public in their module, for who looks there
    "recording": {"Entry", "Header", "Replayed", "TruncatedError", "read"},
    "settings": {"ENCODINGS"},
    "events": {"ServerEvent"},
    "history": {"Message", "Spoken"},
    "table": {"EFFECTS", "GUARDS", "ROWS", "State"},
}


def imports(path: Path) -> set[str]:
    """Every module that a file imports anywhere, and each package above it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: a relative import"
            assert node.module
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {".".join(parts[: n + 1]) for name in found for parts in [name.split(".")] for n in range(len(parts))}


def test_the_core_is_all_there() -> None:
    assert {"events", "wire", "settings", "actions", "policy", "table", "machine", "hooks", "errors", "recording"} <= {
        *PRESENT
    }


def test_every_public_name_is_there_documented_and_of_a_submodule() -> None:
    homes = [importlib.import_module(f"inkturns.{name}") for name in (*PRESENT, "agent") if has(name)]
    for name in inkturns.__all__:
        value = getattr(inkturns, name)
        assert any(name in home.__all__ and getattr(home, name) is value for home in homes), name
        if inspect.isclass(value) or inspect.isfunction(value):
            assert "__doc__" in vars(value) or inspect.isfunction(value), name
            assert value.__doc__, name
            assert not value.__doc__.startswith(f"{name}("), name  # made by dataclass-like decorators


def has(name: str) -> bool:
    return (SOURCE / f"{name}.py").exists()


@pytest.mark.parametrize("name", [name for name in (*CORE, "agent") if has(name) and name != "plain"])
def test_what_a_submodule_exports_is_public_but_for_what_it_keeps(name: str) -> None:
    """Where it exports anything here at all."""
    exported = set(importlib.import_module(f"inkturns.{name}").__all__)
    if not exported & set(inkturns.__all__):
        return
    kept = KEPT_BACK.get(name, set())
    assert exported - kept <= set(inkturns.__all__)
    assert kept <= exported - set(inkturns.__all__)


def test_all_is_sorted_without_repeats_and_nothing_else_is_public() -> None:
    assert len(set(inkturns.__all__)) == len(inkturns.__all__)
    modules = {name for name, value in vars(inkturns).items() if inspect.ismodule(value)}
    assert {name for name in vars(inkturns) if not name.startswith("_")} - modules <= set(inkturns.__all__)
    star: dict[str, object] = {}
    exec("from inkturns import *", star)
    assert set(star) - {"__builtins__"} == set(inkturns.__all__)


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_every_file_opens_with_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", PRESENT)
def test_the_core_imports_no_clock_socket_loop_thread_or_logger(name: str) -> None:
    assert not imports(SOURCE / f"{name}.py") & OUTSIDE


def test_what_is_found_in_imports_is_found() -> None:
    """The test above can fail."""
    assert {"subprocess", "importlib", "importlib.metadata", "pathlib.Path"} <= imports(Path(__file__))


@pytest.mark.parametrize(("library", "home"), [("transitions", ["machine.py"]), ("anyio", ["agent.py", "thought.py"])])
def test_a_library_has_one_home(library: str, home: list[str]) -> None:
    """But for `testing`, which runs agents for others' tests."""
    own = [path for path in SOURCE.rglob("*.py") if "testing" not in path.relative_to(SOURCE).parts]
    users = {str(path.relative_to(SOURCE)) for path in own if library in imports(path)}
    assert sorted(users) == home


@pytest.mark.parametrize("name", PRESENT)
def test_the_core_imports_neither_command_adapters_nor_tests(name: str) -> None:
    outer = {f"inkturns.{part}" for part in ("cli", "diagrams", "timeline", "adapters", "testing", "agent")}
    assert not imports(SOURCE / f"{name}.py") & outer


def test_importing_it_loads_no_loop_and_no_extra() -> None:
    unwanted = ("asyncio", "anyio", "trio", "typer", "rich", "hypothesis", "pytest", "inkturns.testing", "inkturns.cli")
    code = f"import sys, inkturns; print(*[name for name in {unwanted} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_it_ships_its_types() -> None:
    assert (files("inkturns") / "py.typed").is_file()


def test_the_version_is_one_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["version"])
    assert project["version"] in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert importlib.metadata.version("inkturns") == project["version"]
