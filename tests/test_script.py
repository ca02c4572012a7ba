"""Scripts: what they say as JSON lines, as likelihood and words over time, and as the frames that come of it."""

import hashlib
import json
import math
import statistics
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from random import Random

import anyio
import pytest

from inkturns import BALANCED, PATIENT, RESPONSIVE, Policy, TurnMachine, TurnSettings, decode
from inkturns.events import TurnEnd
from inkturns.testing import virtual_time
from inkturns.testing.emulator import Script, hesitation, noise, pause, say, trouble
from inkturns.testing.emulator.connection import Closing, Connection
from inkturns.testing.emulator.conversations import conversation, troubled_conversation
from inkturns.testing.emulator.likelihood import PEAK, SHOWN, STEP, WORD
from inkturns.testing.emulator.parts import TROUBLES, Noise, Pause, Say
from inkturns.testing.emulator.script import ScriptError
from inkturns.testing.oracle import check

OLD = TurnSettings(start_threshold=0.8, eager_end_threshold=0.4, end_threshold=0.2, end_timeout_ms=5600)
CALL = Script(
    say("Hi there.", pause(0.4), "I would like to book a table, please."),
    say("For two", hesitation(0.7), "no, four people."),
    noise(0.6),
    say("Stop!", over=True),
    seed=7,
)
COMMANDS = (
    '{"type": "config", "turn": {"end_timeout_ms": 700}}',
    '{"type": "config", "turn": {"start_threshold": 0.9, "eager_end_threshold": 0.8}}',
    '{"type": "config", "turn": {"end_threshold": 0.05}}',
    "what?",
)
RECORDING = Path(__file__).parent / "sessions" / "ink2-complete-turn.jsonl"


def settings(eager_end: float = 0.4, end: float = 0.2, *, start: float = 0.8, timeout: int = 5600) -> TurnSettings:
    return TurnSettings(start_threshold=start, eager_end_threshold=eager_end, end_threshold=end, end_timeout_ms=timeout)


def told(script: Script, given: TurnSettings = BALANCED) -> list[tuple[float, str, str]]:
    """(seconds, type, transcript) of each frame."""
    frames = [(at, json.loads(frame)) for at, frame in script.frames(given)]
    return [(at, frame["type"], frame.get("transcript", "")) for at, frame in frames]


def kinds(script: Script, given: TurnSettings = BALANCED) -> list[str]:
    return [kind for _, kind, _ in told(script, given)]


def texts(script: Script, kind: str = "turn.end", given: TurnSettings = BALANCED) -> list[str]:
    return [text for _, its, text in told(script, given) if its == kind]


# -- the parts


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: say(), "needs at least one text"),
        (lambda: say(pause(1)), "needs at least one text"),
        (lambda: say("hi", " "), "must not be blank"),
        (lambda: say("hi", 3), "takes texts, pauses"),  # type: ignore[arg-type]
        (lambda: say("hi", say("ho")), "takes texts, pauses"),
        (lambda: say("hi", after=-1), "after must be from 0 to 3600, got -1"),
        (lambda: pause(-1), "pause must be from 0 to 3600, got -1"),
        (lambda: pause("1"), "pause must be a number from 0 to 3600, got"),  # type: ignore[arg-type]
        (lambda: pause(True), "pause must be a number from 0 to 3600, got"),
        (lambda: hesitation(float("nan")), "hesitation must be from 0 to 3600, got nan"),
        (lambda: noise(1, 1.5), "likelihood must be from 0 to 1, got 1.5"),
        (lambda: trouble("rain"), "trouble must be one of refuse, .*, got 'rain'"),
        (lambda: trouble("drop", on="turn"), "on must be one of connected, .*, got 'turn'"),
        (lambda: trouble("drop", status=400), "trouble 'drop' has no option 'status'; it has on, code"),
        (lambda: trouble("drop", code=5), "code must be a WebSocket close code, got 5"),
        (lambda: trouble("refuse", status=500), "status of a refusal must be one of 401, .*, got 500"),
        (lambda: trouble("garbage", kind="x"), "kind must be one of text, .*, got 'x'"),
        (lambda: trouble("drop", when=1), "when"),
        (lambda: Script("hi"), r"Script takes say\(\), .*, got 'hi'"),  # type: ignore[arg-type]
        (lambda: Script(seed=1.5), "seed must be an int, got 1.5"),  # type: ignore[arg-type]
    ],
)
def test_what_is_wrong_with_a_part_is_said_when_it_is_made(make: object, what: str) -> None:
    with pytest.raises((TypeError, ValueError), match=what):
        make()  # type: ignore[operator]


# -- JSON lines


@pytest.mark.parametrize("seed", range(30))
def test_a_script_is_its_lines(seed: int) -> None:
    for script in (conversation(seed), troubled_conversation(seed), CALL):
        lines = list(script.to_lines())
        again = Script.from_lines(lines)
        assert again == script
        assert hash(again) == hash(script)
        assert list(again.frames()) == list(script.frames())
        assert all(json.loads(line) for line in lines)
        assert Script.from_lines(line.encode() + b"\r\n" for line in lines) == script


def test_a_line_is_as_one_would_write_it() -> None:
    assert list(CALL.to_lines())[:2] == [
        '{"script": 1, "seed": 7}',
        '{"say": ["Hi there.", {"pause": 0.4}, "I would like to book a table, please."]}',
    ]


def test_lines_may_have_comments_and_no_header() -> None:
    lines = ["# a call", "", '{"pause": 1}', '  {"noise": 0.5}']
    assert Script.from_lines(lines) == Script(Pause(1), Noise(0.5))


def test_a_byte_order_mark_is_passed_over() -> None:
    line = '\ufeff{"pause": 1}'
    assert Script.from_lines([line]) == Script.from_lines([line.encode()]) == Script(Pause(1))


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("{", "malformed|truncated"),
        ("3", "a part must be an object"),
        ("{}", "a part must have exactly one of say, pause"),
        ('{"pause": 1, "noise": 1}', "a part must have exactly one of"),
        ('{"pause": "long"}', "pause"),
        ('{"pause": -1}', "pause must be from"),
        ('{"pause": 1, "loud": true}', "loud"),
        ('{"say": "hi"}', "say must be a list"),
        ('{"say": []}', "needs at least one text"),
        ('{"say": ["hi", 3]}', "a part must be an object"),
        ('{"say": ["hi"], "ovre": true}', "ovre"),
        ('{"say": ["hi"], "over": 1}', "over"),
        ('{"trouble": "rain"}', "got 'rain'"),
        ('{"script": 1}', "a part must have exactly one of"),  # not the first
        (b"\xff", "utf-8"),
        ("[" * 100_000, "."),
    ],
)
def test_a_bad_line_is_refused_by_its_number(line: str | bytes, what: str) -> None:
    with pytest.raises(ScriptError, match=what) as caught:
        Script.from_lines(["# one", '{"pause": 1}', line])
    assert caught.value.line == 3
    assert str(caught.value).startswith("line 3: ")


def test_a_later_version_is_refused() -> None:
    with pytest.raises(ScriptError, match="line 1: "):
        Script.from_lines(['{"script": 2, "seed": 0}'])


# -- the words


def test_every_word_is_in_an_end_to_the_letter() -> None:
    for seed in range(100):
        script = conversation(seed, 4)
        breaths = [part for one in script.parts if isinstance(one, Say) for part in one.say if isinstance(part, str)]
        assert " ".join(text for text in texts(script, given=OLD) if text) == " ".join(breaths)
    script = Script(say(" two  spaces,", hesitation(0.4), "a\ttab, and one at the end "))
    assert texts(script, given=OLD) == ["two  spaces, a\ttab, and one at the end "]


def test_a_turn_starts_after_130_ms_and_its_first_words_come_up_to_a_second_later() -> None:
    starts, firsts = [], []
    for seed in range(100):
        script = Script(say("I would like to book a table for four people."), seed=seed)
        start = next(at for at, kind, _ in told(script) if kind == "turn.start")
        starts.append(start - script.likelihood.silence.index(0.0) * STEP)
        firsts.append(next(at for at, _, text in told(script) if text) - start)
    assert statistics.median(starts) == pytest.approx(0.13, rel=0.2)
    assert all(0.05 < start < 0.25 for start in starts)
    assert statistics.median(firsts) == pytest.approx(0.7, rel=0.2)
    assert all(0.4 < first < 1.05 for first in firsts)


def test_a_short_text_is_not_held_back() -> None:
    for seed in range(100):
        for text in ("No.", "For two"):
            words = Script(say(text, hesitation(2), "no, four."), seed=seed).likelihood.words[: len(text.split())]
            assert words[-1].shown - words[-1].spoken <= SHOWN[1] + WORD[1]  # a word may wait for the next


def test_text_grows_as_in_the_recording() -> None:
    """Mostly by a word an update, sometimes two, sometimes inside a word; punctuation comes with the next word; now and
    then a space comes early."""
    words = [json.loads(line).get("transcript") for line in RECORDING.read_text(encoding="utf-8").splitlines()]
    grown = Counter[str]()
    for seed in range(200):
        # the recording's own words
        for before, after in pairwise(texts(Script(say(words[-1]), seed=seed), "turn.update", PATIENT)):
            assert after.startswith(before)
            if not (new := after.removeprefix(before)):
                continue
            grown["updates"] += 1
            grown["one word"] += len(new.split()) == 1 and new[0].isspace()
            grown["two words"] += len(new.split()) > 1 and new[0] != "."
            grown["inside a word"] += new[0].isalpha() and not before.endswith(" ")
            grown["trailing space"] += after.endswith(" ")
            grown["point first"] += new.startswith(". ")
            grown["point last"] += new.endswith(".") and before.endswith(("flex ", "flex"))
    share = {name: count / grown["updates"] for name, count in grown.items()}
    assert share["one word"] > 0.7
    assert 0.03 < share["two words"] < 0.2
    assert 0.01 < share["inside a word"] < 0.06
    assert 0.01 < share["trailing space"] < 0.1
    assert 0.02 < share["point first"] < 0.08
    assert share["point last"] > 0


# -- the curve and the rule


def test_a_curve_rises_in_speech_and_falls_in_silence() -> None:
    heard = CALL.likelihood
    assert all(0 <= value <= PEAK for value in heard.values)
    for (before, after), silence in zip(pairwise(heard.values), heard.silence[1:], strict=True):
        assert after <= before if silence else True
    assert max(heard.values) > 0.95
    assert heard.values[0] == 0
    assert heard.values[-1] < 0.05
    assert heard.seconds == CALL.seconds


def test_the_same_script_is_the_same_call_and_another_seed_another() -> None:
    assert list(CALL.frames()) == list(CALL.frames())
    assert list(CALL.frames()) != list(Script(*CALL.parts, seed=8).frames())
    assert kinds(CALL)[0] == "connected"


def test_a_breath_with_a_short_pause_is_one_turn_and_a_barge_in_comes_soon() -> None:
    ends = [at for at, kind, _ in told(CALL) if kind == "turn.end"]
    starts = [at for at, kind, _ in told(CALL) if kind == "turn.start"]
    assert texts(CALL) == ["Hi there. I would like to book a table, please.", "For two no, four people.", "", "Stop!"]
    assert starts[1] - ends[0] > 1.5
    assert 0.3 < starts[3] - ends[2] < 1


@pytest.mark.parametrize("seed", range(20))
def test_a_hesitation_is_taken_back_and_a_long_one_ends_by_the_timeout(seed: int) -> None:
    short = Script(say("For two", hesitation(0.8), "no, four."), seed=seed)
    long = Script(say("For two", hesitation(4), "no, four."), seed=seed)
    eager = settings(0.8, 0.05, start=0.85)
    assert "turn.resume" in kinds(short, eager)
    assert kinds(short, eager).count("turn.end") == 1
    ended = [at for at, kind, _ in told(long, settings(0.8, 0.05, start=0.85, timeout=2000)) if kind == "turn.end"]
    assert len(ended) == 2
    spoken = long.likelihood.words[1].spoken
    assert ended[0] == pytest.approx(spoken + 2, abs=0.02)


def test_what_the_timeout_ended_is_over_until_it_sounds_again() -> None:
    """However likely it is yet that the user is in a turn."""
    for seed in range(30):
        got = kinds(Script(say("I would like to book a table."), seed=seed), TurnSettings(end_timeout_ms=640))
        assert (got.count("turn.start"), got.count("turn.end")) == (1, 1)


@pytest.mark.parametrize("start", [0.5, 0.8, 0.9])
@pytest.mark.parametrize("word", ["I", "No.", "Stop!"])
def test_a_short_word_is_a_turn(word: str, start: float) -> None:
    for seed in range(100):
        assert texts(Script(say(word), seed=seed), given=settings(start=start)) == [word]


def test_silence_and_noise_stand_where_they_are_put() -> None:
    words, patient = Script(pause(2), say("Well,", noise(0.5), "hello.", pause(0.2), pause(0.2)), seed=1), settings(0.3)
    first = next(at for at, kind, _ in told(words, patient) if kind == "turn.start")
    assert 2 < first < 2.3
    assert texts(words, given=patient) == ["Well, hello."]
    apart = Script(hesitation(1), say("One."), pause(5), say("Two."), noise(0.5), noise(0.5), seed=2)
    starts = [at for at, kind, _ in told(apart) if kind == "turn.start"]
    assert 1 < starts[0] < 1.3
    assert 5 < starts[1] - starts[0] < 6
    assert texts(apart) == ["One.", "Two.", "", ""]


def test_no_sound_is_no_turn() -> None:
    assert kinds(Script(noise(0))) == ["connected"]


@pytest.mark.parametrize("likelihood", [0.6, 0.9])
def test_a_noise_is_a_turn_without_text_where_it_is_above_the_start_threshold(likelihood: float) -> None:
    script = Script(noise(0.6, likelihood))
    assert ("turn.start" in kinds(script)) == (likelihood > 0.8)
    assert "turn.start" in kinds(script, settings(start=0.5)) or likelihood < 0.5
    assert not any(texts(script))


def test_a_turn_that_is_none_changes_no_later_one() -> None:
    for seed in range(100):
        script = Script(noise(0.6, 0.88), say("I would like to book a table."), seed=seed)
        with_noise, without = kinds(script, settings(start=0.8)), kinds(script, settings(start=0.89))
        assert with_noise.count("turn.start") == 2
        assert with_noise[with_noise.index("turn.end") + 1 :] == without[1:]


def lengths(given: TurnSettings, calls: int) -> Iterator[tuple[float, float | None, int, float | None]]:
    """Of so many one-breath calls: the end, the first eager end after the last word, the resumes, and the time between
    the eager end and the end."""
    for seed in range(calls):
        script = conversation(seed, 1)
        spoken = max(piece.spoken for piece in script.likelihood.words)
        eager, first, resumes, end = None, None, 0, 0.0
        for at, kind, _ in told(script, given):
            if kind == "turn.eager_end":
                eager = at
                first = at if first is None and at >= spoken else first
            elif kind == "turn.resume":
                resumes, eager = resumes + 1, None
            elif kind == "turn.end":
                end = at
                gap = None if eager is None else at - eager
        yield end - spoken, None if first is None else first - spoken, resumes, gap


def test_a_higher_eager_end_is_earlier_and_more_often_withdrawn(full: bool) -> None:
    before: list[tuple[float, float | None, int, float | None]] | None = None
    for eager_end in (0.3, 0.4, 0.5, 0.6, 0.7):
        now = list(lengths(settings(eager_end), 200 if full else 40))
        if before is not None:
            pairs = [(a[1], b[1]) for a, b in zip(before, now, strict=True) if a[1] is not None and b[1] is not None]
            assert all(later >= earlier for later, earlier in pairs)
            assert statistics.mean(a for a, _ in pairs) > statistics.mean(b for _, b in pairs)
            assert sum(one[2] for one in before) < sum(one[2] for one in now)
            assert [one[0] for one in before] == [one[0] for one in now]  # the ends do not move
        before = now


def test_a_higher_end_is_earlier(full: bool) -> None:
    before: list[float] | None = None
    for end in (0.05, 0.1, 0.2, 0.3, 0.4):
        now = [one[0] for one in lengths(settings(0.6, end), 200 if full else 40)]
        if before is not None:
            assert all(later >= earlier for later, earlier in zip(before, now, strict=True))
            assert statistics.mean(before) > statistics.mean(now)
        before = now


@pytest.mark.full
def test_the_times_are_those_that_were_measured() -> None:
    """Within 20 %: 125 ms from eager end to end in the median, 313 ms at the 90th percentile, 1056 ms from the end of
    speech to the end in the mean, all with the old Balanced; and 170 ms with eager 0.6."""
    old, new = list(lengths(OLD, 200)), list(lengths(settings(0.6), 200))
    gaps = [one[3] for one in old if one[3] is not None]
    assert statistics.median(gaps) == pytest.approx(0.125, rel=0.2)
    assert statistics.quantiles(gaps, n=10)[8] == pytest.approx(0.313, rel=0.2)
    assert statistics.mean(one[0] for one in old) == pytest.approx(1.056, rel=0.2)
    assert statistics.median(one[3] for one in new if one[3] is not None) == pytest.approx(0.17, rel=0.2)


@pytest.mark.full
def test_the_shares_are_those_that_were_inferred() -> None:
    """A third of the eager ends are taken back at 0.6; 5-10 % of turns end without one; 2-5 % are empty; a tenth of the
    eager ends are followed by an update that changes nothing."""
    met = Counter[str]()
    for seed in range(400):
        eager, text = False, ""
        for _, kind, transcript in told(conversation(seed, 1), settings(0.6)):
            met[kind] += 1
            if kind == "turn.end":
                met["without"] += not eager
                met["empty"] += not transcript
            if kind == "turn.update" and eager and transcript == text and text:
                met["echo"] += 1
            eager = kind == "turn.eager_end" or (eager and kind == "turn.update")
            text = transcript or text
    assert 0.28 < met["turn.resume"] / met["turn.eager_end"] < 0.42
    assert 0.03 < met["without"] / met["turn.end"] < 0.1
    assert 0.02 <= met["empty"] / met["turn.end"] <= 0.05
    assert 0.04 < met["echo"] / met["turn.eager_end"] < 0.14


def test_what_is_not_promised_happens(full: bool) -> None:
    """An end whose text is not the eager end's, text first seen in the end, several rounds, an empty update, an update
    between eager end and what follows it."""
    met = set[str]()
    for seed in range(300 if full else 200):
        text = eager = ""
        updates = rounds = 0
        for _, kind, transcript in told(conversation(seed, 2)):
            if kind == "turn.start":
                text, eager, updates, rounds = "", "", 0, 0
            elif kind == "turn.update":
                updates += 1
                met |= {"empty update"} if not transcript else set()
                met |= {"update after eager"} if eager and transcript != eager else set()
            elif kind == "turn.eager_end":
                eager, rounds = transcript, rounds + 1
            elif kind == "turn.resume":
                eager = ""
            elif kind == "turn.end":
                met |= {"moved"} if eager and transcript != eager else set()
                met |= {"unseen"} if transcript and not text else set()
                met |= {"rounds"} if rounds > 1 else set()
            text = transcript or text
    assert met == {"empty update", "update after eager", "moved", "unseen", "rounds"}


# -- lawful, and troubled


@pytest.mark.parametrize("given", [BALANCED, RESPONSIVE, PATIENT, OLD, settings(0.8, 0.5, start=0.9, timeout=640)])
def test_a_lawful_script_gives_no_report(given: TurnSettings) -> None:
    for seed in range(60):
        machine = TurnMachine(Policy(stall_timeout=20))
        events = [(decode(frame), at) for at, frame in conversation(seed, 5).frames(given)]
        check([(event, machine.receive(event, at)) for event, at in events], lawful=True)
        assert machine.turn is None
        assert isinstance(events[-1][0], TurnEnd)


def test_a_storm_has_every_trouble() -> None:
    met = {
        part.trouble for n in range(200) for part in troubled_conversation(n).all_parts() if hasattr(part, "trouble")
    }
    assert met == set(TROUBLES)


# -- without a socket


@pytest.mark.parametrize("backend", virtual_time.BACKENDS)
@pytest.mark.parametrize("speed", [1, 4])
def test_play_gives_the_frames_at_their_times(backend: str, speed: float) -> None:
    async def played() -> list[tuple[float, str | bytes]]:
        begun = anyio.current_time()
        return [((anyio.current_time() - begun) * speed, frame) async for frame in CALL.play(speed=speed)]

    expected = list(CALL.frames())
    got = virtual_time.run(played, backend=backend)
    assert [frame for _, frame in got] == [frame for _, frame in expected]
    assert [at for at, _ in got] == pytest.approx([at for at, _ in expected])


@pytest.mark.parametrize("speed", [0, -1, float("nan")])
def test_play_refuses_a_speed_that_is_not_above_0(speed: float) -> None:
    with pytest.raises(ValueError, match="speed must be above 0, got"):
        virtual_time.run(anext, CALL.play(speed=speed))


def test_what_is_slow_is_told_at_its_time_after_the_script_too() -> None:
    call = say("Hello there.")
    usual, slow = list(Script(call, seed=1).frames()), list(Script(trouble("slow", seconds=60), call, seed=1).frames())
    assert [frame for _, frame in slow] == [frame for _, frame in usual]
    assert [at for at, _ in slow] == pytest.approx([at + 60 for at, _ in usual])
    chatty = Script(trouble("slow"), call, trouble("mute", on="turn.end", chatty=True), seed=1)
    assert kinds(chatty).count("turn.end") == 1  # and it comes to an end


def test_what_waits_for_an_event_that_does_not_come_is_told_last() -> None:
    call = say("Hello there.")
    usual, late = kinds(Script(call, seed=1)), kinds(Script(trouble("reorder", on="turn.end"), call, seed=1))
    assert late == usual


def test_what_a_close_flushes_is_written_down_at_its_time() -> None:
    for parts in ((), (trouble("slow", seconds=9),)):
        session = Connection(Script(*parts, say("Hello there, my friend."), seed=1).likelihood)
        session.begin()
        session.audio(1.2)
        flushed = session.command('{"type": "close"}')
        times = [at for at, _ in session.sent]
        assert len(flushed) > 1
        assert times == sorted(times)
        assert times[-len(flushed) :] == [session.seconds] * len(flushed)


def test_frames_refuses_settings_that_are_out_of_order_with_what_they_leave_open() -> None:
    with pytest.raises(ValueError, match="eager_end_threshold"):
        list(CALL.frames(TurnSettings(start_threshold=0.55)))


def test_a_session_goes_by_its_audio_alone() -> None:
    """However it is cut into pieces."""

    def sent(piece: float) -> list[tuple[float, str | bytes | Closing]]:
        session = Connection(CALL.likelihood, seed=CALL.seed)
        session.begin()
        for _ in range(round(CALL.seconds / piece)):
            session.audio(piece)
        return session.sent

    assert sent(0.01) == sent(0.1) == sent(1.0)


# -- only the steps that can change something are judged


@pytest.mark.parametrize("seed", range(40))
def test_in_a_curve_the_likelihood_only_rises_or_only_falls(seed: int) -> None:
    for script in (conversation(seed, 4), troubled_conversation(seed, 4), CALL):
        likelihood = script.likelihood
        assert likelihood.curves[0] == 0
        for begin, end in pairwise([*likelihood.curves, len(likelihood.values)]):
            values, silence = list(likelihood.values[begin:end]), list(likelihood.silence[begin:end])
            assert values in (sorted(values), sorted(values, reverse=True))
            assert silence == sorted(silence)
            assert not any(silence) or all(silence)


@pytest.mark.parametrize("seed", range(10))
def test_the_first_step_that_meets_a_condition_is_the_one_that_a_search_finds(seed: int) -> None:
    likelihood, random = conversation(seed, 2).likelihood, Random(seed)
    for _ in range(100):
        step, above, below = random.randrange(len(likelihood.values) + 9), random.random(), random.random() / 2
        silence_ms, voiced = random.choice((640, 2000, math.inf)), random.random() < 0.5
        met = (
            n
            for n in range(step, len(likelihood.values))
            for value, silence in [likelihood.at(n)]
            if (value > above and not (voiced and silence)) or value < below or silence * 1000 >= silence_ms
        )
        found = likelihood.first(step, above=above, below=below, silence_ms=silence_ms, voiced=voiced)
        assert found == next(met, None)


@pytest.mark.parametrize("seed", range(30))
def test_judging_every_step_gives_the_same_frames(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def sent(script: Script) -> list[tuple[float, str | bytes | Closing]]:
        connection, random = Connection(script.likelihood, seed=seed), Random(seed)
        connection.begin()
        while connection.seconds < script.seconds + 12:
            connection.audio(random.choice((0.001, 0.02, 0.1, 0.37, 2.5)))
            if random.random() < 0.02:
                connection.command(random.choice(COMMANDS))
        connection.rest()
        return connection.sent

    scripts = [
        conversation(seed, 3),
        troubled_conversation(seed, 3),
        Script(hesitation(1), *[say("Yes.")] * 3, seed=seed),
    ]
    jumped = [sent(script) for script in scripts]
    monkeypatch.setattr(Connection, "_next_step", lambda self: self._steps + 1)
    assert jumped == [sent(script) for script in scripts]


def test_the_frames_of_a_script_are_what_they_were() -> None:
    """Recordings, pictures and other people's tests depend on them: they change only on purpose."""
    frames = [
        (round(at, 9), frame)
        for seed in range(20)
        for script in (conversation(seed, 4), troubled_conversation(seed, 3))
        for given in (BALANCED, RESPONSIVE, PATIENT, OLD)
        for at, frame in script.frames(given)
    ]
    assert hashlib.sha256(repr(frames).encode()).hexdigest()[:16] == "3b20b3f5871c1b77"
