"""What recordings say: does thinking ahead pay, and pictures of calls.

A recording becomes rows, one a turn (`turns_of`); the rows of many become figures (`Fleet`); `analyse` does both for
any number of files. A row or a figure is measured, derived or absent, never guessed; what is modelled is asked for.
"""

from inkturns.report.analysis import Hearing, analyse
from inkturns.report.fleet import Fleet
from inkturns.report.question import Price, Question
from inkturns.report.rows import ThoughtRow, TurnRow
from inkturns.report.turns import turns_of

__all__ = ["Fleet", "Hearing", "Price", "Question", "ThoughtRow", "TurnRow", "analyse", "turns_of"]
