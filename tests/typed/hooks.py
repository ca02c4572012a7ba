"""Right and wrong uses of the hooks and of Policy, for type checkers; `tests/test_types.py` runs them over this file.

A line that ends in `# refused` is one that each checker has to flag; no other line is."""

import functools

from inkturns import AfterResume, Policy, Turn, Turns
from inkturns.actions import CancelReason, Report

turns = Turns(Policy(after_resume=AfterResume.KEEP, max_thoughts=None), clock=lambda: 0.0)


# -- right


@turns.on_start
@turns.on_end
def quiet(turn: Turn) -> None: ...


@turns.on_update
def text(turn: Turn) -> str:
    return turn.transcript


def prefixed(turn: Turn, prefix: str = "") -> str:
    return prefix + turn.transcript


@turns.on_cancel
def void(turn: Turn, reason: CancelReason) -> None: ...


@turns.on_interrupt
def stop(number: int) -> None: ...


@turns.on_report
def wrong(report: Report) -> None: ...


@turns.on_think
def anything(*given: object) -> None: ...


class Log:
    def started(self, turn: Turn) -> None: ...


words: list[str] = []
turns.on_start(Log().started)
turns.on_start(prefixed)
turns.on_start(functools.partial(prefixed, prefix="> "))
turns.on_resume(print)
turns.on_eager_end(lambda turn: words.append(turn.transcript))
turns.on_cancel(lambda turn, reason: words.append(turn.transcript + reason.value))
turns.on_interrupt(lambda number: words.append("reply" * number))
turns.on_report(lambda report: words.append(report.detail))
said: str = text(Turn(1))


# -- wrong


@turns.on_start  # refused
def two(turn: Turn, reason: CancelReason) -> None: ...


@turns.on_cancel  # refused
def one(turn: Turn) -> None: ...


@turns.on_abandon  # refused
def none() -> None: ...


@turns.on_end  # refused
def a_number(number: int) -> None: ...


@turns.on_interrupt  # refused
def a_turn(turn: Turn) -> None: ...


@turns.on_stall  # refused
def by_name(*, turn: Turn) -> None: ...


turns.on_update()  # refused
turns.on_update("text")  # refused
turns.on_update(lambda: None)  # refused
turns.on_update(lambda turn: turn.words)  # refused
turns.on_cancel(lambda turn, reason: reason.kind)  # refused
turns.on_interrupt(lambda number: number.transcript)  # refused
turns.on_report(lambda report: report.transcript)  # refused
turns.on_listen(quiet)  # refused
number: int = text(Turn(1))  # refused

Policy(after_resume=3)  # refused
Policy(after_resume="keep")  # refused
Policy(after_stall=True)  # refused
Policy(after_disconnect=AfterResume.KEEP)  # refused
Policy(max_thoughts="3")  # refused
Policy(stall_timeout="6")  # refused
Policy(match=lambda eager: True)  # refused
Policy(speculative=True)  # refused
Policy(False)  # refused
Turns(polcy=Policy())  # refused
Turns({"speculate": False})  # refused
Turns(clock=0.0)  # refused
turns.feed()  # refused
