"""The arguments of classes whose modules import torch, read from their source: asking which there are loads nothing."""

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Optional, Union

from sagitta.errors import ConfigError

_KNOWN = {each.__name__: each for each in (int, float, str, bool, list, dict)}
_TYPING = {"Literal": Literal, "Optional": Optional, "Union": Union, "Sequence": Sequence}


@dataclass(frozen=True)
class Argument:
    """An argument of a class.

    Attributes:
        name: of it.
        kind: its type; ``Any`` where telling that takes more than its source.
        default: likewise None.
    """

    name: str
    kind: Any
    default: Any


def read_signature(module: str, name: str, kinds: Mapping[str, Any] = {}) -> list[Argument]:
    """Return the arguments of a class: of its ``__init__``, else the fields of a dataclass.

    Args:
        module: by its dotted name; its file is read, and nothing is imported.
        name: of the class.
        kinds: types that are known beside Python's own, by the names that the module has for them.

    Raises:
        ConfigError: there is no such class in the module, which another version of its package may be the reason of.
    """
    for node in _parsed(module).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return _arguments(node, {**_KNOWN, **_TYPING, **kinds})
    raise ConfigError(f"{module}: has no class {name}; this version of {module.partition('.')[0]} is not known")


def read_kinds(module: str) -> dict[str, Any]:
    """Return the types that a module gives names to, such as ``Words = Literal["a", "b"]``, as for ``kinds``."""
    kinds: dict[str, Any] = {**_KNOWN, **_TYPING}
    for node in _parsed(module).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            kinds[node.targets[0].id] = _kind(node.value, kinds)
    return kinds


def _parsed(module: str) -> ast.Module:
    top, *inside = module.split(".")
    spec = find_spec(top)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"{top}: not installed; pip install sagitta")
    path = Path(spec.submodule_search_locations[0]).joinpath(*inside).with_suffix(".py")
    return ast.parse(path.read_text(encoding="utf-8"))


def _arguments(node: ast.ClassDef, kinds: Mapping[str, Any]) -> list[Argument]:
    for each in node.body:
        if isinstance(each, ast.FunctionDef) and each.name == "__init__":
            given = each.args
            plain = given.args[1:]
            defaults = [None] * (len(plain) - len(given.defaults)) + given.defaults
            found = [*zip(plain, defaults, strict=False), *zip(given.kwonlyargs, given.kw_defaults, strict=True)]
            return [Argument(one.arg, _kind(one.annotation, kinds), _value(default)) for one, default in found]
    return [
        Argument(each.target.id, _kind(each.annotation, kinds), _value(each.value))
        for each in node.body
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
    ]


def _kind(annotation: ast.expr | None, kinds: Mapping[str, Any]) -> Any:
    """Return the type that an annotation names, ``Any`` where one of its names is not known."""
    return Any if annotation is None else _evaluated(annotation, kinds, Any)


def _value(default: ast.expr | None) -> Any:
    """Return a plain default such as ``4 / 3``, None for one that is made of other things."""
    return None if default is None else _evaluated(default, {}, None)


def _evaluated(node: ast.expr, names: Mapping[str, Any], otherwise: Any) -> Any:
    if any(isinstance(each, ast.Call | ast.Attribute) for each in ast.walk(node)):
        return otherwise
    try:
        return eval(compile(ast.Expression(node), "signature", "eval"), {"__builtins__": {}}, dict(names))
    except (NameError, TypeError):
        return otherwise
