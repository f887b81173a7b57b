"""Exceptions that the commands report as one line and an exit code, and checks of values."""

import errno
import os
from typing import NamedTuple

RESTART = 75  # exit code: the request is valid, and running the same command again resumes from the saved state


class UserError(Exception):
    """A request that cannot be met, with a message for the user.

    Attributes:
      exit_code: 2 for an invalid request (configuration, flags, files), 1 for a failure at run time, ``RESTART`` if
        another process failed.
    """

    def __init__(self, message: str, exit_code: int = 2):
        super().__init__(message)
        self.exit_code = exit_code


class Disconnected(UserError):
    """Another process of the run has ended or cannot be reached. The exit code is ``RESTART``."""

    def __init__(self, message: str):
        super().__init__(message, RESTART)


class InUse(UserError):
    """Another process is working in the folder of a run."""


class Stopped(KeyboardInterrupt):
    """Training was asked to stop (SIGTERM, Ctrl-C) and has saved its state."""


def is_disk_full(error: BaseException) -> bool:
    """Return whether ``error`` was caused by a full disk. Libraries often wrap the OSError, or only its message."""
    return os.strerror(errno.ENOSPC) in str(error)


def unknown_name(what: str, name: object, allowed) -> UserError:
    """Return the error for a name that is not in a table. It lists the allowed names."""
    return UserError(f"{what} is {name!r}; allowed: {', '.join(sorted(allowed))}")


def check_shape(what: str, array, *allowed: tuple[int, ...]) -> None:
    """Raise ValueError unless an array has one of the allowed shapes.

    Shapes are known when a function is traced, so the check costs nothing in a compiled function.
    """
    if array.shape not in allowed:
        shapes = " or ".join(str(list(shape)) for shape in dict.fromkeys(allowed))
        raise ValueError(f"{what} has shape {list(array.shape)}; allowed: {shapes}")


class Range(NamedTuple):
    """Lowest and highest allowed value of a field. Both fit into int32 or float32, which compiled programs use."""

    lowest: float
    highest: float

    @property
    def allowed(self) -> str:
        """Description of the range for error messages."""
        return f"{self.lowest} to {self.highest}"

    def check(self, field: str, value: float) -> None:
        """Raise UserError if the value is outside the range, or NaN."""
        if not self.lowest <= value <= self.highest:
            raise UserError(f"{field} is {value}; allowed: {self.allowed}")


SEED = Range(0, 2**32 - 1)
COUNT = Range(1, 2**31 - 1)
COUNT_OR_NONE = Range(0, 2**31 - 1)
POSITIVE = Range(1e-30, 1e9)
NOT_NEGATIVE = Range(0.0, 1e9)
SHARE = Range(0.0, 1.0)


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, for use inside a one-line message."""
    return printable((str(error).strip() or type(error).__name__).splitlines()[0][:200])


def printable(text: str) -> str:
    """Return the text with unprintable characters, such as newlines and terminal codes, escaped."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
