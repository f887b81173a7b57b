"""Log lines of a run, and progress bars on terminals and in notebooks."""

import contextlib
import logging
import sys
import time

import tqdm

log = logging.getLogger("mmvm_jax")


class Progress:
    """Counter of finished units that shows their number, the rate and the remaining time.

    Args:
      total: number of units.
      unit: their name, in the plural.
      description: of the work.
      initial: number of units that an earlier run has finished.
      every: seconds between two lines of the log where there is no progress bar.
    """

    def __init__(self, total: int, unit: str, description: str, initial: int = 0, every: float = 15.0):
        self._total, self._unit, self._description = total, unit, description
        self._done = self._initial = initial
        self._every = every
        self._start = self._last = time.monotonic()
        self._bar = None
        if sys.stderr.isatty() or "ipykernel" in sys.modules:  # a terminal or a notebook
            self._bar = tqdm.tqdm(
                total=total, initial=initial, unit=f" {unit}", desc=description, unit_scale=True, leave=False
            )

    def update(self, count: int, note: str = "") -> None:
        """Add ``count`` finished units; ``note`` is shown after the numbers."""
        self._done += count
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(count)
        elif time.monotonic() - self._last >= self._every or self._done >= self._total:
            self._last = time.monotonic()
            log.info(self._line(note))

    def _line(self, note: str) -> str:
        seconds = max(self._last - self._start, 1e-9)
        rate = (self._done - self._initial) / seconds
        left = (self._total - self._done) / rate if rate else float("inf")
        return (
            f"{self._description}: {self._done}/{self._total} {self._unit}, {rate:.0f} {self._unit}/s, "
            f"{duration(left)} left {note}"
        ).rstrip()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        if self._bar is not None:
            self._bar.close()


def duration(seconds: float) -> str:
    """Return a duration in the unit that people would choose, such as "40 s", "25 min" or "3.5 h"."""
    if seconds < 600:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3 * 3600 else f"{seconds / 3600:.1f} h"


@contextlib.contextmanager
def quiet_libraries():
    """Hide the information that libraries log through absl, such as the steps of saving a checkpoint."""
    absl = logging.getLogger("absl")
    level = absl.level
    absl.setLevel(max(level, logging.WARNING))
    try:
        yield
    finally:
        absl.setLevel(level)


def show_log() -> None:
    """Show the lines of ``log`` on standard error. Only commands call this; users of the library configure logging."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
