"""The table of a run: every row is printed and kept in two files as soon as it is known."""

import contextlib
import json
import os
from collections.abc import Callable
from typing import NamedTuple

from ml_collections import ConfigDict


class Options(NamedTuple):
    """What a part is told."""

    name: str  # of the part
    what: str  # it is about, if there are several
    toy: bool  # toy sizes
    config: ConfigDict  # what ``polymnist`` trains
    wait: Callable[[], float]  # to be called when prepared: returns how many seconds there are, when it may measure


class Table:
    """Adds rows to ``<folder>/rows.jsonl`` and, to be read, to ``<folder>/table.txt``."""

    def __init__(self, folder: str):
        os.makedirs(folder, exist_ok=True)
        self._rows, self._text = (os.path.join(folder, name) for name in ("rows.jsonl", "table.txt"))

    def add(self, part: str, what: str, **values) -> None:
        """Adds a row: the part, what was looked at, and texts or numbers by name."""
        line = f"{part:13} {what:32} " + "  ".join(f"{name} {_shown(value)}" for name, value in values.items())
        print(line, flush=True)
        _append(self._text, line)
        _append(self._rows, json.dumps({"part": part, "what": what, **values}))

    def last(self, part: str, what: str) -> dict:
        """The values of the last such row; none if there is no such row."""
        found = {}
        with open(self._rows) as file:
            for line in file:
                with contextlib.suppress(json.JSONDecodeError):  # cut off
                    row = json.loads(line)
                    if (row.pop("part"), row.pop("what")) == (part, what):
                        found = row
        return found


def _append(path: str, line: str) -> None:
    with open(path, "a") as file:
        file.write(line + "\n")


def _shown(value) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)
