"""What a fleet comes to: the answer, what is not known, arms, JSON, the page. Figures were computed on paper."""

import json
import random
import re
from html import escape
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pytest

from inkturns.report import Fleet, Price, Question, ThoughtRow, TurnRow
from inkturns.report.fleet_page import FrontierPoint, fleet_page
from inkturns.report.summary import MEASURES, Difference, Findings, Worth
from inkturns.report.table import ROWS, columns, rows_of, said_of, verdicts
from tests.recorded import EVIL


def thought(number: int = 1, outcome: str = "adopted", **fields: Any) -> ThoughtRow:
    return ThoughtRow(number=number, **{"speculative": True, "outcome": outcome, "ran": True, **fields})


def wasted(number: int = 1, **fields: Any) -> ThoughtRow:
    return thought(number, "cancelled", reason="resumed", **fields)


def turn(number: int = 1, *thoughts: ThoughtRow, **fields: Any) -> TurnRow:
    given: dict[str, Any] = {"end": "server", "answered": True, "length": 5, "thoughts": thoughts}
    return TurnRow(number=number, **given | fields)


def fleet(*calls: list[TurnRow], **about: Any) -> Fleet:
    made = Fleet(**about)
    for n, rows in enumerate(calls):
        made.add(rows, f"{n}.jsonl")
    return made


# Two calls. In a, turn 1 was thought ahead (0.4 s saved) after one wasted thought ($0.003); in turn 2 nobody thought
# ahead. In c, turn 1 was thought ahead (0.2 s), turn 2 too (0.1 s) after one wasted thought that told no usage.
A = [
    turn(1, wasted(1, usage=True, tokens=30, cost=0.003), thought(2, usage=True), saved=0.4, call="a", begins=1),
    turn(2, thought(1, speculative=False, usage=True), saved=0.0, call="a", begins=1),
]
B = [
    turn(1, thought(1, usage=True, tokens=50, output_tokens=10), saved=0.2, call="c", begins=1),
    turn(2, wasted(1), thought(2, usage=True, tokens=50, output_tokens=10), saved=0.1, call="c", begins=1),
]


def test_the_answer_is_the_share_of_turns_what_they_saved_and_what_it_took() -> None:
    """Ahead: 3 of 4 turns, which saved 0.1, 0.2 and 0.4 s: p50 is the second, p90 the third. Wasted: 2 thoughts for 4
    turns, $0.003 for 4 turns, which is $0.75 for 1,000. Where a alone is drawn it is 1.5, where c alone 0."""
    assert Findings(fleet(A, B)).answer() == (
        "Thinking ahead made replies begin 0.20 s earlier (p50; p90 0.40 s) in 75 % of 4 turns, for 0.50 more model "
        "calls a turn ($0.75 in 1,000 turns, 95 % 0\N{EN DASH}1.50)."
    )


def test_of_one_call_the_answer_has_no_interval() -> None:
    assert Findings(fleet(A)).answer() == (
        "Thinking ahead made replies begin 0.40 s earlier (p50; p90 0.40 s) in 50 % of 2 turns, for 0.50 more model "
        "calls a turn ($1.50 in 1,000 turns)."
    )


def test_a_watchers_answer_says_what_is_not_known() -> None:
    row = turn(1, ThoughtRow(number=1, speculative=True, outcome="adopted"), head_start=0.5)
    assert Findings(fleet([row])).answer() == (
        "Thoughts began ahead in 100 % of 1 turn; the median reply had 0.50 s of head start, for 0.00 more model calls "
        "a turn. How much earlier replies began is not known: no model's first item was recorded; an Agent records it."
    )
    bare = turn(1, ThoughtRow(number=1, speculative=True, outcome="adopted"))
    assert "in 100 % of 1 turn, for 0.00 more" in Findings(fleet([bare])).answer()


def test_with_an_assumed_latency_the_answer_says_that_it_is_modelled() -> None:
    question = Question(latency=(0.8,))
    summary = Findings(fleet(A), question)
    assert summary.answer() == (
        "Thinking ahead would make replies begin 0.40 s earlier (p50; p90 0.40 s) in 50 % of 2 turns, for 0.50 more "
        "model calls a turn ($1.50 in 1,000 turns), if a model's first item came after 0.8 s (modelled)."
    )
    assert summary.as_json()["modelled"] == ["first_item", "saved", "saved_ahead"]
    assert "after 0.5 to 2 s (modelled)" in Findings(fleet(A), Question(latency=(2.0, 0.5))).answer()


def test_where_nothing_was_gained_or_answered_the_answer_says_so() -> None:
    assert Findings(Fleet()).answer() == "There is no answered turn in these recordings."
    row = turn(1, wasted(1), thought(2, speculative=False), saved=0.0)
    assert Findings(fleet([row])).answer() == (
        "No thought that began ahead was adopted in 1 turn, for 1.00 more model calls a turn."
    )


@pytest.mark.parametrize(
    ("worth", "verdict"),
    [
        (Worth(calls=0.5), "It pays: Thinking"),  # both calls have 0.5 unused thoughts a turn
        (Worth(calls=0.4), "It does not pay: Thinking"),
        (Worth(per_second=0.1), "It pays: Thinking"),  # a: 0.4 x 0.1 - 0.003 > 0; c: 0.3 x 0.1
        (Worth(per_second=0.001), "Whether it pays cannot be told: Thinking"),  # a: 0.0004 - 0.003 < 0; c: 0.0003
        (Worth(per_second=0.0), "Whether it pays cannot be told: Thinking"),  # c costs nothing, as far as it was told
    ],
)
def test_that_it_pays_or_not_is_said_against_what_it_is_worth(worth: Worth, verdict: str) -> None:
    summary = Findings(fleet(A, B), worth=worth)
    assert summary.answer().startswith(verdict)
    assert ("worth" in summary.not_known()) == verdict.startswith("Whether")


def test_of_one_call_the_figure_itself_decides() -> None:
    assert Findings(fleet(A), worth=Worth(per_second=0.001)).pays() is False  # 0.0004 - 0.003
    assert Findings(fleet(A), worth=Worth(per_second=0.01)).pays() is True
    assert Findings(fleet(A), worth=Worth(calls=0.4)).pays() is False
    assert Findings(fleet(A)).pays() is None


def test_where_nothing_was_gained_it_does_not_pay() -> None:
    """It said "It pays: No thought that began ahead was adopted" where few calls were accepted, or no cost was told."""
    in_vain = fleet([turn(1, wasted(1), thought(2, speculative=False), saved=0.0)])
    never = fleet([turn(1, thought(1, speculative=False), saved=0.0)])
    for worth in (Worth(calls=2.0), Worth(per_second=0.1)):
        assert Findings(in_vain, worth=worth).answer().startswith("It does not pay: No thought that began ahead")
        summary = Findings(never, worth=worth)
        assert summary.answer().startswith("Whether it pays cannot be told: No thought that began ahead")
        assert summary.not_known()["worth"] == "whether it pays: no thought began before its turn's end"


def test_a_watchers_calls_are_judged_by_how_many_they_are() -> None:
    row = turn(1, wasted(1), thought(2), head_start=0.5)
    assert Findings(fleet([row]), worth=Worth(calls=0.5)).answer().startswith("It does not pay: Thoughts began ahead")
    assert Findings(fleet([row]), worth=Worth(calls=1.0)).answer().startswith("It pays: Thoughts began ahead")


def test_of_what_only_some_turns_lack_it_is_not_said_that_none_has_it() -> None:
    times = {"saved": 0.1, "first_item": 0.1, "end_to_first_sound": 0.2}
    not_known = Findings(fleet([turn(1, thought(1), **times), turn(2, thought(1))])).not_known()
    cut = "and a reply that was cut before has none"
    assert not_known["first_item"] == f"not recorded in 1 of 2 turns: an Agent records it, {cut}"
    assert not_known["end_to_first_sound"] == f"not recorded in 1 of 2 turns: it needs a ReplyStarted, {cut}"


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (fleet([turn(1, wasted(1), thought(2), head_start=0.4)]), "how much earlier replies began is not known"),
        (fleet([turn(1, wasted(1), thought(2), saved=0.4)]), "no unused thought told what it cost; --worth calls=0.5"),
        (fleet(A, B), "the 95 % interval allows both; more calls make it narrower"),
    ],
)
def test_why_nobody_can_tell_whether_it_pays_is_said(made: Fleet, why: str) -> None:
    summary = Findings(made, worth=Worth(per_second=0.001))
    assert summary.not_known()["worth"].startswith(f"whether it pays: {why}")


def test_what_the_verdict_takes_costs_for_that_nobody_told_is_said() -> None:
    said = Findings(fleet(A, B), worth=Worth(per_second=0.1)).not_known()["wasted_cost"]
    assert said.endswith("are too low, and whether it pays is said as if the rest had cost nothing")
    for worth in (None, Worth(calls=0.5), Worth(per_second=0.001)):
        assert Findings(fleet(A, B), worth=worth).not_known()["wasted_cost"].endswith("are too low")


def test_where_no_usage_was_told_it_is_not_called_too_low() -> None:
    said = Findings(fleet([turn(1, wasted(1), thought(2))])).not_known()["wasted_cost"]
    assert said == "no thought told its usage; an Agent records `thought.usage(\N{HORIZONTAL ELLIPSIS})`"


def test_without_costs_or_turns_nobody_can_tell_whether_it_pays() -> None:
    free = [turn(1, wasted(1), thought(2), saved=0.4)]
    assert Findings(fleet(free), worth=Worth(per_second=9.0)).pays() is None
    assert Findings(Fleet(), worth=Worth(per_second=9.0)).pays() is None
    assert Findings(Fleet(), worth=Worth(calls=9.0)).pays() is None
    no_waste = [turn(1, thought(1), saved=0.4)]
    assert Findings(fleet(no_waste), worth=Worth(per_second=9.0)).pays() is True


def test_what_could_not_be_computed_is_said_with_the_reason() -> None:
    made = fleet(A, B)
    made.left_out = 2
    not_known = Findings(made).not_known()
    assert not_known["first_item"] == (
        "not recorded in 4 of 4 turns: no model's first item was recorded; an Agent records it"
    )
    assert not_known["gap"].startswith("not recorded in 3 of 3 turns")  # of those that were thought ahead
    assert not_known["end_to_first_sound"] == "not recorded in 4 of 4 turns: no ReplyStarted was recorded"
    assert "saved" not in not_known
    assert "intervals" not in not_known
    assert not_known["wasted_cost"] == (  # five of six thoughts
        "usage was told of 83 % of the thoughts: a cancelled stream often sends none, so wasted_tokens and wasted_cost "
        "are too low"
    )
    assert not_known["calls"] == "of 2 calls nobody knows when they began: they are left out"
    assert Findings(fleet(A)).not_known()["intervals"] == "an interval needs two calls"


def test_prices_are_said_to_be_modelled() -> None:
    summary = Findings(fleet(A, B), Question(prices={"*": Price(1.0, 2.0)}))
    assert "--prices filled in the rest" in summary.not_known()["wasted_cost"]
    assert summary.modelled() == ["wasted_cost", "wasted_cost_per_turn"]


# -- arms


def arms(*names: str, saved: tuple[float, ...] = (0.1, 0.4, 0.4), calls: int = 40) -> Fleet:
    """In each arm, calls that save about so much in each turn."""
    made = Fleet("arm")
    for name, gain in zip(names, saved, strict=False):
        for n in range(calls):
            row = turn(1, thought(), saved=gain + 0.001 * (n % 5), call=f"{name} {n}", labels={"arm": name})
            made.add([row], f"{name}.jsonl")
    return made


def test_arms_are_compared_with_the_control_by_a_primary_measure() -> None:
    summary = Findings(arms("b", "control", "c"))
    assert summary.control == "control"
    found = summary.differences()
    assert list(found) == ["b", "c"]
    assert next(iter(found["b"])) == "saved.p50"
    first = found["b"]["saved.p50"]
    assert first.difference == pytest.approx(0.1 - 0.4, abs=0.01)
    assert first.interval is not None
    assert -0.32 < first.interval[0] <= first.interval[1] < -0.28
    assert first.more_than_chance is True
    assert found["c"]["saved.p50"].more_than_chance is False
    assert found["b"]["turns_ahead"] == Difference(0.0, [0.0, 0.0])
    assert found["b"]["gap.p50"] == Difference(None, None)
    (b, besides, c, *more) = verdicts(summary)
    assert b.startswith("b against control, saved.p50: -0.298 (95 % -0.302")
    assert b.endswith("more than chance")
    assert "saved_ahead.p50 -0.298" in besides
    assert c.endswith("no more than chance")
    assert more == []


@pytest.mark.full
def test_a_difference_by_chance_is_none_in_about_95_of_100_cases() -> None:
    """Two arms of the same kind: each of 60 drawn pairs may differ beyond chance in 5 %: 3, and less than 9."""

    chance = random.Random(11)
    beyond = 0
    for case in range(60):
        made = Fleet("arm")
        for n in range(60):
            ahead = thought() if chance.random() < 0.5 else thought(speculative=False)
            made.add([turn(1, ahead, saved=0.1, call=f"{case} {n}", labels={"arm": "ab"[n % 2]})])
        beyond += Findings(made, primary="turns_ahead").differences()["b"]["turns_ahead"].more_than_chance is True
    assert beyond < 9


def test_one_call_of_an_arm_has_no_interval_and_is_no_evidence() -> None:
    summary = Findings(arms("a", "b", calls=1))
    one = summary.differences()["b"]["saved.p50"]
    assert (one.interval, one.more_than_chance) == (None, None)
    assert verdicts(summary) == ["b against a, saved.p50: +0.3; an interval needs two calls of each"]
    assert verdicts(Findings(arms("a", "b", calls=1), primary="gap.p50")) == ["b against a, gap.p50: not known"]


def test_a_measure_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="got 'speed'"):
        Findings(Fleet(), primary="speed")
    assert "saved.p95" not in MEASURES


def test_of_many_arms_some_are_shown_and_the_others_counted() -> None:
    summary = Findings(arms(*"abcdefghijk", saved=(0.1,) * 11, calls=1))
    assert len(columns(summary)) == 9
    assert verdicts(summary)[-1] == "3 more arms are in --json"
    assert len(summary.as_json()["arms"]) == 11


# -- the table and JSON


def test_the_table_has_each_figure_and_no_other() -> None:
    assert sorted(ROWS) == sorted(Fleet().figures())


def test_a_cell_says_its_figure_with_its_interval() -> None:
    cells = dict(rows_of(Findings(fleet(A, B))))
    assert cells["turns_ahead"] == ["75 % (50\N{EN DASH}100)"]
    assert cells["saved"] == ["0.10 0.40 0.40 (0.00\N{EN DASH}0.10)"]  # 0, 0.1, 0.2, 0.4: the second
    assert cells["wasted_cost"] == ["0.003"]
    assert cells["cancelled"] == ["2 resumed"]
    assert "forced" not in cells
    assert "gap" not in cells
    assert dict(rows_of(Findings(fleet(A))))["turns_ahead"] == ["50 %"]


def test_json_is_the_figures_by_their_names() -> None:
    made = fleet(A, B, by="arm")
    made.unread = 3
    values = json.loads(json.dumps(Findings(made, worth=Worth(calls=1.0)).as_json()))
    figures = made.figures()
    assert set(values) == {
        *figures,
        *("answer", "intervals", "arms", "differences", "worst", "modelled", "unread", "unread_lines", "not_known"),
    }
    assert values["saved"] == {
        "p50": pytest.approx(0.1, rel=0.01),
        "p90": pytest.approx(0.4, rel=0.01),
        "p99": pytest.approx(0.4, rel=0.01),
    }
    assert (values["gap"], values["cancelled"], values["unread"]) == (None, {"resumed": 2}, 3)
    assert set(values["intervals"]["saved"]) == {"p50", "p90", "p99"}
    assert values["intervals"]["turns_ahead"] == [0.5, 1.0]
    assert values["intervals"]["gap"] is None
    assert list(values["arms"]) == ["(none)"]
    assert set(values["arms"]["(none)"]) == {*figures, "intervals"}
    assert values["differences"] == {"control": "(none)", "primary": "saved.p50", "arms": {}}
    assert values["worst"]["waste"] == [
        {"value": 1, "file": "0.jsonl", "line": 1, "call": "a", "turn": 1},
        {"value": 1, "file": "1.jsonl", "line": 1, "call": "c", "turn": 2},
    ]


def test_differences_are_json_too() -> None:
    found = Findings(arms("a", "b")).as_json()["differences"]
    assert found["arms"]["b"]["saved.p50"]["more_than_chance"] is True
    assert list(found["arms"]["b"]["saved.p50"]) == ["difference", "interval", "more_than_chance"]


# -- the page


class Page(HTMLParser):
    """The tags that are open, and those that there are; raises where they do not match."""

    VOID = ("meta", "li", "th", "td", "tr", "line", "circle", "polyline", "thead", "tbody", "ol", "p", "i")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_has_the_answer_the_charts_the_table_and_the_notes() -> None:
    summary = Findings(arms("a", "b"))
    text = fleet_page(summary, {("a.jsonl", 0): "r-calls/1.html"})
    assert summary.answer() in text
    page = Page(text)
    assert [attrs["aria-label"] for tag, attrs in page.tags if tag == "svg"] == [
        *("How much was saved, by share of turns", "Gain against waste"),
    ]
    assert sum(tag == "polyline" for tag, _ in page.tags) == 2  # a curve an arm
    assert sum(tag == "circle" for tag, _ in page.tags) == 2
    assert all(name in text for name, _ in rows_of(summary))
    assert all(escape(why) in text for _, why in said_of(summary))
    assert "http" not in text.replace("http-equiv", "")
    assert not [tag for tag, _ in page.tags if tag in ("script", "img", "link")]


def test_a_curve_is_the_share_of_turns_that_saved_so_much_or_less() -> None:
    """Saved 0, 0.1, 0.2, 0.4 s: the curve rises by a quarter at each. The axis reaches to 0.5, in steps of
    0.1, since 0.4 is in a bucket with a middle of 0.4003."""
    text = fleet_page(Findings(fleet(A, B)))
    (found,) = re.findall(r'<polyline class="user" points="([^"]+)"', text)
    points = [tuple(map(float, point.split(","))) for point in found.split()]
    left, right = map(float, re.findall(r'<line class="grid" x1="([^"]+)" y1="[^"]+" x2="([^"]+)"', text)[0])
    across, high = right - left, 260 - 40 - 12
    shares = sorted({round((220 - y) / high, 2) for _, y in points})
    assert shares == [0.0, 0.25, 0.5, 0.75, 1.0]
    rises = [round((x - left) / across * 0.5, 2) for (x, low), (_, up) in pairwise(points) if up < low]
    assert rises == [0.0, 0.1, 0.2, 0.4]


def test_the_frontier_of_a_sweep_is_drawn_where_there_is_one() -> None:
    points = [FrontierPoint("Policy(max_thoughts=1)", 0.5, 0.3), FrontierPoint("Policy(think_after=0.2)", 0.1, 0.2)]
    text = fleet_page(Findings(fleet(A)), frontier=points)
    assert "frontier of the sweep" in text
    assert "seconds saved a turn (mean)" in text  # the arms' chart has medians
    assert "Policy(think_after=0.2)" in text
    assert "frontier of the sweep" in fleet_page(Findings(Fleet()), frontier=points)
    assert "<svg" not in fleet_page(Findings(Fleet()))
    assert "frontier" not in fleet_page(Findings(fleet(A))).split("</style>")[1]


def test_hostile_labels_and_names_are_text() -> None:
    made = Fleet("arm")
    for name in (EVIL, "b"):
        made.add([turn(1, wasted(1), thought(2), saved=0.1, call=EVIL, labels={"arm": name})], EVIL)
    text = fleet_page(Findings(made), {(EVIL, 0): EVIL})
    page = Page(text)
    assert not [tag for tag, _ in page.tags if tag in ("script", "img")]
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    assert "default-src 'none'" in text


def test_without_arms_and_turns_the_page_is_whole() -> None:
    made = Fleet()
    made.unread = 1
    Page(fleet_page(Findings(made)))


def test_where_all_is_known_nothing_is_said_of_it() -> None:
    times = dict.fromkeys(("gap", "head_start", "first_item", "saved", "end_to_first_item"), 0.1)
    times |= dict.fromkeys(("end_to_first_item_without", "end_to_first_sound"), 0.2)
    made = fleet(*([turn(1, thought(usage=True), call=name, **times)] for name in "ac"))
    assert said_of(Findings(made)) == []
    assert "Not known" not in fleet_page(Findings(made))
