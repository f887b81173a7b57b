"""Figures and pages of a report. Figures are drawn into files, so no display is needed."""

import matplotlib

matplotlib.use("agg")
matplotlib.rcParams.update(
    {
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "figure.dpi": 110,
        "text.parse_math": False,  # names and captions may contain dollar signs
    }
)
