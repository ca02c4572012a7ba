"""`inkturns export`: recordings as spans, to whatever takes OTLP.

Rules of this file: a fault in a file is one sentence on standard error, `file:line: what`, and the rest is still sent;
no words unless they are asked for.
"""

import logging
import os
from typing import Annotated

import typer

from inkturns.cli.stderr import refuse, say
from inkturns.errors import RecordingError
from inkturns.reader import OnError, TruncatedError
from inkturns.report.paths import UnreadError, calls_in, find

__all__ = ["export"]


def export(
    files: Annotated[list[str], typer.Argument(metavar="FILES…", help="Recordings, directories of them, patterns.")],
    otlp: Annotated[
        str, typer.Option("--otlp", metavar="URL", help="Where OTLP over HTTP is taken: http://localhost:4318")
    ],
    name: Annotated[str, typer.Option(help="The agent's name.")] = "agent",
    label: Annotated[
        list[str], typer.Option(metavar="NAME", help="A label of the recordings that spans get too (repeatable).")
    ] = [],  # noqa: B006
    hash_call: Annotated[bool, typer.Option("--hash-call", help="Send a hash of the calls' ids.")] = False,
    words: Annotated[bool, typer.Option("--words", help="Send what was said; otherwise no words are sent.")] = False,
) -> None:
    """Send recorded calls as traces, with their own times: a trace a turn, as the live call's.

    Headers, TLS and the service's name come from the usual variables: OTEL_EXPORTER_OTLP_HEADERS, OTEL_SERVICE_NAME."""
    try:
        from inkturns.telemetry.export import export as spans_of
        from inkturns.telemetry.instrument import OWN, Options
        from inkturns.telemetry.otlp import Sender
    except ImportError:
        refuse('this command needs OTLP: pip install "inkturns[otel]" opentelemetry-exporter-otlp-proto-http')
    if "://" not in otlp:
        refuse(f"--otlp {otlp}: a URL begins with http:// or https://")
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        refuse("OTEL_SDK_DISABLED is true, so OpenTelemetry makes no spans: unset it for this command")
    if taken := [one for one in label if not one or one in OWN]:
        refuse(f"--label {taken[0]!r}: an attribute of spans must have another name")
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # what it logs is said below, in a sentence
    sender, said = Sender(otlp), Faults()
    found = find(files)
    for fault in found.unread:
        said.say(f"{fault}")
    calls = 0
    for file in found.names:
        say = said.of(file)
        try:
            for call in calls_in(file, say):
                labels = call.header.labels if call.header is not None and isinstance(call.header.labels, dict) else {}
                arms = {one: labels[one] for one in label if isinstance(labels.get(one), str)}
                options = Options(name, call.name, hash_call=hash_call, attributes=arms, content=words)
                try:
                    spans_of(call, options, sender.provider, say)
                except RecordingError as error:
                    say(error)
                    continue
                sender.flush()
                calls += 1
        except UnreadError as fault:
            said.say(f"{fault}")
        except ConnectionError as error:
            refuse(f"--otlp {otlp}: {error}")
    typer.echo(f"{calls} call{'' if calls == 1 else 's'} sent: {sender.sent} spans")
    raise typer.Exit(2 if said.faults else 0)


class Faults:
    """Says what is wrong, and counts it."""

    def __init__(self) -> None:
        self.faults = 0

    def say(self, sentence: str) -> None:
        self.faults += 1
        say(sentence)

    def of(self, file: str) -> OnError:
        """Says an error of this file."""

        def tell(error: RecordingError) -> None:
            self.faults += not isinstance(error, TruncatedError)
            say(f"{file}:{error.line}: {error.reason}" if error.line else f"{file}: {error.reason}")

        return tell
