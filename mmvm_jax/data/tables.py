"""Text tables as publishers, spreadsheets and pandas write them."""

import csv
import io
from collections.abc import Iterator

from mmvm_jax.data.raw import RawFiles

_SEPARATORS = (",", ";", "\t")
_YES, _NO = ("true", "yes"), ("false", "no", "")


def separator_of(heading: str) -> str:
    """Return the separator that occurs most often in a heading; a comma if none does."""
    return max(_SEPARATORS, key=heading.count)


def rows(files: RawFiles, path: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of each line that is not blank, counted from 1, and its cells.

    Cells are separated by commas, semicolons or tabs, depending on the first line, or else by spaces. Spaces around
    cells and empty cells at the end of a line are removed.
    """
    content = files.text(path)
    first = next((line for line in content.splitlines() if line.strip()), "")
    separator = separator_of(first)
    if separator not in first:
        lines = ((number, line.split()) for number, line in enumerate(content.splitlines(), 1))
    else:
        reader = csv.reader(io.StringIO(content), delimiter=separator, skipinitialspace=True)
        lines = ((reader.line_num, [cell.strip() for cell in row]) for row in reader)
    for number, row in lines:
        while row and not row[-1]:
            row.pop()
        if row:
            yield number, row


def records(files: RawFiles, path: str, needed) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the number of each line below the heading, and {column: cell}.

    Args:
      files: that contain the table.
      path: of the table.
      needed: columns that must exist.

    Raises:
      UserError: a column is missing, or a line has more cells than the heading.
    """
    lines = rows(files, path)
    _, heading = next(lines, (0, []))
    for column in needed:
        if column not in heading:
            raise files.damaged(path, f"it has no column {column}")
    for number, row in lines:
        if len(row) > len(heading):
            raise files.damaged(path, f"line {number} has {len(row)} values; expected {len(heading)}")
        yield number, dict(zip(heading, [*row, *[""] * (len(heading) - len(row))], strict=True))


def flag(files: RawFiles, path: str, line: int, value: str) -> bool:
    """Return whether a cell is true: 1, 1.0, true or yes. 0, -1, false, no and empty cells are false.

    Raises:
      UserError: the cell has another value. The message names the file and the line.
    """
    if value.casefold() in _YES + _NO:
        return value.casefold() in _YES
    try:
        if (number := float(value)) in (-1, 0, 1):
            return number == 1
    except ValueError:
        pass
    raise files.damaged(path, f"line {line} has {value!r}; expected 1 or 0, or 1 or -1")
