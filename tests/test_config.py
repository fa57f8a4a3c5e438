"""Settings, their variables, and what cannot be one."""

import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import budgetguard
from budgetguard import ConfigurationError, Guard
from budgetguard.config import Settings, changed, from_environment


def test_without_any_variable_the_defaults_hold() -> None:
    settings = from_environment({})
    assert settings == Settings()
    assert settings.store == "disk://~/.budgetguard"
    assert (settings.project, settings.user, settings.default) == (None, None, None)
    assert (settings.missing_user, settings.unknown_model, settings.on_store_error) == (
        "error",
        "error",
        "block",
    )
    assert (settings.unknown_outcome, settings.hold_ttl) == ("charge", "15m")


@pytest.mark.parametrize(
    ("variable", "text", "name", "value"),
    [
        ("STORE", "memory://", "store", "memory://"),
        ("PROJECT", "app", "project", "app"),
        ("USER", "1234", "user", "1234"),
        ("DEFAULT_BUDGET", "0.1", "default_budget", Decimal("0.1")),
        ("DEFAULT_BUDGET", "$10", "default_budget", Decimal(10)),
        ("DEFAULT_DURATION", "monthly", "default_duration", "monthly"),
        ("TIMEZONE", "Europe/Berlin", "timezone", "Europe/Berlin"),
        ("MISSING_USER", "allow", "missing_user", "allow"),
        ("UNKNOWN_MODEL", "allow", "unknown_model", "allow"),
        ("UNKNOWN_OUTCOME", "input", "unknown_outcome", "input"),
        ("ON_STORE_ERROR", "allow", "on_store_error", "allow"),
        ("ON_STREAM_EXCEEDED", "stop", "on_stream_exceeded", "stop"),
        ("COUNT", "provider", "count", "provider"),
        ("STRICT", "true", "strict", True),
        ("STRICT", "0", "strict", False),
        ("STRICT_FLOOR", "64", "strict_floor", 64),
        ("STRICT_CEILING", "2048", "strict_ceiling", 2048),
        ("HOLD_TTL", "1h", "hold_ttl", "1h"),
        ("RETENTION", "1y", "retention", "1y"),
        ("THRESHOLDS", "50, 90,", "thresholds", (50, 90)),
        ("ALERTS", "json://h/a?x=1,2,\n slack://a/b/c", "alerts", ("json://h/a?x=1,2", "slack://a/b/c")),
        ("ALERT_ON", "80, refused", "alert_on", (80, "refused")),
        ("ALERT_QUIET", "10m", "alert_quiet", "10m"),
        ("ALERT_QUIET", "none", "alert_quiet", None),
        ("ALLOW_ENDPOINTS", "/images/generations, /x", "allow_endpoints", ("/images/generations", "/x")),
        ("MODEL_MAP", "dep=gpt-4o-mini, b = gpt-4o,", "model_map", {"dep": "gpt-4o-mini", "b": "gpt-4o"}),
        ("FREE_BASE_URLS", "http://localhost:1/v1,", "free_base_urls", ("http://localhost:1/v1",)),
        ("PRICES", "ours.toml", "prices", "ours.toml"),
        ("PRICE_LIST", "/var/lib/prices.json", "price_list", "/var/lib/prices.json"),
        ("PRICE_LIST", "none", "price_list", None),
    ],
)
def test_every_setting_has_its_variable(variable: str, text: str, name: str, value: Any) -> None:
    assert getattr(from_environment({f"BUDGETGUARD_{variable}": text}), name) == value


def test_an_empty_variable_is_as_good_as_none() -> None:
    assert from_environment({"BUDGETGUARD_USER": "", "BUDGETGUARD_THRESHOLDS": ""}) == Settings()


@pytest.mark.parametrize(
    ("variable", "text", "says"),
    [
        ("DEFAULT_BUDGET", "ten", "BUDGETGUARD_DEFAULT_BUDGET must be a number of USD.*'ten'"),
        ("DEFAULT_BUDGET", "-1", "default_budget must not be negative"),
        ("DEFAULT_BUDGET", "nan", "default_budget must be a finite number"),
        ("THRESHOLDS", "half", "BUDGETGUARD_THRESHOLDS must be whole percentages.*'half'"),
        ("THRESHOLDS", "0", "from 1 to 1000, not 0"),
        ("STORE", "/var/lib/budgets", r"not a URL: write disk:///var/lib/budgets"),
        ("TIMEZONE", "Mars/Base", "Mars/Base"),
        ("MISSING_USER", "maybe", "missing_user must be one of 'error', 'allow', 'require', not 'maybe'"),
        ("STRICT", "maybe", "BUDGETGUARD_STRICT must be true or false, not 'maybe'"),
        ("STRICT_FLOOR", "few", "BUDGETGUARD_STRICT_FLOOR must be a whole number, not 'few'"),
        ("HOLD_TTL", "soon", "unknown duration 'soon'"),
        ("MODEL_MAP", "dep", "BUDGETGUARD_MODEL_MAP must be like my-deployment=gpt-4o-mini.*'dep'"),
        ("MODEL_MAP", "=gpt-4o", "BUDGETGUARD_MODEL_MAP must be like"),
        ("FREE_BASE_URLS", "localhost:11434", "free_base_urls must be a plain address.*'localhost:11434'"),
    ],
)
def test_a_bad_variable_is_refused_with_its_name_or_setting(variable: str, text: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        from_environment({f"BUDGETGUARD_{variable}": text})


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"store": ""}, "is not a URL: write disk://"),
        ({"store": "redis:/x"}, "is not a URL: write redis://, with both slashes"),
        ({"store": Path("budgets")}, "store must be a URL such as disk:///var/lib/app/budgets, or an open"),
        ({"store": None}, "store must be a URL"),
        ({"project": ""}, "project must not be empty"),
        ({"project": 7}, "project must be text, not 7"),
        ({"user": 1234}, "user must be text.*write '1234'"),
        ({"default_budget": "10"}, "default_budget must be a number of USD.*not '10'"),
        ({"default_budget": True}, "default_budget must be a number of USD"),
        ({"default_duration": "fortnightly"}, "unknown duration 'fortnightly'"),
        ({"timezone": "Mars/Base"}, "Mars/Base"),
        ({"missing_user": "ignore"}, "missing_user must be one of 'error', 'allow'"),
        ({"unknown_outcome": "free"}, "unknown_outcome must be one of 'charge', 'input', 'release'"),
        ({"on_store_error": "raise"}, "on_store_error must be one of 'block', 'allow'"),
        ({"count": "exactly"}, "count must be one of 'local', 'provider', not 'exactly'"),
        ({"on_stream_exceeded": "kill"}, "on_stream_exceeded must be one of 'finish', 'stop', not 'kill'"),
        ({"strict": "yes"}, "strict must be True or False, not 'yes'"),
        ({"strict_floor": 0}, "strict_floor must be a whole number of tokens from 1, not 0"),
        ({"strict_ceiling": True}, "strict_ceiling must be a whole number of tokens from 1, not True"),
        ({"strict_ceiling": 8}, r"strict_ceiling must be at least strict_floor \(16\), not 8"),
        ({"hold_ttl": 900}, "unknown duration 900"),
        ({"retention": "0d"}, "unknown duration '0d'"),
        ({"thresholds": 50}, r"thresholds is a list of percentages such as \[50, 80\], not 50"),
        ({"thresholds": [0.5]}, "whole percentages from 1 to 1000, not 0.5"),
        ({"thresholds": [True]}, "not True"),
        ({"allow_endpoints": "/images"}, r"a list of paths such as .*, not '/images'"),
        ({"allow_endpoints": [3]}, "a list of paths"),
        ({"model_map": "gpt-4o"}, "model_map says which model a name stands for.*not 'gpt-4o'"),
        ({"model_map": {"dep": ""}}, "model_map has names and models, not 'dep': ''"),
        ({"model_map": {"dep": 4}}, "model_map has names and models, not 'dep': 4"),
        ({"free_base_urls": "http://localhost"}, "free_base_urls is a list of addresses such as"),
        ({"free_base_urls": ["ftp://localhost"]}, "must be a plain address.*not 'ftp://localhost'"),
        ({"free_base_urls": ["http://u:secret@localhost"]}, r"not 'http://\.\.\.@localhost'"),
        ({"free_base_urls": ["http://localhost?a=b"]}, "must be a plain address"),
        ({"clock": 3}, "clock must return milliseconds when called, not 3"),
        ({"stroe": "memory://"}, "unknown setting 'stroe': the settings are .*store"),
    ],
)
def test_a_bad_setting_is_refused_and_nothing_changes(values: dict[str, Any], says: str) -> None:
    settings = Settings(store="memory://")
    with pytest.raises(ConfigurationError, match=says):
        changed(settings, values)
    assert settings == Settings(store="memory://")


def test_the_map_of_models_is_the_guard_s_own_copy() -> None:
    mine = {"dep": "gpt-4o"}
    settings = changed(Settings(), {"model_map": mine})
    mine["dep"] = "gpt-4o-mini"
    assert settings.model_of("Dep ") == "gpt-4o"
    assert settings.model_of("other") == "other"


def test_lists_and_sets_are_as_good_as_tuples() -> None:
    settings = changed(Settings(), {"thresholds": [1, 2], "allow_endpoints": {"/x"}})
    assert (settings.thresholds, settings.allow_endpoints) == ((1, 2), ("/x",))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("BUDGETGUARD_STOER", "did you mean BUDGETGUARD_STORE?"),
        ("BUDGETGUARD_MAXBUDGET", "did you mean BUDGETGUARD_MAX_BUDGET?"),
        ("BUDGETGUARD_DEFAULT_BUGET", "did you mean BUDGETGUARD_DEFAULT_BUDGET?"),
        ("BUDGETGUARD_CLOCK", "BUDGETGUARD_"),
        ("BUDGETGUARD_", "There are BUDGETGUARD_ACTOR"),
        ("BUDGETGUARD_XYZZY", "BUDGETGUARD_"),
    ],
)
def test_a_variable_that_nothing_reads_is_refused(name: str, hint: str) -> None:
    for text in ("5", ""):
        with pytest.raises(ConfigurationError, match=f"{name} is none of budgetguard's.*{re.escape(hint)}"):
            from_environment({name: text})


@pytest.mark.parametrize(
    "name",
    [
        "BUDGETGUARD_SERVICE_HOST",
        "BUDGETGUARD_SERVICE_PORT",
        "BUDGETGUARD_SERVICE_PORT_HTTP",
        "BUDGETGUARD_PORT",
        "BUDGETGUARD_PORT_8642_TCP",
        "BUDGETGUARD_PORT_8642_TCP_ADDR",
        "BUDGETGUARD_DB_SERVICE_HOST",
        "BUDGETGUARD_DB_PORT_5432_TCP_PROTO",
    ],
)
def test_what_kubernetes_sets_beside_a_service_of_that_name_is_passed_over(name: str) -> None:
    assert from_environment({name: "tcp://10.0.0.1:80"}) == Settings()


def test_every_variable_that_the_package_names_is_known() -> None:
    named = set()
    for path in Path(budgetguard.__file__).parent.rglob("*"):
        if path.suffix in (".py", ".pth"):
            named |= set(re.findall(r"\bBUDGETGUARD_[A-Z][A-Z_]*[A-Z]\b", path.read_text("utf-8")))
    # Empty, so that only the name counts.
    assert from_environment(dict.fromkeys(named - {"BUDGETGUARD_CLOCK"}, "")) == Settings()


def test_max_budget_in_the_environment_caps_what_a_guard_made_there_spends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BUDGETGUARD_MAX_BUDGET", "$0.25")
    guard = Guard(store="memory://")
    assert guard.max_budget == Decimal("0.25")
    guard.max_budget = 0
    assert guard.beside(project="other").max_budget == 0
    guard.max_budget = 1e-10
    assert guard.engine.process.charge("p") is not None
    monkeypatch.setenv("BUDGETGUARD_MAX_BUDGET", "0")
    assert Guard(store="memory://").engine.process.charge("p") is not None
    monkeypatch.setenv("BUDGETGUARD_MAX_BUDGET", "")
    assert Guard(store="memory://").max_budget == 0


@pytest.mark.parametrize("text", ["-1", "ten", "nan", "1e99"])
def test_max_budget_in_the_environment_that_is_no_money_is_refused(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUDGETGUARD_MAX_BUDGET", text)
    with pytest.raises(ConfigurationError, match=r"(?i)max.budget"):
        Guard(store="memory://")
