"""The documentation as a site, by Sphinx: ``make docs``. The source folder is the project's, pages are Markdown."""

project = "prunecert"
author = copyright = "prunecert contributors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/index"
include_patterns = ["README.md", "CONTRIBUTING.md", "docs/*.md"]
html_theme = "furo"
html_title = "prunecert"
html_show_sphinx = False
myst_heading_anchors = 4
suppress_warnings = ["myst.xref_missing"]
autodoc_typehints = "description"
autodoc_member_order = "bysource"
pygments_style = "friendly"
