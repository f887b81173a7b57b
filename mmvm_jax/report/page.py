"""A page in one HTML file: it contains its pictures, its tables sort by a click, and it loads nothing."""

import base64
import json
import math
import os

import jinja2

from mmvm_jax.artifacts import run_folder
from mmvm_jax.config import evaluated_split
from mmvm_jax.runtime import environment
from mmvm_jax.runtime.files import write_text

_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("mmvm_jax.report", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
)

_EXAMPLES = {"test": "the whole test split", "validation": "training examples set aside"}


def write_page(
    template: str, workdir: str, pictures, captions: dict[str, str], config, formats=("png",), **content
) -> str:
    """Write ``figures/*`` and ``report.html`` into the workdir.

    Args:
      template: file name of the template, which extends ``page.html.jinja``.
      workdir: folder of the run or the sweep.
      pictures: iterable of (name, figure), in the order of the page.
      captions: ``{name: caption}``.
      config: configuration, shown at the end of the page.
      formats: file formats of the figures, "png" among them.
      content: further variables of the template.

    Returns:
      The path of the page.
    """
    os.makedirs(os.path.join(workdir, "figures"), exist_ok=True)
    split = evaluated_split(config)
    shown = [_picture(workdir, name, figure, captions[name], formats) for name, figure in pictures]
    page = _TEMPLATES.get_template(template).render(
        pictures=shown,
        config=json.dumps(config.to_dict(), indent=2),
        environment=environment.to_text(),
        split=split,
        examples=_EXAMPLES[split],
        **content,
    )
    path = os.path.join(workdir, run_folder.REPORT_FILE)
    write_text(path, page)
    return path


def format_number(value: float) -> str:
    """Format a number with four significant digits; from 1,000 on without decimals."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def format_with_error(mean: float, error: float) -> str:
    """Format mean ± standard error, both to the second digit of the error; only the mean if there is no error."""
    if not error > 0:  # also NaN
        return format_number(mean)
    digits = max(0, 1 - math.floor(math.log10(error)))
    return f"{mean:,.{digits}f} ± {error:,.{digits}f}"


def read_picture(path: str, name: str, caption: str) -> dict[str, str]:
    """Return a PNG file as the page shows it."""
    with open(path, "rb") as file:
        return {"name": name, "caption": caption, "data": base64.b64encode(file.read()).decode()}


def _picture(workdir: str, name: str, figure, caption: str, formats) -> dict[str, str]:
    paths = {extension: os.path.join(workdir, "figures", f"{name}.{extension}") for extension in formats}
    for path in paths.values():
        figure.savefig(path)
    return read_picture(paths["png"], name, caption)


_TEMPLATES.filters["number"] = format_number
_TEMPLATES.globals["with_error"] = format_with_error
