"""Names in the package."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import budgetguard


def test_a_class_name_is_unique_in_the_package() -> None:
    folder = Path(budgetguard.__file__).parent
    places: defaultdict[str, list[str]] = defaultdict(list)
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(f"{path.relative_to(folder)}:{node.lineno}")
    assert len(places) > 100, "the package's classes are not where this looks for them"
    assert {name: found for name, found in places.items() if len(found) > 1} == {}
