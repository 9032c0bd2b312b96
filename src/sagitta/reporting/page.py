"""Templates, style and script -> one HTML file that loads nothing, and that text from data cannot break out of."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

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
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["json_script"] = json_script
    environment.filters["tojson_text"] = as_json
    environment.filters["soft"] = soft
    return environment


def _text(name: str) -> str:
    return (files("sagitta.reporting") / name).read_text(encoding="utf-8")


def soft(words: str) -> Markup:
    """Return words that may be broken behind the signs that join the parts of a name."""
    return Markup(re.sub(r"([_/\-])(?=\w)", r"\1<wbr>", str(escape(words))))


def as_json(value: Any) -> str:
    """Return a value as JSON, which a template escapes like any text."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def json_script(value: Any, name: str) -> Markup:
    r"""Return a value as a block of data, in which no ``</script>`` and no ``<!--`` can stand: ``<`` is ``\u003c``."""
    text = as_json(value).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    text = text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return Markup(f'<script type="application/json" id="{escape(name)}">{text}</script>\n')
