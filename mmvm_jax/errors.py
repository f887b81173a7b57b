"""The exceptions that the entry points turn into one line and an exit code."""

import errno
import os
from typing import NamedTuple

RESTART = 75  # exit code: nothing is wrong with the request, and the same command goes on from what was saved


class UserError(Exception):
    """A request that cannot be met, with a message for the person who made it.

    Attributes:
      exit_code: 2 for a wrong request (configuration, flags, files), 1 for a failure while working, ``RESTART``
        where another process failed.
    """

    def __init__(self, message: str, exit_code: int = 2):
        super().__init__(message)
        self.exit_code = exit_code


class Disconnected(UserError):
    """Another process of the run is gone; the exit code is ``RESTART``."""

    def __init__(self, message: str):
        super().__init__(message, RESTART)


class Stopped(KeyboardInterrupt):
    """Training was asked to stop (SIGTERM, Ctrl-C) and has saved all it did."""


def is_disk_full(error: BaseException) -> bool:
    """Whether that is why something failed; libraries wrap the system's error, or its words, in errors of their own."""
    return os.strerror(errno.ENOSPC) in str(error)


def unknown_name(what: str, name: object, allowed) -> UserError:
    """The error for a name that is in no table, listing the names that are."""
    return UserError(f"{what} is {name!r}; allowed: {', '.join(sorted(allowed))}")


def check_shape(what: str, array, *allowed: tuple[int, ...]) -> None:
    """Raise ValueError unless an array has one of the allowed shapes.

    Shapes are known when a function is traced, so the check takes no time in a compiled function.
    """
    if array.shape not in allowed:
        shapes = " or ".join(str(list(shape)) for shape in dict.fromkeys(allowed))
        raise ValueError(f"{what} has shape {list(array.shape)}; allowed: {shapes}")


class Range(NamedTuple):
    """The lowest and the highest value of a field. Compiled programs can compute with both, in int32 and float32."""

    lowest: float
    highest: float

    @property
    def allowed(self) -> str:
        """The range in words."""
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
    """What a library's error says, as part of a message of one line."""
    return printable((str(error).strip() or type(error).__name__).splitlines()[0][:200])


def printable(text: str) -> str:
    """The text with escapes for what would break a line or steer a terminal."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)
