"""Pipecat: the strategies by which its user aggregator starts and stops turns, so that it decides by the `Policy` of a
`TurnGuard`.

Rules of this file: it changes only what a speech service recommends. It looks at no frame and holds no state.
"""

import asyncio
from dataclasses import replace

from pipecat.turns.user_stop import EagerMatchPolicy, EagerUserTurnStopStrategy
from pipecat.turns.user_turn_strategies import EagerUserTurnStrategies, ExternalUserTurnStrategies

from inkturns.turns import Turns

__all__ = ["by_the_policy"]

HOUR = 3600.0


class _PolicyMatch(EagerMatchPolicy):
    """`Policy.match`, for the aggregator to decide as the machine does."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns

    def matches(self, eager: str, final: str) -> bool:
        try:
            return bool(self._turns.machine.policy.match(eager, final))
        except (Exception, asyncio.CancelledError):  # the machine reports it, and counts it as False (F55)
            return False


def by_the_policy(recommended: ExternalUserTurnStrategies, turns: Turns) -> ExternalUserTurnStrategies:
    """Returns what a service recommends, with `Policy.match`, and with interruptions, which the guard holds back. The
    service makes its recommendation anew for each aggregator.

    Pipecat's strategy also looks each half second whether the turn is over. Where that falls on the stop, it drops the
    speculation and answers a second time (F31); words come before their stop here, so it need not look."""
    strategies = replace(recommended, enable_interruptions=True)
    if isinstance(strategies, EagerUserTurnStrategies):
        match = _PolicyMatch(turns)
        timeout = strategies.speculation_timeout
        stop = EagerUserTurnStopStrategy(match_policy=match, speculation_timeout=timeout, timeout=HOUR)
        strategies.stop = [stop]
    return strategies
