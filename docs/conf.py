"""How Sphinx builds the site: `make docs`, then open build/docs/index.html."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import site_pages  # noqa: E402
from mathml import as_mathml  # noqa: E402

project, author, copyright = "regard", "the authors of regard", "the authors of regard"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["build"]
html_theme, html_title = "furo", "regard"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_theme_options = {"sidebar_hide_name": False}
html_show_sourcelink = html_show_sphinx = html_copy_source = False

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_output_stderr = "remove"  # that a kernel is compiled, once

default_role = "py:obj"  # a name in `backticks` is a link where it is one, else code
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
napoleon_use_rtype = False
suppress_warnings = ["myst.xref_missing", "ref.python"]


def setup(app) -> None:
    """What is generated before the pages are read, and how equations and docstrings are shown."""
    app.connect("builder-inited", lambda app: site_pages.write_all(Path(app.srcdir)))
    app.connect("autodoc-process-docstring", site_pages.as_restructured_text)
    as_mathml(app)
