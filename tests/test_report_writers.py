"""A picture as a page, a still and a trace: whole, escaped, small, and the same each time."""

import hashlib
import json
import re
from base64 import b64encode
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest

from inkturns.events import (
    ReplyDone,
    ReplyStarted,
    Tick,
    TurnEagerEnd,
    TurnEnd,
    TurnStart,
    TurnUpdate,
)
from inkturns.report.calls import calls_of
from inkturns.report.page import page
from inkturns.report.picture import Bar, BarKind, Picture, PictureLane, rows
from inkturns.report.sketch import picture_of
from inkturns.report.still import still
from inkturns.report.trace import trace
from tests.recorded import EVIL, Recorded, answered, eventful, hostile, long, no_fault, ten_minutes

SVG = "{http://www.w3.org/2000/svg}"


def drawn(recorded: Recorded, *, words: bool = True) -> Picture:
    [call] = calls_of(recorded.lines, no_fault)
    return picture_of(call, words=words)


CALLS: dict[str, Callable[[], Recorded]] = {
    "eventful": eventful,
    "ten minutes": ten_minutes,
    "hostile": hostile,
    "long": long,
    "silent": lambda: Recorded().at(5, Tick()),
    "a moment": lambda: Recorded().at(5, TurnStart(), TurnUpdate("हिन्दी 漢字 שלום"), TurnEnd("हिन्दी 漢字 שלום")),
    "at the end of time": lambda: Recorded().at(0, TurnStart()).at(1e15, TurnEnd("late")),
}


# -- the page


class Parsed(HTMLParser):
    """The elements of a page, and its text but for scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.said: list[str] = []
        self.raw = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.raw = tag if tag in ("script", "style") else ""

    def handle_endtag(self, tag: str) -> None:
        self.raw = ""

    def handle_data(self, data: str) -> None:
        if not self.raw and data.strip():
            self.said.append(data)

    def of(self, look: str) -> list[dict[str, str | None]]:
        return [attrs for tag, attrs in self.elements if look in (tag, *(attrs.get("class") or "").split())]


TAGS = {"html", "head", "meta", "title", "style", "body", "header", "h1", "h2", "h3", "p", "ul", "li", "span", "i", "s"}
TAGS |= {
    "u",
    "b",
    "div",
    "button",
    "output",
    "small",
    "kbd",
    "section",
    "script",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
}
TAGS |= {"td", "a"}
ATTRIBUTES = {
    "class",
    "style",
    "id",
    "role",
    "lang",
    "charset",
    "name",
    "content",
    "http-equiv",
    "type",
    "hidden",
    "href",
}


@pytest.mark.parametrize("name", CALLS)
def test_a_page_is_made_of_its_own_elements_and_fetches_nothing(name: str) -> None:
    text = page(drawn(CALLS[name]()))
    parsed = Parsed(text)
    assert {tag for tag, _ in parsed.elements} <= TAGS
    assert [tag for tag, _ in parsed.elements].count("script") == 1
    for _, attrs in parsed.elements:
        assert {name for name in attrs if not name.startswith(("aria-", "data-"))} <= ATTRIBUTES
        assert (attrs.get("href") or "#").startswith("#")
    assert "http" not in "".join(re.findall(r"<style>.*?</style>", text, re.DOTALL))
    assert "url(" not in text
    assert page(drawn(CALLS[name]())) == text


def test_the_page_allows_its_own_script_and_nothing_else() -> None:
    text = page(drawn(hostile()))
    [script] = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    allowed = b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(attrs["content"] for _, attrs in Parsed(text).elements if "http-equiv" in attrs)
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{allowed}'"


def test_a_transcript_that_is_a_script_stays_text() -> None:
    text = page(drawn(hostile()))
    assert "<script>alert" not in text
    assert "<img" not in text
    said = "".join(Parsed(text).said)
    assert said.count(EVIL) >= 5  # the title, the about line, the caption, the table, the reply


def test_a_page_of_ten_minutes_has_at_most_200_kb() -> None:
    picture = drawn(ten_minutes())
    assert picture.seconds > 599
    size = len(page(picture).encode())
    assert 100_000 < size <= 200_000


def test_the_page_has_all_that_the_picture_has() -> None:
    picture = drawn(eventful())
    parsed = Parsed(page(picture))
    names = [said for said in parsed.said if said in ("User", "Thoughts", "Wait", "Reply", "Reports")]
    assert names[:5] == ["User", "Thoughts", "Wait", "Reply", "Reports"]
    for lane in picture.lanes:
        for bar in lane.bars:
            told = [line for line in bar.tip if line != f"“{bar.caption}”"]  # which stands beside it
            assert any(attrs.get("aria-label") == "\n".join(told) for attrs in parsed.of("bar")), bar
            assert not bar.caption or bar.caption in parsed.said
        for mark in lane.marks:
            look = {"words": "u", "revised": "anew"}.get(mark.kind, str(mark.kind))
            assert any(attrs.get("style") == f"--a:{mark.at:.10g}" for attrs in parsed.of(look)), mark
    assert len(parsed.of("bracket")) == 1 + len(picture.brackets)
    assert len(parsed.of("without")) == 1 + sum(one.without is not None for one in picture.brackets)
    for line in picture.turns:
        assert ("a", {"href": f"#turn-{line.turn}"}) in parsed.elements
        assert any(attrs.get("id") == f"turn-{line.turn}" for attrs in parsed.of("turn"))


def test_what_is_not_known_stands_on_the_page() -> None:
    watched = Recorded().at(0, TurnStart()).at(1, TurnEagerEnd("hi")).at(2, TurnEnd("hi"))
    picture = drawn(watched)
    said = Parsed(page(picture)).said
    assert [sentence for sentence in picture.not_known if sentence in said] == list(picture.not_known) != []
    assert "Not known" not in Parsed(page(drawn(ten_minutes()))).said


def test_redacted_words_are_on_no_page() -> None:
    for write in (page, still, lambda picture: trace(picture).decode()):
        text = write(drawn(ten_minutes(), words=False))
        assert "Sundays" not in text
        assert "xxxxxxx" in text


# -- the still


@pytest.mark.parametrize("name", CALLS)
def test_a_still_is_xml_and_the_same_each_time(name: str) -> None:
    text = still(drawn(CALLS[name]()))
    root = ElementTree.fromstring(text)
    assert root.tag == f"{SVG}svg"
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= {
        *("svg", "title", "desc", "style", "defs", "pattern", "rect", "path", "text", "g", "circle")
    }
    width, height = (float(root.attrib[name]) for name in ("width", "height"))
    for element in root.iter(f"{SVG}rect"):
        x, wide = float(element.get("x", 0)), float(element.attrib["width"])
        assert 0 <= x <= x + wide <= width
        assert 0 <= float(element.get("y", 0)) <= height
    assert height < 20_000
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert still(drawn(CALLS[name]())) == text


def texts(svg: str, look: str) -> list[str]:
    return [el.text or "" for el in ElementTree.fromstring(svg).iter(f"{SVG}text") if el.get("class") == look]


def test_the_still_has_all_that_the_picture_has() -> None:
    picture = drawn(eventful())
    svg = still(picture)
    titles = [el.text for el in ElementTree.fromstring(svg).iter(f"{SVG}title")]
    for lane in picture.lanes:
        for tip in [bar.tip for bar in lane.bars] + [mark.tip for mark in lane.marks]:
            assert "\n".join(tip) in titles
    assert texts(svg, "waits") == [one.caption for one in picture.brackets]
    assert "Hey you there" in texts(svg, "said")
    assert texts(svg, "bad") == ["resumed", "failed"]
    assert len(texts(svg, "name User")) == len(rows(picture, 10))


def test_a_thought_is_adopted_in_one_row() -> None:
    """It is held for 19 s, from 1 to 20, and nobody says when it was finished."""
    call = Recorded().at(0, TurnStart()).at(1, TurnEagerEnd("hi")).at(20, TurnEnd("hi")).at(25, Tick())
    svg = still(drawn(call))
    looks = [str(el.get("class")) for el in ElementTree.fromstring(svg).iter(f"{SVG}rect")]
    assert looks.count("adopted") == 1 + 1  # and the legend's
    assert looks.count("held") == 2 + 2


def test_what_does_not_fit_is_shortened() -> None:
    def shown(words: str) -> str:
        return texts(still(drawn(answered(Recorded(), words=words))), "said")[0]

    assert shown("book a table") == "book a table"
    for words in ("mmmm " * 40, "lit, " * 99, "東京タワー" * 40):
        assert shown(words).startswith(words[:20])
        assert shown(words).endswith("…")
    assert len(shown("東京タワー" * 40)) < len(shown("m" * 200)) < len(shown("a" * 200)) < len(shown("i" * 500))


def test_a_caption_without_room_is_left_out() -> None:
    call = Recorded().at(0, TurnStart()).at(1, TurnEagerEnd("a")).at(3, TurnEagerEnd("b c"))
    svg = still(drawn(call.at(3.02, TurnEnd("d e"))))
    assert texts(svg, "bad") == ["superseded"]  # and not the "mismatched" of 20 ms


def test_long_calls_have_more_in_a_row_and_less_of_the_fine_things() -> None:
    picture = drawn(long())
    svg = still(picture)
    assert len(texts(svg, "name User")) <= 61
    assert 'class="word"' not in svg.replace('class="word" d="M12 7v8M20 7v8"', "")
    assert texts(svg, "said") == texts(svg, "waits") == []
    hour = answered(Recorded(), 1, 0).at(3, ReplyStarted(1)).at(4, ReplyDone(1)).at(3_700, Tick())
    assert texts(still(drawn(hour)), "said")
    assert [said for said in texts(still(drawn(hour)), "quiet") if "ahead" in said] == [
        "first sound without thinking ahead"
    ]


# -- the trace


@pytest.mark.parametrize("name", CALLS)
def test_a_trace_is_what_perfetto_reads(name: str) -> None:
    """As the Trace Event Format has it: M, X and i; microseconds; what stands on one track nests."""
    values = json.loads(trace(drawn(CALLS[name]())))
    assert values["displayTimeUnit"] == "ms"
    tracks: dict[int, list[tuple[int, int]]] = {}
    for event in values["traceEvents"]:
        assert event["ph"] in ("M", "X", "i")
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        assert isinstance(event["args"], dict)
        if event["ph"] == "i":
            assert event["s"] == "t"
        if event["ph"] == "X":
            assert event["dur"] >= 0
            tracks.setdefault(event["tid"], []).append((event["ts"], event["ts"] + event["dur"]))
    named = {event["tid"] for event in values["traceEvents"] if event["name"] == "thread_name"}
    assert set(tracks) <= named
    for slices in tracks.values():
        within: list[int] = []  # where the slices end that the next may be inside of
        for begins, ends in sorted(slices, key=lambda one: (one[0], -one[1])):
            within = [end for end in within if end > begins]
            assert all(ends <= end for end in within), "two slices cross"
            within.append(ends)


def slices(data: bytes) -> list[tuple[str, int, int]]:
    return [
        (event["name"], event["ts"], event["dur"]) for event in json.loads(data)["traceEvents"] if event["ph"] == "X"
    ]


def test_a_trace_has_the_parts_of_what_has_two() -> None:
    call = answered(Recorded()).note(102.3, "first", 1, thought=1).at(102.4, ReplyStarted(1))
    call.note(103, "finished", 1, thought=1).at(104, ReplyDone(1))
    found = slices(trace(drawn(call)))
    assert ("Turn 1", 0, 2_000_000) in found
    assert ("held", 1_500_000, 500_000) in found
    assert ("adopted", 2_000_000, 1_000_000) in found
    assert ("silent", 2_000_000, 400_000) in found
    assert ("heard", 2_400_000, 1_600_000) in found
    assert ("0.40 s, without 0.90 s", 2_000_000, 400_000) in found


def test_what_would_cross_stands_beside() -> None:
    def bar(begins: float, ends: float) -> Bar:
        tip = (f"{begins}",)
        return Bar(kind=BarKind.HELD, turn=1, begins=begins, until=begins, ends=ends, caption="", tip=tip)

    lane = PictureLane("Thoughts", (bar(0, 3), bar(1, 4), bar(2, 5), bar(3, 6)), ())
    picture = msgspec.structs.replace(drawn(long()), lanes=(lane,), brackets=())
    events: list[dict[str, Any]] = json.loads(trace(picture))["traceEvents"]
    on = {event["name"]: event["tid"] for event in events if event["ph"] == "X"}
    assert on["0"] == on["3"] != on["1"] != on["2"] != on["0"]
    named = [event["tid"] for event in events if event["name"] == "thread_name"]
    assert sorted(named) == sorted({*on.values()})
