"""The page of a report in a real browser: it renders, fetches nothing, and a hostile label does nothing."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from inkturns.cli.main import app
from inkturns.events import TurnEagerEnd, TurnEnd
from tests.integrations.browser import Browser, Tab, chromium
from tests.recorded import EVIL
from tests.test_report_rows import ABOUT, CALL, recorded, settled


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("chromium")) as running:
        yield running


@pytest.fixture
def tab(browser: Browser) -> Iterator[Tab]:
    with browser.tab() as opened:
        opened.look()
        yield opened


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A report on eight calls, one of whose arms is called like a script, with their timelines."""
    for n in range(8):
        arm = (EVIL, "b")[n % 2]
        lines = recorded(CALL, **ABOUT | {"call": f"{EVIL}{n}", "labels": {"arm": arm}})
        (tmp_path / f"a & <b> {n}.jsonl").write_bytes(b"".join(lines))
    done = CliRunner().invoke(app, ["report", str(tmp_path), "--by", "arm", "--html", str(tmp_path / "r #1.html")])
    assert done.exit_code == 0
    return tmp_path / "r #1.html"


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 700])
def test_it_renders_without_a_complaint_and_fetches_nothing(tab: Tab, page: Path, dark: bool, width: int) -> None:
    tab.look(dark=dark, width=width)
    tab.open(page)
    assert tab.complaints() == []
    assert tab.fetched() == []
    assert tab.value("document.documentElement.scrollWidth") <= width
    assert tab.value("document.querySelectorAll('svg').length") == 2
    assert tab.value("getComputedStyle(document.documentElement).backgroundColor") == (
        "rgb(17, 21, 27)" if dark else "rgb(255, 255, 255)"
    )


def test_a_hostile_label_is_text(tab: Tab, page: Path) -> None:
    tab.open(page)
    assert tab.value("document.querySelector('thead').innerText").split("\t")[1:3] == ["all", EVIL]
    assert tab.value("[...document.querySelectorAll('script, img, iframe, [onerror]')].length") == 0
    assert tab.value("[...document.querySelectorAll('.legend li')].map(li => li.innerText)")[0] == EVIL


def test_each_arm_has_its_curve_and_its_point_in_its_colour(tab: Tab, page: Path) -> None:
    tab.open(page)
    colours = "[...document.querySelectorAll('%s')].map(el => getComputedStyle(el).%s)"
    curves = tab.value(colours % ("polyline", "stroke"))
    assert len(set(curves)) == 2
    assert tab.value(colours % ("circle", "fill")) == curves
    boxes = tab.value("[...document.querySelectorAll('polyline')].map(el => el.getBoundingClientRect().width)")
    assert min(boxes) > 100


LABELS = """[...document.querySelectorAll('svg')].map(svg => [...svg.querySelectorAll('text')].map(el => {
    const b = el.getBoundingClientRect();
    return [el.textContent, b.left, b.top, b.right, b.bottom];
}))"""


def test_no_label_of_a_chart_lies_on_another(tab: Tab, tmp_path: Path) -> None:
    """Milliseconds were saved, which takes the longest numbers on an axis."""
    thought = settled(1, 1, "adopted", 2.0, 2.009, 2.1, None)
    lines = recorded([(2.0, TurnEagerEnd(transcript="go")), (2.5, TurnEnd(transcript="go")), thought], **ABOUT)
    (tmp_path / "call.jsonl").write_bytes(b"".join(lines))
    page = tmp_path / "page.html"
    assert CliRunner().invoke(app, ["report", str(tmp_path), "--html", str(page)]).exit_code == 0
    tab.open(page)
    charts: list[list[list[Any]]] = tab.value(LABELS)
    assert any(label[0] == "0.008" for label in charts[1])
    for labels in charts:
        for n, (one, left, top, right, bottom) in enumerate(labels):
            for other, its_left, its_top, its_right, its_bottom in labels[:n]:
                apart = left >= its_right or its_left >= right or top >= its_bottom or its_top >= bottom
                assert apart, (one, other)


def test_the_worst_calls_lead_to_their_turns_in_their_timelines(tab: Tab, page: Path) -> None:
    tab.open(page)
    link = tab.value("document.querySelector('ol a').href")
    where = tab.value("document.querySelector('ol a').getAttribute('href')")
    assert where.startswith("r%20%231-calls/")
    target, _, turn = where.partition("#")
    tab.open(page.parent / target.replace("%20", " ").replace("%23", "#"))
    assert tab.complaints() == []
    assert link.endswith(f"#{turn}")
    assert tab.value(f"document.getElementById('{turn}') !== null") is True


def test_on_paper_it_is_white_whatever_the_reader_prefers(tab: Tab, page: Path) -> None:
    tab.look(dark=True, media="print")
    tab.open(page)
    assert tab.value("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.value("getComputedStyle(document.querySelector('.answer')).color") == "rgb(0, 0, 0)"
