"""Timing in turn, and a line per result."""

import statistics
import time
from collections.abc import Callable


def seconds_of(function: Callable) -> Callable[[], float]:
    """Return a function that calls another one and returns its seconds."""

    def timed():
        start = time.perf_counter()
        function()
        return time.perf_counter() - start

    return timed


def in_turn(timed: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of every function, round by round, after one round that compiles: {name: [rounds]}."""
    seconds = [{name: function() for name, function in timed.items()} for _ in range(rounds + 1)]
    return {name: [one[name] for one in seconds[1:]] for name in timed}


def line(what: str, ours: list[float], theirs: list[float], amount: float, unit: str) -> str:
    """Return both rates, amounts per second, and the ratio of the seconds: of all rounds, and of the fastest ones."""
    ratios = [peer / own for own, peer in zip(ours, theirs)]
    middle, fastest = statistics.median(ratios), min(theirs) / min(ours)
    rates = [amount / statistics.median(seconds) for seconds in (ours, theirs)]
    return (
        f"{what:12} ours {rates[0]:9,.1f}  MultiVae {rates[1]:9,.1f} {unit}  "
        f"ratio {middle:.2f} ({min(ratios):.2f} to {max(ratios):.2f}), fastest {fastest:.2f}"
    )
