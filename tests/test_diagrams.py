"""The diagrams are the table's, and the first of them the vendor's."""

import re
from pathlib import Path

import pytest

from inkturns import diagrams
from inkturns.events import KINDS
from inkturns.table import ROWS, Phase

DRAWN = Path(__file__).parent.parent / "diagrams"

VENDORS = """\
stateDiagram-v2
    [*] --> Idle
    Idle --> Speaking: turn.start
    Speaking --> EagerEnded: turn.eager_end
    EagerEnded --> Speaking: turn.resume
    Speaking --> Idle: turn.end
    EagerEnded --> Idle: turn.end
"""


@pytest.mark.parametrize("name", ["turns", "machine"])
def test_the_files_are_not_stale(name: str) -> None:
    assert (DRAWN / f"{name}.mmd").read_text("utf-8") == getattr(diagrams, name)(), f"inkturns diagram {name}"


def test_the_documented_edges_are_the_vendors() -> None:
    assert diagrams.turns() == VENDORS


def test_every_row_is_on_an_edge_for_each_of_its_phases() -> None:
    drawn = re.findall(r"^    (\w+) --> (\w+): (.*)$", diagrams.machine(), re.MULTILINE)
    lines = {(source, dest, line) for source, dest, label in drawn for line in label.split("<br/>")}
    assert len(drawn) == len({edge[:2] for edge in drawn})
    for number, (on, sources, to, where, do) in enumerate(ROWS, 1):
        its = [line for line in lines if line[2].startswith(f"({number}) ")]
        every = to == ("=",) and len(sources) == len(Phase)
        assert len(its) == (1 if every else len(sources))
        for source, dest, line in its:
            assert every == (source == dest == "Any")
            assert (source == dest) or to != ("=",)
            assert line.endswith(f" / {do or 'nothing'}")
            assert (" [" + where.replace("!", "not ") + "] " in line) == bool(where)
            assert all(trigger.rpartition(".")[2] in line for trigger in on)
    assert {trigger for on, *_ in ROWS for trigger in on} == set(KINDS)


def test_no_label_holds_what_mermaid_reads_as_its_own() -> None:
    for line in diagrams.machine().splitlines()[2:]:
        label = line.partition(": ")[2]
        assert not set(label) & set(':;#"%{}\\')
        assert "-->" not in label
        assert not re.search(r"(^|<br/>)\s*(\d+[.)]|[-*+])\s", label)
