"""The documentation site: Sphinx, MyST and furo. `make docs` builds it."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent))

import config_fields  # noqa: E402

import electra_jax  # noqa: E402

project = "electra_jax"
version = release = electra_jax.__version__
copyright = "the authors of electra_jax, Apache License 2.0"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"electra_jax {version}"
html_theme_options = {"source_edit_link": "", "navigation_with_keys": True}
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
# Flax's modules have a dataclass's constructor, whose docstring is theirs.
autodoc_class_signature = "separated"
napoleon_google_docstring = True
copybutton_prompt_text = ""
# Links out of docs/ that GitHub follows, and the site has as pages or not at all.
suppress_warnings = ["myst.xref_missing"]

(HERE / "fields.md").write_text(config_fields.page(), encoding="utf-8")
