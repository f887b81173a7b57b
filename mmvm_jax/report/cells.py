"""Grids of examples of any kind: images, texts, line plots and rasters, each in one cell of one axis."""

import textwrap
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from mmvm_jax.data.text import ALPHABET, BLANK
from mmvm_jax.report.style import styled, subplots
from mmvm_jax.types import Modality

_SIDE = 0.75  # side of a cell, inches
_TEXT_WIDTH = 1.9  # width of a cell in a figure with texts, inches
_TEXT_COLUMNS = 5  # more are not readable
_CHARACTERS = 34  # per line of a text
_NO_TEXT = "(no text)"  # an empty cell would look like an absent example


class Row(NamedTuple):
    """Examples of one modality."""

    label: str
    modality: Modality
    values: np.ndarray  # [E, ...] in the units of the network: images in [0, 1], token ids
    is_given: bool = False  # real rather than generated
    shown: np.ndarray | None = None  # [E] bool; all if None


@styled
def draw_rows(rows: list[Row], vocabularies: dict[str, tuple[str, ...]]) -> Figure:
    """Draw all rows in one figure, one column per example. Rows of real examples have a bold label.

    Args:
      rows: rows with the same number of examples.
      vocabularies: {modality name: the word of each token id}; without a vocabulary, ids are shown.
    """
    has_text = any(row.modality.kind == "tokens" for row in rows)
    width = _TEXT_WIDTH if has_text else _SIDE
    columns = min(len(rows[0].values), _TEXT_COLUMNS if has_text else len(rows[0].values))
    size = (1.7 + width * columns, 0.1 + _SIDE * len(rows))
    figure, axis = subplots(size=size)
    limits = _limits(rows)
    for place, row in enumerate(rows):
        for column in range(columns):
            if row.shown is not None and not row.shown[column]:
                continue
            box = (column * width, (column + 1) * width, place * _SIDE, (place + 1) * _SIDE)
            _draw_cell(axis, box, row, row.values[column], limits, vocabularies)
    axis.set(xlim=(0, columns * width), ylim=(len(rows) * _SIDE, 0), aspect="equal", xticks=[])
    axis.set_yticks((np.arange(len(rows)) + 0.5) * _SIDE, [row.label for row in rows])
    for text, row in zip(axis.get_yticklabels(), rows):
        text.set_fontweight("bold" if row.is_given else "normal")
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    return figure


def _draw_cell(axis, box, row: Row, value: np.ndarray, limits, vocabularies) -> None:
    if row.modality.kind == "tokens":
        _draw_text(axis, box, _words(value, row.modality, vocabularies))
    elif row.modality.kind == "image":
        _draw_image(axis, box, np.clip(value, 0.0, 1.0))
    else:
        _draw_numbers(axis, box, value, limits[row.modality.name])


def _limits(rows: list[Row]) -> dict[str, tuple[float, float]]:
    """Return the range of values of each modality: that of its real examples if there are any."""
    limits = {}
    for row in sorted(rows, key=lambda row: row.is_given):
        values = row.values if row.shown is None else row.values[row.shown]
        known = values[~np.isnan(values)] if values.dtype.kind == "f" else values
        low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
        limits[row.modality.name] = low, max(high, low + 1e-6)
    return limits


def _draw_text(axis, box, text: str) -> None:
    left, _, top, _ = box
    lines = textwrap.wrap(text, _CHARACTERS, max_lines=6, placeholder=" ...") or [_NO_TEXT]
    style = {"color": "grey", "style": "italic"} if lines == [_NO_TEXT] else {}
    axis.text(left + 0.04, top + 0.04, "\n".join(lines), fontsize=6.5, va="top", **style)


def _draw_image(axis, box, image: np.ndarray) -> None:
    """Draw an image that fills its cell: three or more channels as colours, one or two as the grey of their mean."""
    left, right, top, bottom = box
    scale = 0.95 * min((right - left) / image.shape[1], (bottom - top) / image.shape[0])
    half_width, half_height = 0.5 * scale * image.shape[1], 0.5 * scale * image.shape[0]
    x, y = 0.5 * (left + right), 0.5 * (top + bottom)
    extent = (x - half_width, x + half_width, y + half_height, y - half_height)
    shown = image[..., :3] if image.shape[-1] > 2 else np.repeat(image.mean(axis=-1, keepdims=True), 3, axis=-1)
    axis.imshow(shown, extent=extent, interpolation="nearest")


def _draw_numbers(axis, box, value: np.ndarray, limits: tuple[float, float]) -> None:
    """Draw a vector as a line, and an array with more axes as a raster whose rows are its first axis."""
    left, right, top, bottom = box
    low, high = limits
    if value.ndim > 1:
        extent = (left + 0.03, right - 0.03, bottom - 0.03, top + 0.03)
        raster = value.reshape(len(value), -1)
        axis.imshow(raster, extent=extent, vmin=low, vmax=high, cmap="cividis", interpolation="nearest", aspect="auto")
        return
    heights = (np.clip(value, low, high) - low) / (high - low)
    y = bottom - 0.06 - heights * (bottom - top - 0.12)
    axis.plot(np.linspace(left + 0.06, right - 0.06, len(value)), y, color="#0072b2", linewidth=0.8)


def _words(ids: np.ndarray, modality: Modality, vocabularies: dict[str, tuple[str, ...]]) -> str:
    words = vocabularies.get(modality.name)
    kept = [int(one) for one in ids if one != modality.padding]
    if words and all(len(word) == 1 for word in words):  # characters; blanks surround a text
        return " ".join("".join(words[one] for one in kept).replace(ALPHABET[BLANK], " ").split())
    return " ".join(words[one] if words else str(one) for one in kept)
