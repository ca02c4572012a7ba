"""The package: its public names, what its modules may import, what it ships."""

import ast
import importlib
import importlib.metadata
import inspect
import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib.resources import files
from pathlib import Path

import pytest

import inkturns
from inkturns.recording import VERSION

ROOT = Path(__file__).parent.parent
SOURCE = Path(inkturns.__file__).parent
CORE = (
    *("errors", "settings", "turn", "policy", "signatures", "events", "actions", "wire", "sources"),
    *("table", "machine", "turns", "history"),
)
OUTSIDE = {  # clocks, sockets, loops, threads, chance
    *("time", "datetime", "calendar", "sched", "asyncio", "anyio", "trio", "sniffio", "concurrent", "contextvars"),
    *("socket", "socketserver", "ssl", "select", "selectors", "http", "urllib.request", "threading", "_thread"),
    *("queue", "multiprocessing", "subprocess", "signal", "random", "secrets", "uuid"),
}
EXPORTED = {
    "actions": ["Turn"],
    "agent": [
        *("Agent", "Audible", "Outcome", "Replied", "ReplyOutcome", "Settled", "Thought"),
        *("committed", "current_thought"),
    ],
    "errors": ["DecodeError", "InkturnsError"],
    "events": [
        *("ContextChanged", "Disconnected", "EndNow", "ReplyDone", "ReplyStarted", "StopReply", "ThoughtFailed"),
        *("Tick", "UsePolicy"),
    ],
    "machine": ["TurnMachine"],
    "policy": ["AfterDisconnect", "AfterResume", "AfterStall", "Policy", "min_words", "same_text", "same_words"],
    "recording": ["Recorder"],
    "settings": ["BALANCED", "PATIENT", "RESPONSIVE", "TurnSettings"],
    "sources": ["Source"],
    "turns": ["Turns"],
    "wire": ["close_command", "config_command", "connect_query", "decode"],
}

MODULES = {
    ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in SOURCE.rglob("*.py")
}


@cache  # not while tests are collected: it takes a second
def trees() -> dict[str, ast.Module]:
    return {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def imports(tree: ast.Module) -> set[str]:
    """Every name that a file imports anywhere, where only types are checked too, with its module before it."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            assert node.module
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def with_packages(names: set[str]) -> set[str]:
    """These names, and each package or module above them."""
    return {".".join(parts[: n + 1]) for name in names for parts in [name.split(".")] for n in range(len(parts))}


def module_of(name: str) -> str:
    """The module of the package that an imported name is, or comes from; "" where it is another's."""
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name


@cache
def imported() -> dict[str, set[str]]:
    return {name: imports(tree) for name, tree in trees().items()}


@cache
def used() -> dict[str, set[str]]:
    """The modules of the package that each of its modules imports from."""
    return {name: {module_of(one) for one in names} - {"", name} for name, names in imported().items()}


# -- the public names


def test_the_top_level_exports_what_users_of_agent_and_turns_write() -> None:
    """At most 40 names; events and actions are imported from their modules, but for Turn and the application's own."""
    assert set(inkturns.__all__) == {name for names in EXPORTED.values() for name in names}
    assert len(inkturns.__all__) <= 40


@pytest.mark.parametrize("home", EXPORTED)
def test_every_exported_name_is_documented_and_public_in_its_module(home: str) -> None:
    module = importlib.import_module(f"inkturns.{home}")
    for name in EXPORTED[home]:
        value = getattr(inkturns, name)
        assert name in module.__all__
        assert getattr(module, name) is value
        if inspect.isclass(value) or inspect.isfunction(value):
            assert "__doc__" in vars(value) or inspect.isfunction(value), name
            assert value.__doc__, name
            assert not value.__doc__.startswith(f"{name}("), name  # made by dataclass-like decorators


def test_all_is_sorted_without_repeats_and_nothing_else_is_public() -> None:
    assert len(set(inkturns.__all__)) == len(inkturns.__all__)
    modules = {name for name, value in vars(inkturns).items() if inspect.ismodule(value)}
    assert {name for name in vars(inkturns) if not name.startswith("_")} - modules <= set(inkturns.__all__)
    star: dict[str, object] = {}
    exec("from inkturns import *", star)
    assert set(star) - {"__builtins__"} == set(inkturns.__all__)


def test_a_name_that_is_not_exported_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'inkturns' has no attribute 'TurnEnd'"):
        inkturns.TurnEnd  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize("name", MODULES)
def test_every_file_opens_with_what_it_is(name: str) -> None:
    assert ast.get_docstring(trees()[name])


def test_no_class_name_stands_for_two_things() -> None:
    homes: dict[str, set[str]] = {}
    for module, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, set()).add(module)
    assert {name: found for name, found in homes.items() if len(found) > 1} == {}


# -- imports


def reached(module: str) -> set[str]:
    """Every module that this one imports, and what those import."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        new = used()[waiting.pop()] - found
        found |= new
        waiting += new
    return found


def test_no_import_circle() -> None:
    """Imports that only type checkers follow count too."""
    circles = {frozenset(other for other in reached(name) if name in reached(other)) for name in MODULES}
    assert [sorted(circle) for circle in circles if circle] == []


def test_no_module_imports_anothers_private_name() -> None:
    private = {
        (name, imported)
        for name, names in imported().items()
        for imported in names
        if module_of(imported) and any(part.startswith("_") for part in imported.split("."))
    }
    assert private == set()


def test_what_the_import_tests_look_for_is_found() -> None:
    """The tests of imports can fail."""
    tree = ast.parse("import a.b\ndef f():\n    from inkturns.wire import _x\nif TYPE_CHECKING:\n    import c")
    assert imports(tree) == {"a.b", "inkturns.wire._x", "c"}
    assert with_packages({"a.b"}) == {"a", "a.b"}
    assert (module_of("inkturns.wire._x"), module_of("inkturns.wire"), module_of("os.path")) == (
        *("inkturns.wire", "inkturns.wire", ""),
    )
    assert "inkturns.policy" in reached("inkturns.turns")
    assert len(MODULES) == len(list(SOURCE.rglob("*.py"))) > 40


@pytest.mark.parametrize("name", CORE)
def test_the_core_imports_no_clock_socket_loop_or_thread(name: str) -> None:
    assert not with_packages(imported()[f"inkturns.{name}"]) & OUTSIDE


@pytest.mark.parametrize("name", CORE)
def test_only_turns_has_a_logger_in_the_core(name: str) -> None:
    assert name == "turns" or "logging" not in imported()[f"inkturns.{name}"]


@pytest.mark.parametrize("name", CORE)
def test_the_core_imports_none_of_the_rooms_around_it(name: str) -> None:
    core = {f"inkturns.{other}" for other in CORE}
    recorder = {"inkturns.recording"} if name == "turns" else set()  # where types are checked
    assert used()[f"inkturns.{name}"] <= core | recorder


@pytest.mark.parametrize(
    ("library", "home"),
    [("transitions", ["inkturns.machine"]), ("anyio", ["inkturns.agent", "inkturns.tasks", "inkturns.thought"])],
)
def test_a_library_has_one_home(library: str, home: list[str]) -> None:
    """But for `testing`, which runs agents for others' tests."""
    users = [name for name, names in imported().items() if library in with_packages(names)]
    assert sorted(name for name in users if not name.startswith("inkturns.testing.")) == home


def test_no_adapter_imports_another_and_their_package_imports_none() -> None:
    of_adapters = (
        "messages",
        "livekit_guard",
        "livekit_limits",
        "livekit_reader",
        "pipecat_guard",
        "pipecat_outbox",
        "pipecat_strategies",
        "pipecat_timer",
    )
    parts = {f"inkturns.adapters.{name}" for name in of_adapters}
    adapters = {name for name in MODULES if name.startswith("inkturns.adapters.")} - parts
    for name in {"inkturns.adapters", *parts, *adapters}:
        assert not used()[name] & adapters


def test_importing_it_loads_no_loop_and_no_extra() -> None:
    unwanted = ("asyncio", "anyio", "trio", "typer", "rich", "hypothesis", "pytest", "inkturns.testing", "inkturns.cli")
    code = f"import sys, inkturns; print(*[name for name in {unwanted} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    ("module", "package", "extra"),
    [
        ("inkturns.ink", "websockets", "cartesia"),
        ("inkturns.testing.emulator", "websockets", "testing"),
        ("inkturns.testing.strategies", "hypothesis", "testing"),
    ],
)
def test_without_its_extra_a_module_says_which(
    module: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = importlib.import_module(module)
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError) as caught:
        exec(compile(Path(str(loaded.__file__)).read_text("utf-8"), str(loaded.__file__), "exec"), {"__name__": module})
    assert str(caught.value) == f'{module} needs {package}: pip install "inkturns[{extra}]"'
    assert caught.value.name == package


# -- what it ships


def test_it_ships_its_types() -> None:
    assert (files("inkturns") / "py.typed").is_file()


def test_the_version_is_one_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["version"])
    assert project["version"] in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert importlib.metadata.version("inkturns") == project["version"] == VERSION


def test_any_stands_only_where_a_value_is_anybodys() -> None:
    """At most 12 times in 1,000 lines of the package."""
    sources = [path.read_text() for path in SOURCE.rglob("*.py")]
    names = [node for source in sources for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)]
    assert sum(node.id == "Any" for node in names) <= 12 * sum(source.count("\n") for source in sources) / 1000
