"""Atomic writing: a file appears as a whole or not at all."""

import contextlib
import os
from collections.abc import Iterator

UNFINISHED = ".new"  # part of the name of a file that is still being written


@contextlib.contextmanager
def replacing(path: str) -> Iterator[str]:
    """Yield a temporary path to write to. The file then replaces ``path``, unless an error is raised."""
    temporary = f"{path}{UNFINISHED}.{os.getpid()}"
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(temporary)


def write_bytes(path: str, data: bytes) -> None:
    """Write a file."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(data)


def write_text(path: str, text: str) -> None:
    """Write a text file in UTF-8."""
    write_bytes(path, text.encode())
