"""The site: these pages, and a reference from the docstrings. `./scripts/site` builds it."""

import re
from importlib import metadata

project = "planet_rssm"
author = "planet_rssm contributors"
release = metadata.version("planet_rssm")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
# a page that index.md does not list yet is still linked from "All pages", which a test checks
suppress_warnings = ["toc.not_included"]
html_theme = "furo"
html_title = f"planet_rssm {release}"
html_show_sourcelink = False
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["site.css"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4  # `page.md#heading`, as on GitHub
autodoc_default_options = {"members": True, "show-inheritance": True, "member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_class_signature = "mixed"
napoleon_use_rtype = False

_CODE = re.compile(r"(`[^`]+`)")
_NAMED_BY_FILE = re.compile(r"\[[\w./-]+\.md\]\(([^)\s]+\.md(?:#[^)\s]*)?)\)")


def plain(app, what, name, obj, options, lines):
    """Make a docstring of plain text and Markdown's `code` what Sphinx reads.

    In ours a star is a star: [*B, D] is a shape.
    """
    result = []
    for line in lines:
        if line.lstrip().startswith((">>> ", "... ")):
            result.append(line)
            continue
        parts = _CODE.split(line)
        result.append(
            "".join(
                f"`{part}`\\ " if part.startswith("`") else re.sub(r"([*|]|_(?!\w))", r"\\\1", part)
                for part in parts
            )
        )
    lines[:] = result


def within(app, docname, source):
    """Lead links to the README of the repository to the site's first page, which includes it."""
    source[0] = source[0].replace("](../README.md", "](index.md")
    for name in ("CONTRIBUTING", "SECURITY"):  # they are no pages of the site
        source[0] = source[0].replace(f"[{name}](../{name}.md)", f"{name}.md")
    by_title(app, None, docname, source)


def by_title(app, path, docname, source):
    """Let a link whose text is the name of a page's file show the title that it leads to."""
    source[0] = _NAMED_BY_FILE.sub(r"*[](\1)*", source[0])


def setup(app):
    """Change docstrings before they are taken apart, and pages before they are read."""
    app.connect("autodoc-process-docstring", plain, priority=100)
    app.connect("source-read", within)
    app.connect("include-read", by_title)
