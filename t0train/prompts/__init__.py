"""Templates: promptsource's YAML, compiled once, rendered with its exact semantics."""

from t0train.prompts.install import install
from t0train.prompts.rendering import Note, describe_notes
from t0train.prompts.template import NO_LABEL, RENDERER_VERSION, Rendered, Template, columns_read
from t0train.prompts.template_folders import list_datasets, load_templates, template_folder

__all__ = [
    "NO_LABEL",
    "RENDERER_VERSION",
    "Note",
    "Rendered",
    "Template",
    "columns_read",
    "describe_notes",
    "install",
    "list_datasets",
    "load_templates",
    "template_folder",
]
