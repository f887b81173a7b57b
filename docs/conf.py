"""The site: Markdown and notebooks by MyST, docstrings by autodoc, formulas as MathML, which browsers draw themselves.

sphinx-build -W docs build/docs
"""

import latex2mathml.converter
from docutils.nodes import SkipNode

import mmvm_jax

project, author, version = "mmvm_jax", "the mmvm_jax authors", mmvm_jax.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["examples"]
nb_execution_mode = "off"  # tests/test_notebook.py runs the notebook; the site shows the outputs that it holds
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # docstrings give shapes, which say more
highlight_language = "none"
html_theme = "furo"
html_title = f"mmvm_jax {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_show_sphinx = html_show_copyright = html_copy_source = False


def _inline(writer, node):
    writer.body.append(latex2mathml.converter.convert(node.astext()))
    raise SkipNode


def _block(writer, node):
    writer.body.append(latex2mathml.converter.convert(node.astext(), display="block"))
    raise SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
