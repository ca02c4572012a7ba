"""OpenTelemetry: every turn a trace, every thought a span, and the metrics of calls (extra `otel`).

    from inkturns.telemetry import instrument

    instrument(agent, name="booking", call=call_id)   # before `agent.run`

`names.py` has all names, `spans.py` begins and ends spans, `metrics.py` counts, `call.py` makes both of a call's inputs
and notes, `instrument.py` listens to a live call, `export.py` reads recordings. `dashboard.json` is for Grafana.
"""

try:
    import opentelemetry.trace  # noqa: F401
except ImportError as missing:
    raise ImportError('inkturns.telemetry needs opentelemetry-api: pip install "inkturns[otel]"') from missing

from inkturns.telemetry.instrument import Instrumentation, instrument

__all__ = ["Instrumentation", "instrument"]
