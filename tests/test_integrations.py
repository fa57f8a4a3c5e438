"""What `budgetguard.integrations` needs: each module its own framework, and none of the others."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest

# What each module needs, and what is installed for it.
NEEDS = {
    "celery": ("celery", "celery"),
    "crewai": ("crewai", "crewai"),
    "django": ("django", "django"),
    "dspy": ("dspy", "dspy"),
    "langchain": ("langchain_core", "langchain-core"),
    "litellm": ("litellm", "litellm[proxy]"),
    "llama_index": ("llama_index", "llama-index-core"),
    "mcp": ("mcp", "budgetguard-ai[mcp]"),
    "openai_agents": ("agents", "openai-agents"),
    "opentelemetry": ("opentelemetry", "budgetguard-ai[otel]"),
    "pydantic_ai": ("pydantic_ai", "pydantic-ai-slim"),
    "rq": ("rq", "rq"),
}
# What frameworks bring along of each other is theirs.
OTHERS = {
    "crewai": {"litellm"},
    "dspy": {"litellm"},
    "litellm": set(),
    "langchain": set(),
    "llama_index": set(),
    "openai_agents": {"litellm"},
    "pydantic_ai": set(),
}
every = pytest.mark.parametrize("name", NEEDS)


def ran(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def blocking(packages: set[str]) -> str:
    return f"import sys\nfor one in {sorted(packages)!r}: sys.modules[one] = None\n"


@pytest.mark.full
@every
def test_without_its_framework_it_says_what_to_install(name: str) -> None:
    package, install = NEEDS[name]
    code = f"""{blocking({package})}
try:
    import budgetguard.integrations.{name}
except ImportError as error:
    print(error)
"""
    said = ran(code)
    assert f"budgetguard.integrations.{name} needs" in said
    assert install in said


@every
def test_it_is_imported_without_the_others(name: str) -> None:
    package, _ = NEEDS[name]
    if importlib.util.find_spec(package) is None or (name == "litellm" and not _has("fastapi")):
        pytest.skip(f"{package} is not installed: tox -e frameworks has it")
    others = {NEEDS[one][0] for one in OTHERS} - {package} - OTHERS.get(name, set())
    code = f"""{blocking(others)}
import json
import budgetguard.integrations.{name} as module
print(json.dumps(sorted(name for name in vars(module) if "udget" in name and not name.startswith("_"))))
"""
    assert json.loads(ran(code))


def _has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def test_importing_budgetguard_imports_none_of_them() -> None:
    loaded = ran("import budgetguard, json, sys\nprint(json.dumps(sorted(sys.modules)))")
    names = set(json.loads(loaded))
    assert names.isdisjoint({package for package, _ in NEEDS.values()})
    assert not [one for one in names if one.startswith("budgetguard.integrations")]
