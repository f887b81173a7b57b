"""The style of all figures. It is set per figure, so that importing the package changes no settings of Matplotlib."""

from collections.abc import Callable
from typing import Any

import matplotlib
from matplotlib.figure import Figure

_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.dpi": 110,
    "text.parse_math": False,  # names and captions may contain dollar signs
}


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Decorate a function that draws a figure."""
    return matplotlib.rc_context(_STYLE)(draw)


def subplots(rows: int = 1, columns: int = 1, *, size: tuple[float, float], squeeze: bool = True):
    """Return a figure and its axes, as ``pyplot.subplots`` does, but without pyplot, which would need a display."""
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=squeeze)
