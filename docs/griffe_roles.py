"""Roles of docstrings, such as :func:`convert`, become code in the site: names that the reference has are links."""

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:func|class|meth|mod|attr|data):`~?([\w.]+)`")


class Roles(griffe.Extension):
    """Rewrites docstrings when they are read."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite one object's docstring."""
        if obj.docstring is not None:
            obj.docstring.value = ROLE.sub(_code, obj.docstring.value)


def _code(match: re.Match[str]) -> str:
    import sagitta

    name = match[1].removeprefix("sagitta.")
    return f"[`{name}`][sagitta.{name}]" if name in dir(sagitta) else f"`{match[1]}`"
