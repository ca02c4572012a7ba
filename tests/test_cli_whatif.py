"""`inkturns what-if`: what a person sees, what a program gets, what is refused."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from inkturns.cli.main import app
from inkturns.events import TurnEagerEnd, TurnEnd, TurnStart
from inkturns.policy import Policy
from tests.recorded import Recorded
from tests.what_if_calls import independent, recorded


def run(*args: object, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(app, ["what-if", *map(str, args)], env={"COLUMNS": "120"}, input=stdin)


def as_json(*args: object, stdin: bytes | None = None) -> dict[str, Any]:
    result = run(*args, "--json", stdin=stdin)
    assert result.exit_code in (0, 2), result.output
    values: dict[str, Any] = json.loads(result.stdout)
    return values


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calls")
    for seed in range(6):
        (folder / f"{seed}.jsonl").write_bytes(b"".join(recorded(seed, Policy(), independent("a"))))
    return folder


def test_it_shows_both_side_by_side_with_their_grades(calls: Path) -> None:
    result = run(calls, "--policy", "think_after=0.123", "--policy", "speculate=min_words(3)")
    assert result.exit_code == 0
    assert result.stdout.startswith("Thinking ahead answered ")
    rows = {line.split("  ")[0].strip(): line for line in result.stdout.splitlines()}
    assert rows["thoughts"].endswith("% exact")
    assert "modelled" in rows["saved p50"]
    assert "Kaplan-Meier" in result.stdout
    assert "Not known: interrupts, backchannels" in result.stdout
    assert result.stderr == ""


def test_json_has_the_designs_names(calls: Path) -> None:
    values = as_json(calls, "--policy", "max_thoughts=0")
    assert {"recorded", "other", "grades"} < values.keys()
    assert set(values["recorded"]["saved"]) == {"p50", "p90", "p99"}
    assert values["other"]["gap"] is None  # nothing is thought ahead
    assert values["recorded"]["turns_ahead"] > 0 == values["other"]["turns_ahead"]
    assert values["other"]["extra_calls_per_turn"] == 0
    assert values["unread"] == 0


def test_standard_input_is_read_twice_and_gzip_is_unpacked(calls: Path, tmp_path: Path) -> None:
    one = (calls / "1.jsonl").read_bytes()
    packed = tmp_path / "1.jsonl.gz"
    packed.write_bytes(gzip.compress(one))
    answers = [as_json(path, "--policy", "max_thoughts=0", stdin=one) for path in ("-", packed, calls / "1.jsonl")]
    assert answers[0] == answers[1] == answers[2]
    assert answers[0]["recorded"]["calls"] == 1


def test_what_cannot_be_read_is_named_and_counted_and_the_rest_is_compared(calls: Path, tmp_path: Path) -> None:
    whole = (calls / "1.jsonl").read_bytes()
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(whole * 9)[:-50])
    (tmp_path / "odd.jsonl").write_bytes(whole + b"[]\n" + whole)
    (tmp_path / "short.jsonl").write_bytes(whole + b'{"t": 1')
    result = run(tmp_path, tmp_path / "none", "--policy", "max_thoughts=0", "--json")
    assert result.exit_code == 2
    values = json.loads(result.stdout)
    assert values["unread"] == 2
    assert values["recorded"]["calls"] == 3
    said = result.stderr.splitlines()
    assert len(said) == 4  # each once
    assert any("cut.jsonl.gz: cut short" in line for line in said)
    assert any("none: no such file" in line for line in said)


def test_a_cut_last_line_is_no_fault(calls: Path, tmp_path: Path) -> None:
    (tmp_path / "short.jsonl").write_bytes((calls / "1.jsonl").read_bytes() + b'{"t": 1')
    assert run(tmp_path, "--policy", "max_thoughts=0").exit_code == 0


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "what-if needs another policy, as in --policy think_after=0.1"),
        (("--policy", "think_after=-1"), "Policy.think_after must be 0 or more seconds, got -1"),
        (("--policy", "think_afer=1"), "Policy has no field 'think_afer'"),
        (("--policy", "max_thoughts=1", "--latency", "x"), "--latency x: neither a number nor a file"),
        (("--policy", "max_thoughts=1", "--prices", "x"), "--prices x: No such file"),
        (("--eot-threshold", "2"), "FluxSettings.eot_threshold must be from 0.5 to 1.0, got 2.0"),
        (("--eot-threshold", "0.9"), "Ink 2 does not send the likelihood by which it decides"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_the_reason(calls: Path, args: tuple[str, ...], said: str) -> None:
    result = run(calls, *args)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stdout == ""


def test_words_of_redacted_recordings_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(b"".join(recorded(1, Policy(), independent("a"), redact=True)))
    result = run(tmp_path, "--policy", "match=same_text")
    assert result.exit_code == 2
    assert "Policy.match depends on its words, which are not known" in result.stderr
    assert run(tmp_path, "--policy", "think_after=0.1").exit_code == 0


def test_of_a_path_that_is_not_there_nothing_else_is_said(tmp_path: Path) -> None:
    result = run(tmp_path / "nowhere", "--policy", "max_thoughts=0")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.endswith("nowhere: no such file or directory\n")


def test_without_a_turn_there_is_nothing_to_compare(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"type": "turn.start"}\n')
    result = run(tmp_path, "--policy", "max_thoughts=0")
    assert result.exit_code == 0
    assert result.stdout.startswith("No turns to compare.\n\nNot known: ")


def test_a_latency_stands_in_for_a_model_that_nobody_measured(tmp_path: Path) -> None:
    frames = [
        {"type": "turn.start"},
        {"type": "turn.eager_end", "transcript": "a"},
        {"type": "turn.end", "transcript": "a"},
    ]
    lines = [
        b'{"inkturns":1,"policy":{}}\n',
        *(json.dumps({"t": n / 2, "frame": json.dumps(one)}).encode() + b"\n" for n, one in enumerate(frames)),
    ]
    (tmp_path / "x.jsonl").write_bytes(b"".join(lines))
    values = as_json(tmp_path, "--policy", "think_after=0.2", "--latency", "0.8")
    assert values["recorded"]["saved"]["p50"] == pytest.approx(0.5, rel=0.01)
    assert values["other"]["saved"]["p50"] == pytest.approx(0.3, rel=0.01)
    assert "head_start p50" in run(tmp_path, "--policy", "think_after=0.2").stdout


FLUX = [
    ("StartOfTurn", "so", 1.0, 0.1),
    ("EagerEndOfTurn", "so", 2.0, 0.4),
    ("TurnResumed", "so", 2.25, 0.1),
    ("EagerEndOfTurn", "so what", 3.0, 0.6),
    ("EndOfTurn", "so what", 3.5, 0.9),
]


def test_flux_thresholds(tmp_path: Path) -> None:
    messages = [
        {
            "type": "TurnInfo",
            "event": event,
            "turn_index": 0,
            "transcript": text,
            "audio_window_end": at,
            "end_of_turn_confidence": sure,
        }
        for event, text, at, sure in FLUX
    ]
    path = tmp_path / "flux.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in [{"type": "Connected"}, *messages]))
    values = as_json(path, "--eager-eot-threshold", "0.5", "--policy", "max_thoughts=2")
    assert (values["recorded"]["eager_ends"], values["other"]["eager_ends"]) == (2, 1)
    assert (values["recorded"]["extra_calls_per_turn"], values["other"]["extra_calls_per_turn"]) == (1, 0)
    result = run(path, "--eager-eot-threshold", "0.5")
    assert "eager ends: 1 would have come as they did, 1 would not have come.\n" in result.stdout
    assert "\nends: 1 would have come as they did.\n" in result.stdout
    assert "no model's first item was recorded" in result.stdout
    assert "assumed to come after 0.8 s" in run(path, "--eager-eot-threshold", "0.5", "--latency", "0.8").stdout


def test_a_sweep_ends_with_a_policy_to_paste(calls: Path) -> None:
    values = as_json(calls, "--sweep", "--max-extra-calls", "0.2", "--policy", "max_thoughts=2")
    assert values["best"]["extra_calls_per_turn"] <= 0.2
    gains = [point["gain"] for point in values["frontier"]]
    assert gains == sorted(gains)
    assert values["best"]["gain"] == max(
        point["gain"] for point in values["frontier"] if point["extra_calls_per_turn"] <= 0.2
    )
    result = run(calls, "--sweep", "--max-extra-calls", "0.2", "--policy", "max_thoughts=2")
    assert result.exit_code == 0
    said = result.stdout.splitlines()
    assert values["best"]["policy"] in said
    assert "max_thoughts=2" in values["best"]["policy"]
    assert any(line.rstrip().endswith("as recorded") for line in said)
    exec("\n".join(said[said.index(values["best"]["policy"]) - 1 :][:2]), dict[str, object]())  # imports and all


FIXED = ("--sweep", "--policy", "match=same_words", "--policy", "after_resume=cancel", "--policy", "think_after=0")


def test_a_policy_of_a_sweep_comes_to_what_what_if_says_of_it(calls: Path) -> None:
    found = as_json(calls, *FIXED)
    assert found == as_json(calls, *FIXED, "--max-extra-calls", "0.3")
    best = as_json(calls, *FIXED, "--policy", "speculate=min_words(3)", "--max-extra-calls", "9")["best"]
    assert best["policy"] == "Policy(speculate=min_words(3))"
    other = as_json(calls, "--policy", "speculate=min_words(3)")["other"]
    assert [best[name] for name in ("extra_calls_per_turn", "turns_ahead")] == [
        other[name] for name in ("extra_calls_per_turn", "turns_ahead")
    ]


def test_a_sweep_within_money(calls: Path, tmp_path: Path) -> None:
    """600 tokens a thought at 5 for a million: 0.003 each, and 3 for 1,000 turns with one unused thought each."""
    for path in calls.iterdir():
        usage = '"usage":{"input_tokens":500,"output_tokens":100,"cached_tokens":0,"cost":0.0}'
        (tmp_path / path.name).write_text(path.read_text("utf-8").replace('"usage":null', usage), "utf-8")
    (tmp_path / "prices").write_text('{"*": {"input": 5, "output": 5}}')
    found = as_json(tmp_path, *FIXED, "--prices", tmp_path / "prices", "--max-cost", "0.9")
    assert found["best"]["cost_of_1000_turns"] == pytest.approx(3 * found["best"]["extra_calls_per_turn"])
    assert 0 < found["best"]["cost_of_1000_turns"] <= 0.9
    assert not any("too low" in sentence for sentence in found["not_known"])
    told = run(tmp_path, "--policy", "max_thoughts=1", "--prices", tmp_path / "prices").stdout
    assert "wasted_cost_per_turn" in told
    assert "wasted_cost_per_turn" not in run(tmp_path, "--policy", "max_thoughts=1").stdout


def test_within_money_it_is_said_that_costs_are_too_low(calls: Path, tmp_path: Path) -> None:
    """The first thought of each call told what it cost; what the others cost is taken for nothing."""
    usage = '"usage":{"input_tokens":500,"output_tokens":100,"cached_tokens":0,"cost":0.1}'
    for path in calls.iterdir():
        (tmp_path / path.name).write_text(path.read_text("utf-8").replace('"usage":null', usage, 1), "utf-8")
    said = run(tmp_path, *FIXED, "--max-cost", "9").stdout
    thoughts = as_json(tmp_path, "--policy", "max_thoughts=1")["recorded"]["thoughts"]
    assert (
        f"Not known: all that unused model calls cost: {thoughts - 6} of {thoughts} recorded thoughts told no usage, "
        "so costs are too low; --prices fills them in."
    ) in said


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (
            ("--max-cost", "1"),
            "--max-extra-calls and --max-cost choose among the policies of a --sweep: give that too\n",
        ),
        (("--sweep", "--max-cost", "1", "--max-extra-calls", "1"), "give --max-extra-calls or --max-cost: one measure"),
    ],
)
def test_limits_that_decide_nothing_are_refused(calls: Path, arguments: tuple[str, ...], why: str) -> None:
    result = run(calls, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(why)


def test_a_sweep_of_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    result = run(tmp_path, "--sweep")
    assert (result.exit_code, result.stderr) == (2, "there are no calls to try policies on\n")


def test_a_sweep_within_what_it_may_cost(calls: Path) -> None:
    # no usage was told: only what wastes none is known
    result = run(calls, "--sweep", "--max-cost", "0", "--policy", "max_thoughts=1", "--policy", "match=same_words")
    assert "No policy gains anything within 0 in 1,000 turns" in result.stdout
    result = run(calls, "--sweep", "--max-extra-calls", "0", "--policy", "think_after=0", "--policy", "speculate=true")
    assert "No policy is known to stay within 0 extra model calls a turn." in result.stdout


def test_a_sweep_of_calls_of_which_nothing_can_be_asked(calls: Path, tmp_path: Path) -> None:
    assert "ask for one of the two" in run(calls, "--sweep", "--eot-threshold", "0.9").stderr
    (tmp_path / "x.jsonl").write_bytes(b"".join(recorded(1, Policy(), independent("a"), redact=True)))
    result = run(tmp_path, "--sweep", "--policy", "match=same_text")
    assert result.exit_code == 2
    assert "Policy.match depends on its words" in result.stderr


def test_the_command_is_in_the_help() -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert "what-if" in result.stdout


def test_a_sweeps_page_has_the_report_and_the_frontier(calls: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    result = run(calls, "--sweep", "--policy", "max_thoughts=2", "--html", str(page))
    assert result.exit_code == 0
    text = page.read_text("utf-8")
    assert "Other policies: the frontier of the sweep" in text
    assert "Thinking ahead made replies begin" in text
    assert f"{as_json(calls, '--sweep', '--policy', 'max_thoughts=2')['frontier'][-1]['policy']}: " in text


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (("--policy", "max_thoughts=2", "--html", "page.html"), "--html draws the frontier of a --sweep"),
        (("-", "--sweep", "--html", "page.html"), "no - among PATHS"),
        (("--sweep", "--html", "nowhere/page.html"), "--html nowhere/page.html: No such file or directory"),
    ],
)
def test_a_page_that_cannot_be_made_is_refused(
    calls: Path, given: tuple[str, ...], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(calls, *given)
    assert result.exit_code == 2
    assert why in result.stderr
    assert not [*tmp_path.iterdir()]


def test_a_page_that_cannot_be_written_is_said_after_the_answer(calls: Path) -> None:
    result = run(calls, "--sweep", "--policy", "max_thoughts=2", "--html", "/dev/full")
    assert result.exit_code == 2
    assert "--html /dev/full: " in result.stderr
    assert "It gains most within" in result.stdout


def test_a_line_with_a_function_of_the_users_own_runs_as_it_is(
    calls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_words.py").write_text("import functools\nsame = functools.partial(lambda a, b: a == b)\n")
    monkeypatch.chdir(tmp_path)
    done = run(calls, "--sweep", "--policy", "match=my_words.same", "--policy", "after_resume=cancel")
    assert done.exit_code == 0
    said = done.stdout.splitlines()
    at = said.index("import my_words")
    assert said[at + 2].endswith("match=my_words.same)")
    monkeypatch.syspath_prepend(tmp_path)
    exec("\n".join(said[at : at + 3]), dict[str, object]())


def test_a_policy_of_the_table_can_be_typed_again(calls: Path) -> None:
    options = ("--policy", "think_after=0", "--policy", "max_thoughts=3", "--policy", "after_resume=cancel")
    typed = "speculate=min_words(3, or_any=('yes', 'no, no'))"
    said = run(calls, "--sweep", *options, "--policy", typed, "--max-extra-calls", "9").stdout
    assert f" {typed}\n" in said.replace("  \n", "\n").replace("  \n", "\n").replace(" \n", "\n")


def test_a_share_is_at_most_all(tmp_path: Path) -> None:
    """Nothing was thought ahead, and nearly all would be: calls like these differ by more than there is left."""
    for seed in range(4):
        lines = recorded(seed, Policy(speculate=False), independent("a"))
        (tmp_path / f"{seed}.jsonl").write_bytes(b"".join(lines))
    other = as_json(tmp_path, "--policy", "speculate=true")["other"]
    assert other["turns_ahead"] > 0.8
    assert other["intervals"]["turns_ahead"][1] == 1.0


def watched(path: Path, text: str = "a", times: bool = True) -> None:
    events = [{"type": "turn.start"}] + [{"type": f"turn.{name}", "transcript": text} for name in ("eager_end", "end")]
    frames = [{**({"t": n / 2} if times else {}), "frame": json.dumps(one)} for n, one in enumerate(events)]
    path.write_text("".join(json.dumps(one) + "\n" for one in [{"inkturns": 1, "policy": {}}, *frames]))


def test_what_is_assumed_of_a_model_is_said_and_what_nobody_measured_too(tmp_path: Path) -> None:
    watched(tmp_path / "w.jsonl")
    told = run(tmp_path, "--policy", "think_after=0.2").stdout
    assert "Not known: no model's first item was recorded, so nobody knows what a policy gains; --latency" in told
    assert "Kaplan-Meier" not in told
    told = run(tmp_path, "--policy", "think_after=0.2", "--latency", "0.8").stdout
    assert "modelled: where no first item was measured, it is assumed to come after 0.8 s (--latency)." in told
    assert "no model's first item" not in told


def test_a_wait_needs_times(tmp_path: Path) -> None:
    watched(tmp_path / "w.jsonl", times=False)
    why = "the call's inputs have no times, and Policy.think_after needs them\n"
    for asked in (("--policy", "think_after=0.2"), ("--sweep", "--latency", "0.3")):
        done = run(tmp_path, *asked)
        assert (done.exit_code, done.stdout, done.stderr) == (2, "", why)
    assert run(tmp_path, "--policy", "max_thoughts=0", "--policy", "think_after=0").exit_code == 0


def test_a_quantile_beyond_all_that_was_seen_is_explained(tmp_path: Path) -> None:
    """The only thought that ended had its item after 0.5 s; the other was cut before it had one."""
    call = Recorded(Policy(speculate=False))
    call.at(0.0, TurnStart()).at(1.0, TurnEagerEnd("a")).at(2.0, TurnEnd("a"))
    call.note(2.9, "settled", 1, settled={"thought": 1, "outcome": "adopted", "began": 2.0, "cancelled_at": 2.9})
    call.at(3.0, TurnStart()).at(4.0, TurnEagerEnd("a b")).at(5.0, TurnEnd("a b"))
    call.note(5.5, "settled", 2, settled={"thought": 1, "outcome": "adopted", "began": 5.0, "first_item": 5.5})
    (tmp_path / "a.jsonl").write_bytes(b"".join(call.lines))
    assert "?: longer than any time that was seen." in run(tmp_path, "--policy", "speculate=true").stdout


def test_a_function_that_raises_is_said(calls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_faults.py").write_text("def long(turn):\n    return turn.words > 3\n")
    monkeypatch.chdir(tmp_path)
    said = run(calls, "--policy", "speculate=my_faults.long").stdout
    assert "Not known: what a function of the other policy says where it raises: " in said
    assert "where it raises" not in run(calls, "--policy", "max_thoughts=1").stdout


def test_a_label_that_calls_lack_is_said(calls: Path) -> None:
    said = run(calls, "--policy", "max_thoughts=1", "--cluster", "custmer").stdout
    assert "Not known: 6 of 6 calls have no label custmer: each counts by itself." in said


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (
            ("--eot-threshold", "0.8", "--cluster", "customer"),
            "--cluster and --prices need recordings: Flux's messages",
        ),
        (("--eot-threshold", "0.6", "--eager-eot-threshold", "0.7"), "--eager-eot-threshold must not be above --eot-"),
    ],
)
def test_options_that_thresholds_cannot_have_are_refused(calls: Path, options: tuple[str, ...], why: str) -> None:
    done = run(calls, *options)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith(why)


def test_a_sweep_has_intervals_on_its_page_alone(calls: Path, tmp_path: Path) -> None:
    done = run(calls, *FIXED, "--cluster", "customer")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("--cluster is for intervals, and the table of a --sweep has none")
    assert run(calls, *FIXED, "--cluster", "customer", "--html", tmp_path / "page.html").exit_code == 0


def test_in_money_it_is_said_where_no_cost_was_told(calls: Path) -> None:
    said = run(calls, *FIXED, "--max-cost", "1").stdout
    assert "policies cost: their thoughts told no usage; --max-extra-calls limits their number instead." in said


@pytest.mark.parametrize("width", [30, 60, 80])
def test_no_figure_is_cut_where_the_terminal_is_narrow(calls: Path, width: int) -> None:
    for asked in (("--policy", "think_after=0.1"), FIXED):
        said = CliRunner().invoke(app, ["what-if", str(calls), *asked], env={"COLUMNS": str(width)}).stdout
        assert "\N{HORIZONTAL ELLIPSIS}" not in said
    assert (
        "think_after=0"
        in CliRunner()
        .invoke(app, ["what-if", str(calls), "--sweep", "--policy", "match=same_words"], env={"COLUMNS": str(width)})
        .stdout
    )
