"""What `import budgetguard` brings with it, and what it offers."""

import inspect
import json
import pickle
import subprocess
import sys
from types import FunctionType

import pytest

import budgetguard

HEAVY = ["openai", "tiktoken", "genai_prices", "diskcache", "pydantic", "httpx", "sqlite3", "typer", "rich"]


def modules_after(code: str) -> set[str]:
    script = f"import json, sys\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, timeout=60, capture_output=True, text=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_brings_none_of_what_only_calls_need() -> None:
    assert modules_after("import budgetguard").isdisjoint(HEAVY)


def test_importing_brings_little_beyond_wrapt_and_contextvars_extras() -> None:
    base = modules_after("import wrapt, contextvars_extras")
    ours = {name for name in modules_after("import budgetguard") - base if not name.startswith("budgetguard")}
    assert ours.isdisjoint({"urllib.request", "http.client", "zoneinfo", "fractions", "difflib", "asyncio"})


def test_configuring_and_setting_a_user_brings_none_of_it_either() -> None:
    code = """
import budgetguard
budgetguard.configure(store="memory://", project="p")
with budgetguard.budget_user("u"), budgetguard.budget(1):
    pass
"""
    assert modules_after(code).isdisjoint(HEAVY)


def test_writing_what_waits_and_finding_nothing_that_waits_needs_no_pydantic() -> None:
    code = """
import tempfile
from pathlib import Path
from budgetguard.core.holds import VOID, Charge, Hold
from budgetguard.engine.spool import Spool
with tempfile.TemporaryDirectory() as folder:
    spool = Spool(Path(folder), "memory://", "p")
    assert not list(spool.waiting())
    spool.put(Hold("a1", (Charge("user:1"),), 1, 1, 1, 1), VOID)
"""
    assert "pydantic" not in modules_after(code)


def test_patching_imports_no_sdk() -> None:
    from budgetguard.providers.sdks import SDKS

    code = "import budgetguard\nbudgetguard.patch()\nbudgetguard.patch_anthropic()"
    assert {patch.sdk.package for patch in SDKS.values()}.isdisjoint(modules_after(code))


@pytest.mark.parametrize("module", ["asgi", "wsgi", "web"])
def test_the_middlewares_bring_no_framework_and_nothing_that_only_calls_need(module: str) -> None:
    brought = modules_after(f"import budgetguard.integrations.{module}")
    assert brought.isdisjoint({*HEAVY, "starlette", "anyio", "django", "flask", "werkzeug", "uvicorn"})


@pytest.mark.parametrize(
    ("module", "package"),
    [
        ("django", "django"),
        ("celery", "celery"),
        ("rq", "rq"),
        ("mcp", "mcp"),
        ("opentelemetry", "opentelemetry"),
    ],
)
def test_an_integration_needs_its_own_package_only(module: str, package: str) -> None:
    """Where that is not installed, the error says so; where it is, no other is imported."""
    others = {"django", "celery", "rq", "mcp", "opentelemetry", "flask", "starlette"} - {package}
    if package == "mcp":
        others -= {"starlette", "opentelemetry"}  # which it needs itself
    code = f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {others!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
try:
    import budgetguard.integrations.{module}
except ImportError as error:
    assert "integrations.{module} needs" in str(error), error
    assert error.__cause__.name.partition(".")[0] in ({package!r}, "asgiref"), error
"""
    modules_after(code)


def test_the_exported_names_are_these() -> None:
    assert sorted(budgetguard.__all__) == [
        "Balance",
        "Budget",
        "BudgetExceededError",
        "BudgetGuardError",
        "BudgetManager",
        "ConfigurationError",
        "EACH",
        "Event",
        "Guard",
        "MissingUserError",
        "ModelNotAllowedError",
        "Run",
        "StoreError",
        "UnguardedCallError",
        "UnknownEndpointError",
        "UnknownModelError",
        "UnknownUserError",
        "UnpricedAnswerError",
        "Usage",
        "budget",
        "budget_labels",
        "budget_tags",
        "budget_user",
        "budgeted",
        "call",
        "check",
        "configure",
        "current_cost",
        "current_labels",
        "current_user",
        "default_guard",
        "literal",
        "log_events",
        "on",
        "patch",
        "patch_anthropic",
        "patch_bedrock",
        "patch_google",
        "patch_litellm",
        "patch_openai",
        "reconcile",
        "register_price",
        "unpatch",
        "unpatch_anthropic",
        "unpatch_bedrock",
        "unpatch_google",
        "unpatch_litellm",
        "unpatch_openai",
        "wrap",
    ]


@pytest.mark.parametrize("name", budgetguard.__all__)
def test_every_exported_name_is_there_and_documented(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budgetguard, "_guard", budgetguard.Guard(store="memory://"))
    found = getattr(budgetguard, name)
    assert name == "max_budget" or found.__doc__


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("max_budgte", "did you mean max_budget?"),
        ("maxbudget", "did you mean max_budget?"),
        ("default_budget", r"budgetguard.configure\(default_budget=...\)"),
        ("user", r"budgetguard.configure\(user=...\)"),
        ("spam", "what can be set is max_budget"),
    ],
)
def test_a_name_that_is_not_there_cannot_be_set(name: str, hint: str) -> None:
    """A mistyped cap would cap nothing."""
    with pytest.raises(AttributeError, match=hint):
        setattr(budgetguard, name, 5)
    with pytest.raises(budgetguard.ConfigurationError, match=f"no attribute '{name}'"):
        setattr(budgetguard, name, 5)
    assert not hasattr(budgetguard, name)
    with pytest.raises(AttributeError):
        setattr(budgetguard.Guard(store="memory://"), name, 5)


def test_names_that_are_there_can_be_replaced_as_tests_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(budgetguard, "configure", None)
        assert budgetguard.configure is None
    assert budgetguard.configure is not None


@pytest.mark.parametrize(
    "name", [name for name in budgetguard.__all__ if isinstance(getattr(budgetguard, name), FunctionType)]
)
def test_a_function_of_the_module_is_sent_to_other_processes_and_shows_its_parameters(name: str) -> None:
    function = getattr(budgetguard, name)
    assert pickle.loads(pickle.dumps(function)) is function
    assert "self" not in inspect.signature(function).parameters


def test_a_star_import_binds_no_number_that_looks_like_the_cap() -> None:
    names: dict[str, object] = {}
    exec("from budgetguard import *", names)
    assert "max_budget" not in names
