"""The documentation as a site: `python -m sphinx -W docs build/site`."""

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import ukbob_jax  # noqa: E402
from tools.site import docstrings, generate  # noqa: E402

project = "ukbob_jax"
author = "The ukbob_jax contributors"
version = release = ukbob_jax.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["reference/schemas"]
html_theme = "furo"
html_title = f"ukbob_jax {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_copyright = False
html_copy_source = False

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence", "deflist"]
suppress_warnings = ["myst.header"]  # pages of other hosts begin where they like
highlight_language = "text"
smartquotes_action = "D"  # dashes alone: values stand in straight quotes
toc_object_entries = False  # each object has a heading

nitpicky = True
nitpick_ignore_regex = [("py:class", r".*")]  # types within signatures: those of libraries, and inner ones
autodoc_typehints = "none"  # signatures stay as written; docstrings say shapes
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # fields are described once
napoleon_custom_sections = [("Attributes", "params_style")]
napoleon_use_rtype = False


def setup(app):
    """Fill pages with what the code says, and read its docstrings as they are written."""
    app.connect("source-read", generate.on_source_read)
    app.connect("autodoc-process-docstring", docstrings.on_docstring, priority=400)
    app.connect("autodoc-skip-member", docstrings.on_skip)
