"""A process of `test_soak`: hostile calls in virtual time, an agent a call, until so many turns have begun.

    python tests/benchmarks/soak.py FIRST_SEED TURNS

It prints as JSON: the calls; the bytes that 200 calls keep, before and after them; the process's memory, in MB, after
a tenth of the turns and after all (this needs Linux); and the CPU time of the last tenth, to that of the first.
"""

import gc
import json
import logging
import resource
import sys
import tracemalloc
from itertools import count
from pathlib import Path
from time import process_time

from inkturns import Agent
from inkturns.testing.storm import World, storm


def make_call(world: World) -> Agent:
    agent = Agent(world.policy, **world.options)
    world.joins(agent)
    return agent


def kept(seeds: range) -> int:
    """The bytes that are not given back."""
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for seed in seeds:
        storm(make_call, seed)
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return grown


def megabytes() -> float:
    """Of memory in use now. Not `ru_maxrss`: that of a child begins with what its parent had."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def soak(first_seed: int, wanted: int) -> dict[str, float]:
    kept(range(first_seed, first_seed + 100))  # warms up
    first = kept(range(first_seed + 100, first_seed + 300))
    tenths: list[float] = []
    turns, after_a_tenth, begin = 0, 0.0, process_time()
    for seed in count(first_seed):
        turns += sum("  on_start " in line for line in storm(make_call, seed))
        if seed % 200 == 0:  # a storm's world holds itself in cycles, which are not what is measured
            gc.collect()
        if turns >= wanted / 10 * (len(tenths) + 1):
            tenths.append(process_time() - begin)
            begin = process_time()
            after_a_tenth = after_a_tenth or megabytes()
        if turns >= wanted:
            break
    most, last = megabytes(), kept(range(first_seed + 300, first_seed + 500))
    return {
        "calls": seed - first_seed + 1,
        "kept_before": first,
        "kept_after": last,
        "megabytes_after_a_tenth": after_a_tenth,
        "megabytes": most,
        "time": tenths[-1] / tenths[0],
    }


if __name__ == "__main__":
    logging.disable()  # what hostile calls have reported
    print(json.dumps(soak(*map(int, sys.argv[1:]))))
