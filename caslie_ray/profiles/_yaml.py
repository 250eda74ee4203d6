"""YAML as users expect it: `1e-4` is a number, and a key given twice is an error."""

from __future__ import annotations

import re
from typing import Any

import yaml

__all__ = ["parse", "problem_of"]


class _Loader(yaml.SafeLoader):
    """SafeLoader with the numbers of YAML 1.2 and without silent repeats."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        "while reading a group of keys",
                        node.start_mark,
                        f"{key.value} is given twice",
                        key.start_mark,
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


# PyYAML reads YAML 1.1, where an exponent needs a dot and a sign: it would make 1e-4 a string.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def parse(text: str) -> Any:
    """Return the value of a YAML text.

    Raises:
        yaml.YAMLError: it is not YAML.
    """
    return yaml.load(text, Loader=_Loader)


def problem_of(error: yaml.YAMLError, *, quote: bool) -> str:
    """Return what is wrong with a YAML text, and where; lines of the text are part of it only where `quote` is true."""
    if quote or not isinstance(error, yaml.MarkedYAMLError):
        return str(error)
    mark = error.problem_mark
    where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    # Tags and aliases are quoted from the text.
    return re.sub(r"'[^'<]{2,}'", "…", error.problem or "it cannot be read") + where
