"""The names of spans, attributes, events and metrics: the one place where they stand.

Rules of this file: GenAI names are those of the semantic conventions for GenAI, version CONVENTIONS
(github.com/open-telemetry/semantic-conventions-genai); `error.type` is of the general conventions. What the conventions
do not have is `inkturns.*`.
"""

CONVENTIONS = "0.1.0"

# -- the conventions'

OPERATION = "gen_ai.operation.name"  # always "invoke_agent"
AGENT = "gen_ai.agent.name"
CONVERSATION = "gen_ai.conversation.id"  # the call's id, or its hash
FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"  # seconds
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHED_TOKENS = "gen_ai.usage.cache_read.input_tokens"
HEARD_WORDS = "gen_ai.input.messages"  # with content=True alone; JSON, as the conventions want it
SAID_WORDS = "gen_ai.output.messages"  # the same
ERROR = "error.type"

# -- the root span, of a turn: "invoke_agent {name}"

NUMBER = "inkturns.turn.number"
END = "inkturns.turn.end"  # how it closed; absent where the call ended before
ANSWERED = "inkturns.turn.answered"
CONTINUES = "inkturns.turn.continues"  # the number of the turn to whose words it adds
LATEST_THOUGHT = "inkturns.turn.latest_thought"
INTERRUPTED = "inkturns.turn.interrupted"  # the number of the turn whose reply it cut off
SAVED = "inkturns.turn.saved"  # seconds that thinking ahead gained
CATCHING_UP = "inkturns.turn.catching_up"  # True: it began in sound that was kept from an outage; it has no times
GAP = "inkturns.turn.gap"  # seconds from the adopted thought's eager end to the turn's end

# -- its events

ON_EAGER_END = "inkturns.eager_end"
ON_RESUME = "inkturns.resume"
ON_END = "inkturns.end"
ON_REPLY_STARTED = "inkturns.reply_started"
ON_INTERRUPTED = "inkturns.interrupted"
ON_REPORT = "inkturns.report"
KIND = "inkturns.report.kind"

# -- its children

THOUGHT = "inkturns.thought"
THOUGHT_NUMBER = "inkturns.thought.number"
SPECULATIVE = "inkturns.thought.speculative"
OUTCOME = "inkturns.thought.outcome"  # "adopted", "cancelled", "failed"; "not_begun": `think` was never called
REASON = "inkturns.thought.reason"  # why it was cancelled
HEAD_START = "inkturns.thought.head_start"  # seconds, of an adopted one
THOUGHT_SAVED = "inkturns.thought.saved"  # the same
ITEMS = "inkturns.thought.items"
COST = "inkturns.usage.cost"
CURRENCY = "inkturns.usage.currency"
REPLY = "inkturns.reply"
REPLY_OUTCOME = "inkturns.reply.outcome"  # "heard", "interrupted", "not_begun", "failed"

# -- the metrics stand in `metrics.py`; their buckets, in seconds: 50 ms must show

BUCKETS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
