"""What the type checkers see. mypy and pyright flag the same lines of the files in tests/typed: those that say so."""

from collections.abc import Callable
from pathlib import Path

import pytest

TYPED = Path(__file__).parent / "typed"


def refused(path: Path) -> set[int]:
    """The lines that a checker has to flag."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return {number for number, line in enumerate(lines, start=1) if line.endswith("  # refused")}


@pytest.mark.parametrize("path", sorted(TYPED.glob("*.py")), ids=lambda path: path.stem)
def test_a_checker_refuses_the_wrong_uses_and_no_other(path: Path, flagged: Callable[[Path], set[int]]) -> None:
    assert flagged(path) == refused(path) != set()
