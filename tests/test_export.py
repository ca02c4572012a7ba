"""OTLP: a real endpoint gets spans and metrics of live calls, and with `inkturns export` the spans of recordings."""

import gzip
import json
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from threading import Thread
from typing import Any

import anyio
import attrs
import pytest
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from typer.testing import CliRunner, Result

from inkturns import Agent, Recorder, Thought, Turn, Turns
from inkturns.cli.main import app
from inkturns.errors import RecordingError
from inkturns.events import TurnEagerEnd, TurnEnd, TurnStart
from inkturns.report.calls import calls_of
from inkturns.telemetry import instrument
from inkturns.telemetry.export import export
from inkturns.telemetry.instrument import Options
from inkturns.testing import virtual_time
from tests.collected import Collected, check_spans
from tests.recorded import EVIL, Recorded, answered, eventful, hostile, no_fault


class Collector(ThreadingHTTPServer):
    """Takes OTLP over HTTP, as a collector does, and reads it with the official protobuf classes."""

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.spans: list[Any] = []
        self.metrics: list[Any] = []
        super().__init__(("127.0.0.1", 0), Endpoint)
        Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def take(self, path: str, body: bytes) -> None:
        if path == "/v1/traces":
            traces = ExportTraceServiceRequest.FromString(body)
            scopes = [scope for resource in traces.resource_spans for scope in resource.scope_spans]
            assert {scope.scope.name for scope in scopes} == {"inkturns"}
            self.spans += [span for scope in scopes for span in scope.spans]
        else:
            metrics = ExportMetricsServiceRequest.FromString(body)
            resources = [scope for resource in metrics.resource_metrics for scope in resource.scope_metrics]
            self.metrics += [metric for scope in resources for metric in scope.metrics]


class Endpoint(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.take(self.path, gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body)
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (http.server's name)
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        yield server
        server.shutdown()


async def one_turn(agent: Agent) -> None:
    @agent.think
    async def think(turn: Turn) -> str:
        await anyio.sleep(0.5)
        return "gladly"

    @agent.respond
    async def respond(turn: Turn, thought: Thought[str]) -> None:
        await thought
        await anyio.sleep(1)

    async with agent:
        agent.feed(TurnStart())
        agent.feed(TurnEagerEnd("a table"))
        await anyio.sleep(0.25)
        agent.feed(TurnEnd("a table"))
        await anyio.sleep(3)


def of(span: Any) -> dict[str, Any]:
    """Its attributes."""
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}


def seconds(span: Any, since: Any) -> tuple[float, float]:
    begins = since.start_time_unix_nano
    return (span.start_time_unix_nano - begins) / 1e9, (span.end_time_unix_nano - begins) / 1e9


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["export", *arguments])


def test_an_endpoint_gets_a_live_call_and_the_same_from_its_recording(collector: Collector, tmp_path: Path) -> None:
    file = str(tmp_path / "call.jsonl")
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{collector.url}/v1/traces")))
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(endpoint=f"{collector.url}/v1/metrics"))
    meters = MeterProvider([reader], shutdown_on_exit=False)
    agent = Agent(recorder=Recorder(file, call="7f3a", labels={"arm": "b", "phone": "+49"}))
    options: dict[str, Any] = {"name": "booking", "call": "7f3a", "attributes": {"arm": "b"}}
    instrument(agent, tracer_provider=tracers, meter_provider=meters, **options)
    virtual_time.run(one_turn, agent)
    tracers.shutdown()
    meters.shutdown()
    live, collector.spans = collector.spans, []
    done = run(file, "--otlp", collector.url, "--name", "booking", "--label", "arm", "--label", "none")
    assert (done.output, done.exit_code) == ("1 call sent: 3 spans\n", 0)
    for spans in (live, collector.spans):
        order = ["inkturns.thought", "inkturns.reply", "invoke_agent booking"]
        thought, reply, turn = sorted(spans, key=lambda span: order.index(span.name))
        assert [seconds(span, turn) for span in (thought, reply, turn)] == [(0.0, 0.5), (0.25, 1.5), (0.0, 1.5)]
        assert {thought.trace_id, reply.trace_id} == {turn.trace_id}
        assert (thought.parent_span_id, reply.parent_span_id, turn.parent_span_id) == (*[turn.span_id] * 2, b"")
        assert of(turn)["inkturns.turn.saved"] == 0.25
        assert of(turn)["arm"] == "b"
        assert "phone" not in of(turn)
        assert [event.name for event in turn.events][-1] == "inkturns.reply_started"
    assert [of(span) for span in live] == [of(span) for span in collector.spans]
    emitted = {metric.name: metric for metric in collector.metrics}
    [point] = emitted["inkturns.thought.saved"].histogram.data_points
    assert (point.count, point.sum, point.explicit_bounds[:4]) == (1, 0.25, [0.01, 0.025, 0.05, 0.075])
    assert "7f3a" not in f"{emitted}"


def test_recordings_have_their_own_times_and_no_words_unless_asked_for(collector: Collector, tmp_path: Path) -> None:
    file = tmp_path / "calls.jsonl"
    calls = [answered(Recorded(call=f"{n}", started=f"2026-01-0{n}T12:00:00+02:00")) for n in (1, 2)]
    file.write_bytes(b"".join(line for call in calls for line in call.lines))
    done = run(str(tmp_path), "--otlp", f"{collector.url}/v1/traces", "--hash-call")
    assert (done.output, done.exit_code) == ("2 calls sent: 4 spans\n", 0)
    assert "table" not in f"{collector.spans}"
    turns = [span for span in collector.spans if span.name == "invoke_agent agent"]
    assert [turn.start_time_unix_nano for turn in turns] == [1767261600 * 10**9, 1767348000 * 10**9]
    assert {len(of(turn)["gen_ai.conversation.id"]) for turn in turns} == {32}
    collector.spans = []
    assert run(str(file), "--otlp", collector.url, "--words").exit_code == 0
    assert "book a table" in f"{collector.spans}"


def test_what_cannot_be_sent_is_said_and_the_rest_is_sent(collector: Collector, tmp_path: Path) -> None:
    good = answered(Recorded())
    names = ("a-frames", "b-date", "c-note", "d-good", "e-cut")
    frames = b'{"type": "turn.start"}\n'
    date = b"".join(Recorded(started="noon").at(1, TurnStart()).lines)
    note = b"".join(answered(Recorded()).note(3, "settled", 1, settled={"thought": "x"}).lines)
    cut = b"".join(good.lines)[:-9]
    for name, lines in zip(names, (frames, date, note, b"".join(good.lines), cut), strict=True):
        (tmp_path / f"{name}.jsonl").write_bytes(lines)
    done = run(str(tmp_path), str(tmp_path / "none"), "--otlp", collector.url)
    assert done.exit_code == 2
    said = done.stderr.replace(f"{tmp_path}/", "").splitlines()
    assert said[0] == "none: no such file or directory"
    assert said[1] == "a-frames.jsonl: no line of this call has a time, so its spans have none"
    assert said[2] == "b-date.jsonl: spans need the day and time at which the call began, and its header has 'noon'"
    assert said[3].startswith('c-note.jsonl: a note of turn 1, "settled": ')
    assert said[4].startswith("e-cut.jsonl:")
    assert done.stdout.startswith("3 calls sent: ")


def test_all_is_sent_whatever_the_sampler_of_live_calls_keeps(
    collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    file = tmp_path / "call.jsonl"
    file.write_bytes(b"".join(answered(Recorded()).lines))
    assert run(str(file), "--otlp", collector.url).stdout == "1 call sent: 2 spans\n"
    assert len(collector.spans) == 2


@pytest.mark.parametrize("about", [{"labels": [1]}, {"labels": "arm"}, {"labels": {"arm": "7"}, "call": "7"}])
def test_whatever_labels_a_header_has_the_call_is_sent(
    about: dict[str, Any], collector: Collector, tmp_path: Path
) -> None:
    header, *rest = answered(Recorded()).lines
    file = tmp_path / "call.jsonl"
    file.write_bytes(json.dumps(json.loads(header) | about).encode() + b"\n" + b"".join(rest))
    done = run(str(file), "--otlp", collector.url, "--label", "arm")
    assert (done.output, done.exit_code) == ("1 call sent: 2 spans\n", 0)
    assert [of(span).get("arm") for span in collector.spans] == ["7" if "call" in about else None] * 2


def test_a_label_that_telemetry_has_itself_is_refused(tmp_path: Path) -> None:
    for label in ("", "inkturns.turn.number"):
        done = run(str(tmp_path), "--otlp", "http://localhost:4318", "--label", label)
        assert done.exit_code == 2
        assert done.stderr == f"--label {label!r}: an attribute of spans must have another name\n"


def test_where_the_sdk_is_off_it_says_so_and_sends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "True")
    done = run(str(tmp_path), "--otlp", "http://localhost:4318")
    assert done.exit_code == 2
    assert done.stderr.startswith("OTEL_SDK_DISABLED is true, so OpenTelemetry makes no spans")


def test_a_call_in_which_nothing_came_has_no_spans(collector: Collector, tmp_path: Path) -> None:
    (tmp_path / "call.jsonl").write_bytes(b"".join(Recorded().lines))
    done = run(str(tmp_path), "--otlp", collector.url)
    assert (done.output, done.exit_code) == ("1 call sent: 0 spans\n", 0)


def test_text_that_utf8_cannot_hold_costs_that_character(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    """A lone surrogate, half of an emoji say. An exporter would lose all that it sends with it."""
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{collector.url}/v1/traces")))
    turns = Turns()
    options: dict[str, Any] = {"name": "a\ud83d", "call": "b\ud83d", "attributes": {"c\ud83d": "d\ud83d"}}
    watched = instrument(turns, content=True, tracer_provider=tracers, **options)
    turns.feed(TurnStart(), 1)
    turns.feed(TurnEnd("e\ud83d"), 2)
    watched.remove()
    tracers.shutdown()
    assert not caplog.records
    [_, turn] = sorted(collector.spans, key=lambda span: span.parent_span_id, reverse=True)
    assert turn.name == "invoke_agent a?"
    attributes = of(turn)
    assert (attributes["gen_ai.agent.name"], attributes["gen_ai.conversation.id"]) == ("a?", "b?")
    assert attributes["c?"] == "d?"
    assert '"e?"' in attributes["gen_ai.input.messages"]


def test_an_endpoint_that_takes_nothing_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    file = tmp_path / "call.jsonl"
    file.write_bytes(b"".join(answered(Recorded()).lines))
    with Collector(status=400) as server:
        done = run(str(file), "--otlp", server.url)
        server.shutdown()
    assert done.exit_code == 2
    assert done.stderr == f"--otlp {server.url}: the endpoint did not accept the spans; 0 were sent before\n"
    done = run(str(file), "--otlp", "localhost:4318")
    assert (done.stderr, done.exit_code) == ("--otlp localhost:4318: a URL begins with http:// or https://\n", 2)


def test_a_file_that_cannot_be_read_any_further_is_said(collector: Collector, tmp_path: Path) -> None:
    file = tmp_path / "call.jsonl.gz"
    file.write_bytes(gzip.compress(b"".join(answered(Recorded()).lines))[:-20])
    done = run(str(file), "--otlp", collector.url)
    assert done.exit_code == 2
    assert str(file) in done.stderr


def test_without_the_exporter_the_command_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "inkturns.telemetry.otlp", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    done = run("call.jsonl", "--otlp", "http://localhost:4318")
    assert done.exit_code == 2
    assert done.stderr.startswith('this command needs OTLP: pip install "inkturns[otel]" opentelemetry-exporter')


# -- recordings as spans


def spans_of(call: Recorded, started: str | None = None) -> Collected:
    collected = Collected()
    [recorded] = calls_of(call.lines, no_fault)
    if started is not None and recorded.header is not None:
        recorded = attrs.evolve(recorded, header=attrs.evolve(recorded.header, started=started))
    export(recorded, Options(), collected.tracers, lambda error: None)
    check_spans(collected)
    return collected


@pytest.mark.parametrize("call", [eventful, hostile])
def test_whatever_a_recording_says_each_span_ends_once_and_the_times_are_in_order(call: Any) -> None:
    collected = spans_of(call(), started="2026-01-02")
    assert collected.turns
    assert EVIL not in collected.everything


def test_a_turn_that_begins_twice_is_ended_twice() -> None:
    """Two writers of one file, say."""
    header, *rest = eventful().lines
    [recorded] = calls_of([header, *rest, *rest], lambda error: None)
    collected = Collected()
    export(recorded, Options(), collected.tracers, lambda error: None)
    assert len(collected.ended) == collected.begun
    assert len(collected.turns) == 2 * len(spans_of(eventful()).turns)


@pytest.mark.parametrize("chunk", range(4))
def test_whatever_lines_are_doubled_lost_or_in_another_order_each_span_ends_once(chunk: int) -> None:
    """Two writers of one file, a disk that was full, a sort."""
    for seed in range(chunk * 100, (chunk + 1) * 100):
        draw, (header, *lines) = Random(seed), eventful().lines
        if seed % 2:  # an agent's, with notes
            notes = Recorded().note(0, "run", 0, think=True, respond=True)
            notes.note(9, "settled", 1, settled={"thought": 3, "outcome": "adopted", "began": 6.5, "finished": 8.7})
            notes.note(9, "replied", 1, replied={"outcome": "interrupted", "over_at": 8.5})
            _, run, *rest = notes.lines
            lines[:0] = [run]
            for note in rest:
                lines.insert(draw.randrange(1, len(lines)), note)
        for _ in range(draw.randrange(6)):
            lines.insert(draw.randrange(len(lines)), draw.choice(lines))
        for _ in range(draw.randrange(4)):
            del lines[draw.randrange(len(lines))]
        if draw.random() < 0.5:
            draw.shuffle(lines)
        [recorded] = calls_of([header, *lines], lambda error: None)
        collected = Collected()
        export(recorded, Options(), collected.tracers, lambda error: None)
        check_spans(collected, in_order=False)


def test_lines_that_are_missing_cost_what_they_said() -> None:
    call = eventful()
    for what in (b'"Listen"', b'"Think"', b'"Respond"'):
        lines = [line for line in call.lines if what not in line]
        assert len(lines) < len(call.lines)
        [recorded] = calls_of(lines, lambda error: None)
        collected = Collected()
        export(recorded, Options(), collected.tracers, lambda error: None)
        check_spans(collected)


def test_notes_of_a_turn_that_caught_up_and_of_stuck_tasks(tmp_path: Path) -> None:
    call = Recorded().at(0, TurnStart()).note(0, "catching_up", 1).note(0, "catching_up", 7)
    call.at(1, TurnEagerEnd("hi")).note(1.5, "report", 0, report={"kind": "stuck_task"}).at(2, TurnEnd("hi"))
    [turn] = spans_of(call).turns
    attributes = turn.attributes or {}
    assert attributes["inkturns.turn.catching_up"] is True
    assert "inkturns.turn.gap" not in attributes
    assert "inkturns.report" in [event.name for event in turn.events]


def test_what_was_said_in_a_pause_is_in_no_span() -> None:
    call = answered(Recorded())
    call.pause().at(110, TurnStart(), TurnEnd("my card")).resume()
    assert len(spans_of(answered(call, 3, 120)).turns) == 2


@pytest.mark.parametrize("started", ["noon", -1, 1e30, "9999-99-99", [1], {}])
def test_a_call_of_no_known_day_is_refused(started: Any) -> None:
    with pytest.raises(RecordingError, match="spans need the day and time"):
        spans_of(Recorded(started=started).at(1, TurnStart()))


def test_a_time_without_a_zone_is_utc_and_a_number_is_seconds() -> None:
    for started in ("2026-01-02T03:04:05", 1767323045):
        [turn] = spans_of(Recorded(started=started).at(1, TurnStart())).turns
        assert turn.start_time == 1767323045 * 10**9
