"""Signals that ask a run to stop."""

import signal
import threading

_COLLECTION = "_xla_gc_callback"  # of JAX, called by garbage collection, so most often during tracing
_PAUSE = 0.01  # seconds
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # SIGHUP: the terminal was closed


class Interruption:
    """Context in which Ctrl-C, SIGTERM and SIGHUP only set ``requested``, so that work can be saved first.

    A second Ctrl-C interrupts at once. Signals reach only the main thread; in other threads this does nothing.
    """

    def __init__(self):
        self.requested = False

    def __enter__(self):
        main = threading.current_thread() is threading.main_thread()
        numbers = [number for number in _SIGNALS if not _is_ignored(number)] if main else []
        self._before = {number: signal.signal(number, self._note) for number in numbers}
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
    """Let SIGTERM and SIGHUP raise ``KeyboardInterrupt``, like Ctrl-C."""
    signal.signal(signal.SIGALRM, _interrupt)
    for number in _SIGNALS:
        if not _is_ignored(number):
            signal.signal(number, _interrupt)


def _interrupt(number, frame):
    """Raise ``KeyboardInterrupt``; inside garbage collection, where Python would ignore it, try again after a pause."""
    if frame is not None and frame.f_code.co_name == _COLLECTION:
        signal.setitimer(signal.ITIMER_REAL, _PAUSE)
    else:
        signal.default_int_handler(number, frame)


def _is_ignored(number) -> bool:
    """Return whether the signal is ignored, as in processes started by nohup or in the background of a script."""
    return signal.getsignal(number) == signal.SIG_IGN
