"""LiveKit: what a session is set to, against the Policy.

Rules of this file: it compares and changes nothing. All that contradicts is named at once, with the value to write.
"""

from typing import Any

from inkturns.policy import Policy, same_text, same_words

__all__ = ["refuse_contradictions"]

NEVER = 3600.0  # a limit of seconds that no turn reaches


def refuse_contradictions(policy: Policy, session: Any) -> None:
    """Raises ValueError where the session is set so that LiveKit would not do what the Policy says; it names all.
    Raises TypeError for what is no session."""
    from livekit.agents.utils import is_given

    options: Any = getattr(session, "options", None)
    if not hasattr(options, "turn_handling"):
        raise TypeError(f"guarded: session must be an AgentSession, such as the agent's self.session, got {session!r}")
    options = options.turn_handling
    agent = getattr(session, "_agent", None)  # `current_agent` raises before the session is running
    own = getattr(agent, "_turn_handling", None) or {}  # the agent's go before the session's
    vad = agent.vad if agent is not None and is_given(agent.vad) else session.vad

    def option(group: str, name: str) -> Any:
        return {**options[group], **(own.get(group) or {})}[name]

    wrong: list[str] = []

    def check(is_right: bool, sentence: str) -> None:
        if not is_right:
            wrong.append(sentence)

    detection = own.get("turn_detection", options.get("turn_detection"))
    delay, mode = option("endpointing", "min_delay"), option("endpointing", "mode")
    check(
        detection == "stt", f'turn_detection must be "stt", so that the machine says where turns end; got {detection!r}'
    )
    check(delay <= 0, f"endpointing min_delay must be 0, or LiveKit joins turns that follow within it; got {delay}")
    check(mode == "fixed", f'endpointing mode must be "fixed", or LiveKit changes min_delay; got {mode!r}')
    enabled, least = option("interruption", "enabled"), option("interruption", "min_words")
    check(enabled, "interruption enabled must be True, or LiveKit drops what is said over a reply; got False")
    check(
        not least,
        f"interruption min_words must be 0, or LiveKit drops short turns; say Policy(interrupts=min_words({least}))",
    )
    check(
        policy.interrupts is None or vad is None,
        "vad must be None where Policy.interrupts is set, or its sound interrupts before the words are known",
    )
    check(
        policy.match in (same_words, same_text),
        "Policy.match must be same_words or same_text: LiveKit keeps a generation only where its words are the same",
    )
    if policy.speculate is not False and policy.max_thoughts != 0:
        most, seconds = (option("preemptive_generation", name) for name in ("max_retries", "max_speech_duration"))
        check(
            option("preemptive_generation", "enabled"),
            "preemptive_generation enabled must be True where Policy.speculate is not False; got False",
        )
        check(
            policy.max_thoughts is not None and policy.max_thoughts <= most,
            "preemptive_generation max_retries must be at least Policy.max_thoughts,"
            f" {policy.max_thoughts}; got {most}",
        )
        check(
            seconds >= NEVER,
            f"preemptive_generation max_speech_duration must be {NEVER:.0f} or more, since the Policy thinks ahead"
            f" however long the user speaks; got {seconds}",
        )
    if wrong:
        raise ValueError(f"guarded: the session contradicts the Policy: {'; '.join(wrong)}")
