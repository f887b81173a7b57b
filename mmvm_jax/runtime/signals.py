"""Signals that ask a run to stop."""

import signal
import threading

_COLLECTION = "_xla_gc_callback"  # JAX's, called with every collection of garbage, so most often while it traces
_MOMENT = 0.01  # seconds
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # the last when a terminal is closed


class Interruption:
    """While entered, Ctrl-C, SIGTERM and SIGHUP are noted instead of obeyed, so that work can be saved first.

    A second Ctrl-C is obeyed at once. Only the main thread is sent signals; elsewhere nothing is noted.
    """

    def __init__(self):
        self.requested = False

    def __enter__(self):
        main = threading.current_thread() is threading.main_thread()
        noted = [number for number in _SIGNALS if not _is_ignored(number)] if main else []
        self._before = {number: signal.signal(number, self._note) for number in noted}
        return self

    def __exit__(self, *exception):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number, frame):
        del frame
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True


def obey_termination() -> None:
    """From now on SIGTERM and SIGHUP end the process as Ctrl-C does, by a ``KeyboardInterrupt``."""
    signal.signal(signal.SIGALRM, _interrupt)
    for number in _SIGNALS:
        if not _is_ignored(number):
            signal.signal(number, _interrupt)


def _interrupt(number, frame):
    """Raises ``KeyboardInterrupt``, a moment later where Python would ignore it: in what garbage collection calls."""
    if frame is not None and frame.f_code.co_name == _COLLECTION:
        signal.setitimer(signal.ITIMER_REAL, _MOMENT)
    else:
        signal.default_int_handler(number, frame)


def _is_ignored(number) -> bool:
    """Whether this process was started so that it survives its terminal, by nohup or in the background of a script."""
    return signal.getsignal(number) == signal.SIG_IGN
