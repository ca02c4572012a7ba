"""The page and the still of a call in a real browser: what is seen of them, by eye, by pointer and by key."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from inkturns.demo.show import recording
from inkturns.events import Tick, TurnEnd, TurnStart
from inkturns.report.calls import calls_of
from inkturns.report.page import page
from inkturns.report.picture import Picture, rows
from inkturns.report.sketch import picture_of
from inkturns.report.still import still
from tests.integrations.browser import Browser, Tab, chromium
from tests.recorded import EVIL, Recorded, eventful, hostile, long, monologue, no_fault, ten_minutes

CALLS: dict[str, Callable[[], list[bytes]]] = {
    "demo": recording,
    "eventful": lambda: eventful().lines,
    "ten minutes": lambda: ten_minutes().lines,
    "hostile": lambda: hostile().lines,
    "long": lambda: long().lines,
    "monologue": lambda: monologue().lines,
    "late turn": lambda: Recorded().at(0, Tick()).at(6.2, TurnStart()).at(14, TurnEnd("Well")).lines,
}
WRITERS: dict[str, Callable[[Picture], str]] = {"html": page, "svg": still}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("chromium")) as running:
        yield running


@pytest.fixture
def tab(browser: Browser) -> Iterator[Tab]:
    with browser.tab() as opened:
        opened.look()
        yield opened


def drawn(name: str) -> Picture:
    [call] = calls_of(CALLS[name](), no_fault)
    return picture_of(call, words=True)


def written(folder: Path, name: str, kind: str = "html") -> Path:
    path = folder / f"call.{kind}"
    path.write_text(WRITERS[kind](drawn(name)), "utf-8")
    return path


def shown(tab: Tab) -> str | None:
    """The tip's text, where one is seen."""
    said: str | None = tab.value(
        "(() => { const t = document.getElementById('tip'); return t.hidden ? null : t.innerText })()"
    )
    return said


# -- it renders


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("name", CALLS)
def test_it_renders_without_a_complaint_and_fetches_nothing(
    tab: Tab, tmp_path: Path, name: str, kind: str, dark: bool
) -> None:
    tab.look(dark=dark)
    tab.open(written(tmp_path, name, kind))
    assert tab.complaints() == []
    assert tab.fetched() == []


@pytest.mark.parametrize(("dark", "paper", "ink"), [(False, "#ffffff", "#1c2430"), (True, "#11151b", "#e5e9ef")])
def test_the_colours_are_those_that_the_reader_prefers(
    tab: Tab, tmp_path: Path, dark: bool, paper: str, ink: str
) -> None:
    def colour(selector: str, name: str) -> str:
        value = tab.value(f"getComputedStyle(document.querySelector('{selector}')).{name}")
        return "#" + "".join(f"{int(part):02x}" for part in re.findall(r"\d+", value))

    tab.look(dark=dark)
    tab.open(written(tmp_path, "demo"))
    assert (colour("html", "backgroundColor"), colour("h1", "color")) == (paper, ink)
    tab.open(written(tmp_path, "demo", "svg"))
    assert (colour(".paper", "fill"), colour(".title", "fill")) == (paper, ink)


BOXES = """[...document.querySelectorAll('.strip')].flatMap((strip, n) =>
    [...strip.querySelectorAll('.lane s, .lane h3')].map((el) => {
        const b = el.getBoundingClientRect(), words = document.createRange();
        words.selectNodeContents(el);
        const w = words.getBoundingClientRect(), cut = getComputedStyle(el).overflowX === 'hidden';
        const [left, right] = cut ? [Math.max(b.left, w.left), Math.min(b.right, w.right)] : [w.left, w.right];
        return [n, el.textContent, left, b.top, right, b.bottom];
    }).filter(([, , left, , right]) => right - left > 1))"""


@pytest.mark.parametrize("keys", ["", "+", "-", "--"])
@pytest.mark.parametrize("name", ["demo", "eventful", "ten minutes"])
def test_no_caption_lies_on_another(tab: Tab, tmp_path: Path, name: str, keys: str) -> None:
    tab.open(written(tmp_path, name))
    for key in keys:
        tab.press(key)
    boxes: list[list[Any]] = tab.value(BOXES)
    assert len(boxes) > 15
    for n, one in enumerate(boxes):
        for other in boxes[:n]:
            if one[0] != other[0]:
                continue
            beside = one[2] >= other[4] - 1 or other[2] >= one[4] - 1
            assert beside or one[3] >= other[5] - 1 or other[3] >= one[5] - 1, (one, other)


@pytest.mark.parametrize("width", [1280, 800])
@pytest.mark.parametrize("media", ["", "print"])
def test_nothing_is_wider_than_the_window_or_the_paper(tab: Tab, tmp_path: Path, media: str, width: int) -> None:
    tab.look(width=width, media=media)
    tab.open(written(tmp_path, "demo"))
    assert tab.value("document.documentElement.scrollWidth") <= width
    assert tab.value("getComputedStyle(document.querySelector('.zoom')).display") == ("none" if media else "flex")


def test_paper_is_white_for_who_prefers_the_dark(tab: Tab, tmp_path: Path) -> None:
    tab.look(dark=True, media="print")
    tab.open(written(tmp_path, "demo"))
    assert tab.value("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"


def test_without_scripts_all_of_it_stands_in_one_row(tab: Tab, tmp_path: Path) -> None:
    tab.send("Emulation.setScriptExecutionDisabled", value=True)
    tab.open(written(tmp_path, "demo"))
    tab.send("Emulation.setScriptExecutionDisabled", value=False)
    assert tab.value("document.querySelectorAll('.strip').length") == 1
    assert tab.value("document.querySelector('.plot').getBoundingClientRect().width") > 2500
    assert "And when do you close?" in tab.value("document.querySelector('#timeline').innerText")


# -- tips


TIPS = {
    ".turn": ["Turn 1", "“Hi, I'd like to book a table for two tonight.”", "answered (server)"],
    "u": ["Heard: Hi", "0:01.24"],
    ".eager_end": ["Eager end: the user may be done"],
    ".resume": ["Resume: the user goes on"],
    ".cancelled": ["Thought 1 of turn 1, begun ahead", "cancelled (resumed): the user went on"],
    ".adopted": ["Thought 2 of turn 1, begun ahead", "adopted: it is the reply"],
    ".first_item": ["First item of the thought"],
    ".bracket": ["Turn 1: first sound", "without thinking ahead"],
    ".cut": ["Reply to turn 1", "interrupted"],
    ".heard": ["Reply to turn 3", "“Three it is. Your table is at seven, by the window.”", "heard from"],
}


@pytest.mark.parametrize("selector", TIPS)
def test_each_thing_has_a_tip(tab: Tab, tmp_path: Path, selector: str) -> None:
    tab.open(written(tmp_path, "demo"))
    assert shown(tab) is None
    tab.point(f"#timeline {selector}")
    said = shown(tab)
    assert said is not None
    for line in TIPS[selector]:
        assert line in said
    box = tab.value(
        "(({left, top, right, bottom}) => [left, top, right, bottom])"
        "(document.getElementById('tip').getBoundingClientRect())"
    )
    assert box[0] >= 0
    assert box[1] >= 0
    assert box[2] <= 1280
    assert box[3] <= 900
    tab.press("Escape")
    assert shown(tab) is None
    tab.point(f"#timeline {selector}")
    assert shown(tab) == said
    tab.point("#timeline .axis")
    assert shown(tab) is None
    tab.point(f"#timeline {selector}")
    tab.point("h1")
    assert shown(tab) is None


def test_reports_have_tips_too(tab: Tab, tmp_path: Path) -> None:
    tab.open(written(tmp_path, "eventful"))
    for selector, said in {
        ".lost": "Connection lost: 1006",
        ".report": "Report: stray resume",
        ".pause": "paused",
    }.items():
        tab.point(f"#timeline {selector}")
        assert said in str(shown(tab))


# -- keys, and readers of the screen


def test_the_keys_walk_through_the_call(tab: Tab, tmp_path: Path) -> None:
    tab.open(written(tmp_path, "demo"))
    said = []
    for key in ["Tab"] * 3 + ["ArrowRight"] * 2 + ["ArrowDown", "ArrowDown", "ArrowDown", "ArrowUp", "ArrowLeft"]:
        tab.press(key)
        said.append((shown(tab) or "").split("\n")[0])
    assert said[2:5] == ["Turn 1", "Heard: Hi", "Heard: , I'd"]
    assert said[5].startswith("Thought 1 of turn 1")
    assert said[6].startswith("Turn 1: first sound")
    assert said[7] == "Reply to turn 1"
    assert said[8] == said[6]
    assert said[9] == said[6]  # there is none before it
    assert tab.value("document.querySelectorAll('#timeline [tabindex=\"0\"]').length") == 1


def test_everything_has_a_name_for_readers_of_the_screen(tab: Tab, tmp_path: Path) -> None:
    tab.open(written(tmp_path, "eventful"))
    nodes = tab.send("Accessibility.getFullAXTree")["nodes"]
    names = {node.get("name", {}).get("value", "") for node in nodes if node["role"]["value"] == "image"}
    things = tab.value("document.querySelectorAll('.bar[role], .mark[role], u[role], .bracket[role]').length")
    assert "" not in names
    assert len([node for node in nodes if node["role"]["value"] == "image"]) == things > 30
    assert any(name.startswith("Turn 1") and "“Hey you there”" in name for name in names)


# -- zoom


def starts(tab: Tab) -> list[float]:
    found = tab.value("[...document.querySelectorAll('.strip')].map((el) => +el.style.getPropertyValue('--t'))")
    return [float(at) for at in found]


@pytest.mark.parametrize("name", ["demo", "eventful", "ten minutes", "long", "monologue", "late turn"])
def test_zoom_deals_the_call_into_the_rows_that_the_still_has(tab: Tab, tmp_path: Path, name: str) -> None:
    picture = drawn(name)
    tab.open(written(tmp_path, name))
    marks = len([mark for lane in picture.lanes for mark in lane.marks])
    for _ in range(12):
        span = tab.value("SPANS[zoom]")
        assert starts(tab) == pytest.approx(rows(picture, span), abs=0.01)
        assert tab.value("document.querySelectorAll('#timeline .mark, #timeline u').length") == marks
        tab.press("-")
    assert len(starts(tab)) == 1
    assert tab.value("document.querySelector('output').value") == "the whole call"
    tab.press("+")
    assert len(starts(tab)) > 1
    assert tab.complaints() == []


def test_the_buttons_zoom_and_the_table_leads_to_the_turn(tab: Tab, tmp_path: Path) -> None:
    tab.open(written(tmp_path, "demo"))
    rows_at_first = len(starts(tab))
    tab.value("document.querySelector('button[aria-label=\"Zoom in\"]').click()")
    assert len(starts(tab)) > rows_at_first
    names = tab.value("[...document.querySelectorAll('[id]')].map((el) => el.id)")
    assert len(set(names)) == len(names)
    tab.value("document.querySelector('a[href=\"#turn-6\"]').click()")
    top = tab.value("document.getElementById('turn-6').getBoundingClientRect().top")
    assert 0 <= top <= 900


# -- what comes from a recording does nothing


@pytest.mark.parametrize("kind", WRITERS)
def test_a_transcript_that_is_a_script_does_nothing(tab: Tab, tmp_path: Path, kind: str) -> None:
    tab.open(written(tmp_path, "hostile", kind))
    if kind == "html":
        tab.point("#timeline .heard")
        assert EVIL in str(shown(tab)).replace("\n", " ")
    assert tab.value("document.querySelectorAll('img, iframe, object, foreignObject').length") == 0
    assert tab.value("document.getElementsByTagName('script').length") == (1 if kind == "html" else 0)
    assert not [event for event in tab.events if event["method"] == "Page.javascriptDialogOpening"]
    assert (tab.complaints(), tab.fetched()) == ([], [])


def test_were_it_not_escaped_the_pages_own_policy_would_stop_it(tab: Tab, tmp_path: Path) -> None:
    """Which shows too that these tests would see it."""
    path = written(tmp_path, "demo")
    text = path.read_text("utf-8").replace(
        "<header>", "<header><script>window.ran = 1</script><img src=//evil.example>"
    )
    path.write_text(text, "utf-8")
    tab.open(path)
    assert tab.value("window.ran") is None
    assert len(tab.complaints()) >= 2
