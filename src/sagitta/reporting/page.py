"""Templates, style and script -> one HTML file that loads nothing, and that text from data cannot break out of."""

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from sagitta.reporting.escaping import apart, as_json, json_script, lines, named, visible

GENERATOR = "Sagitta report"
"""Stands in every page: what has it was written by us, and may be written anew."""


def render(template: str, values: Mapping[str, Any]) -> str:
    """Return a page.

    Args:
        template: ``run.html`` or ``versus.html``.
        values: of the template.
    """
    style, script = (_text(name) for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    common = {
        "style": Markup(style),
        "script": Markup(script),
        "script_hash": f"sha256-{digest}",
        "generator": GENERATOR,
        "version": version("sagitta"),
    }
    return _environment().get_template(template).render({**common, **values})


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("sagitta.reporting", "."),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["json_script"] = json_script
    environment.filters["tojson_text"] = as_json
    environment.filters |= {"named": named, "apart": apart, "lines": lines}
    return environment


def _shown(value: Any) -> Any:
    """Return what a template writes down: text that is not ours already has nothing unseen in it."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _text(name: str) -> str:
    return (files("sagitta.reporting") / name).read_text(encoding="utf-8")
