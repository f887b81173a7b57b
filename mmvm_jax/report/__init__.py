"""Figures and the pages that show them; drawn into files, so no screen is needed."""

import matplotlib

matplotlib.use("agg")
matplotlib.rcParams.update(
    {
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "figure.dpi": 110,
        "text.parse_math": False,  # names and captions are what they are, dollars included
    }
)
