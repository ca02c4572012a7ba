"""The READMEs of this repository and their blocks, for the tests that run them."""

import re
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent
ROOMS = ("", "diagrams", "inkturns", "tests")  # and what is below them
FRAMEWORKS = re.compile(
    r"^\s*(from|import) (duckdb|livekit|openai|pipecat)\b", re.MULTILINE
)  # run in tests/integrations


class Block(NamedTuple):
    """A fenced block: where it stands, its language, its text, and the `text` block that follows it directly."""

    page: str
    heading: str
    language: str
    code: str
    shown: str | None


def pages() -> list[Path]:
    """Every README.md, the top one first."""
    found = {ROOT / "README.md"}
    for room in ROOMS[1:]:
        found |= set((ROOT / room).rglob("README.md"))
    return sorted(found, key=lambda page: (len(page.parts), page))


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks_of(page: Path) -> list[Block]:
    found: list[Block] = []
    heading, language, lines = "", "", list[str]()
    is_inside, text_between = False, ""
    for line in page.read_text("utf-8").splitlines():
        if is_inside and line == "```":
            is_inside = False
            code = "".join(f"{one}\n" for one in lines)
            if language == "text" and found and not text_between and found[-1].shown is None:
                found[-1] = found[-1]._replace(shown=code)
            else:
                found.append(Block(name_of(page), heading, language, code, None))
            text_between = ""
        elif is_inside:
            lines.append(line)
        elif line.startswith("```"):
            is_inside, language, lines = True, line[3:], []
        else:
            text_between += line.strip()
            heading = line.lstrip("# ") if line.startswith("#") else heading
    assert not is_inside, f"{name_of(page)}: a block is not closed"
    return found


BLOCKS = [block for page in pages() for block in blocks_of(page)]


def names_of(block: Block) -> dict[str, Any]:
    """What a Python block defines."""
    names: dict[str, Any] = {"__name__": "readme"}
    exec(compile(block.code, f"{block.page}, {block.heading}", "exec"), names)
    return names


def recipe(heading: str, page: str = "inkturns/README.md", holds: str = "") -> dict[str, Any]:
    """What the Python block under this heading defines; where there are several, the one that holds these words."""
    where = (page, heading, "python")
    (block,) = (one for one in BLOCKS if (one.page, one.heading, one.language) == where and holds in one.code)
    return names_of(block)


def table_under(heading: str, page: str = "README.md") -> list[list[str]]:
    """The rows of the first table under a heading, without its head."""
    lines = (ROOT / page).read_text("utf-8").splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("#") and line.lstrip("# ") == heading)
    begin = next(i for i in range(at, len(lines)) if lines[i].startswith("|"))
    end = next((i for i in range(begin, len(lines)) if not lines[i].startswith("|")), len(lines))
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[begin + 2 : end]]
