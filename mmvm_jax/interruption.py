"""Signals that ask a run to stop."""

import signal
import threading

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """While entered, Ctrl-C and SIGTERM are noted instead of obeyed, so that work can be saved first.

    A second Ctrl-C is obeyed at once. Only the main thread is sent signals; elsewhere nothing is noted.
    """

    def __init__(self):
        self.requested = False

    def __enter__(self):
        main = threading.current_thread() is threading.main_thread()
        self._before = {number: signal.signal(number, self._note) for number in _SIGNALS} if main else {}
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
    """From now on SIGTERM ends the process as Ctrl-C does, by a ``KeyboardInterrupt``."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
