"""`budgetguard prices`: what would be charged, from where and of when; and the newest list, if asked for."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from genai_prices.data_snapshot import get_snapshot

from budgetguard import Guard, UnknownModelError
from budgetguard.core.usage import Usage
from budgetguard.pricing.book import PriceBook
from budgetguard.pricing.lists import dated, forget_kept

from .helpers import Command, run

FILE = """
[[price]]
model = "gpt-5*"
input = 1.5
output = 2
web_searches_kcount = 3
valid_from = 2026-01-01

[[price]]
base_url = "https://one.openai.azure.com"
factor = 1.1
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "prices.toml"
    made.write_text(FILE)
    return made


# --- what would be charged ---


def prices_of(done: Any) -> dict[tuple[str, str | None], dict[str, Any]]:
    return {(price["unit"], price["tier"]): price for price in done.object["prices"]}


def test_a_listed_model_s_prices_are_shown_with_tiers_and_long_prompts(command: Command) -> None:
    done = command("prices", "gpt-5.5", "--json")
    shown = prices_of(done)
    assert done.object["provider"] == "openai"
    assert done.object["listed_as"] == "gpt-5.5"
    assert shown["input_tokens", None]["usd"] == "5"
    assert shown["input_tokens", None]["above"] == [{"input_tokens": 272_000, "usd": "10"}]
    assert shown["output_tokens", "flex"]["usd"] == "15"
    assert shown["output_tokens", "batch"]["above"] == [{"input_tokens": 272_000, "usd": "22.5"}]
    assert shown["input_tokens", None]["origin"] == "list"
    assert shown["container_sessions_1g", None]["origin"] == "extra"
    assert shown["container_sessions_1g", None]["source"] == "https://developers.openai.com/api/docs/pricing"
    assert shown["container_sessions_1g", None]["taken"] == "2026-02-07"
    text = command("prices", "gpt-5.5").out
    assert "above 272,000              10.00" in text
    assert "gpt-5.5 at openai, in USD." in text
    assert "list: the list of genai-prices" in text
    assert "container_sessions_1g" not in text
    assert "container_sessions_1g" in command("prices", "gpt-5.5", "--all").out


@pytest.mark.parametrize(
    ("model", "at", "unit", "tier"),
    [
        ("gpt-4o", {}, "input_tokens", None),
        ("gpt-5.5-pro", {}, "output_tokens", "batch"),
        ("ft:gpt-4.1:org::id", {}, "cache_read_tokens", "batch"),
        ("gemini-2.5-pro", {"provider": "google"}, "output_tokens", "priority"),
        ("gpt-5.4", {"base_url": "https://eu.api.openai.com/v1"}, "input_tokens", "flex"),
        ("claude-haiku-4-5", {}, "cache_write_1h_tokens", None),
        ("whisper-1", {}, "input_audio_seconds", None),
        ("gpt-4o-mini-tts-2025-12-15", {}, "output_audio_tokens", None),
    ],
)
def test_what_is_shown_is_what_is_charged(
    command: Command, model: str, at: dict[str, str], unit: str, tier: str | None
) -> None:
    arguments = [part for name, value in at.items() for part in (f"--{name.replace('_', '-')}", value)]
    price = prices_of(command("prices", model, *arguments, "--json"))[unit, tier]
    rates = PriceBook().rates(model, **at, tier=tier, bare=True)  # type: ignore[arg-type]
    cost = rates.cost(Usage.of(**{unit: 10_000}))
    assert Decimal(cost).scaleb(-9) == Decimal(price["usd"]) * 10_000 / price["per"]


def test_what_the_list_has_wrong_is_shown_with_the_page_that_says_so(command: Command) -> None:
    heard = prices_of(command("prices", "gpt-4o-transcribe", "--json"))["input_audio_tokens", None]
    assert (heard["usd"], heard["origin"]) == ("2.5", "extra")
    assert heard["source"].endswith("/models/gpt-4o-transcribe")
    priority = prices_of(command("prices", "gemini-2.5-pro", "--provider", "google", "--json"))
    assert priority["input_tokens", "priority"]["origin"] == "extra"
    assert priority["web_searches", "priority"]["origin"] == "list"  # a tier is of tokens
    assert priority["input_tokens", None]["origin"] == "list"


def test_a_region_s_surcharge_is_shown_with_its_page(command: Command) -> None:
    done = command("prices", "gpt-5.4", "--base-url", "https://eu.api.openai.com/v1", "--json")
    assert (done.object["factor"], prices_of(done)["input_tokens", None]["usd"]) == ("1.1", "2.75")
    assert "data-residency" in done.object["factor_source"]
    text = command("prices", "gpt-5.4", "--base-url", "https://eu.api.openai.com/v1").out
    assert "Tokens are multiplied by 1.1 at https://eu.api.openai.com/v1" in text


def test_a_name_that_means_another_model_says_so(command: Command) -> None:
    done = command("prices", "xai/grok-3-mini", "--json")
    assert done.object["listed_as"] == "grok-4.3"
    assert done.object["meaning_source"].startswith("https://docs.x.ai/")
    assert "The name means grok-4.3: https://docs.x.ai/" in command("prices", "xai/grok-3-mini").out


def test_the_price_file_s_prices_are_shown_with_their_place(command: Command, file: Path) -> None:
    done = command("prices", "gpt-5.1", "--json", BUDGETGUARD_PRICES=str(file))
    shown = prices_of(done)
    assert {unit: price["usd"] for (unit, _), price in shown.items()} == {
        "input_tokens": "1.5",
        "output_tokens": "2",
        "web_searches": "3",
    }
    assert {price["origin"] for price in shown.values()} == {"file"}
    assert shown["input_tokens", None]["source"] == "prices.toml, line 2 (entry 1)"
    there = "https://one.openai.azure.com/openai/v1"
    azure = command("prices", "gpt-4.1", "--base-url", there, "--prices", str(file), "--json")
    assert (azure.object["factor"], prices_of(azure)["input_tokens", None]["usd"]) == ("1.1", "2.2")
    assert azure.object["factor_source"] == "prices.toml, line 9 (entry 2)"


def test_without_a_model_the_file_and_the_list_s_age_are_shown(command: Command, file: Path) -> None:
    done = command("prices", "--prices", str(file), "--json")
    assert done.object["file"] == str(file)
    assert [(one["model"], one["base_url"], one["factor"]) for one in done.object["entries"]] == [
        (None, "https://one.openai.azure.com", "1.1"),
        ("gpt-5*", None, None),
    ]
    facts = done.object["list"]
    assert facts["kind"] == "installed"
    assert facts["models"] == sum(len(one.models) for one in get_snapshot().providers)
    assert facts["age_days"] >= 0
    text = command("prices", "--prices", str(file)).out
    assert "2 entries in" in text
    assert "input 1.50, output 2.00" in text
    assert f"{facts['models']:,} models" in text
    assert "No price file" in command("prices").out


def test_no_store_is_opened_or_needed(command: Command, folder: Path) -> None:
    assert command("prices", "gpt-4o").code == 0
    assert not folder.exists()
    assert run("prices", "gpt-4o", "--json", BUDGETGUARD_STORE="memory://").object["model"] == "gpt-4o"


def test_the_model_map_counts_here_too(command: Command) -> None:
    done = command("prices", "chat-prod", "--json", BUDGETGUARD_MODEL_MAP="chat-prod=gpt-4o-mini")
    assert done.object["listed_as"] == "gpt-4o-mini"


def test_bad_input_is_said_in_one_line(command: Command, file: Path) -> None:
    unknown = command("prices", "gpt-4o-mni")
    assert unknown.code == 1
    assert "The nearest known name is 'gpt-4o-mini'" in unknown.err
    assert "`budgetguard prices update` fetches the newest" in unknown.err
    assert command("prices", "--provider", "azure").code == 2
    file.write_text("[[price]]\nmodel = 'm'\ninput = 'x'\n")
    bad = command("prices", "--prices", str(file), "--json")
    assert bad.code == 2
    assert "line 3 (entry 1): input must be a price in USD" in bad.error["message"]
    assert command("prices", "--prices", str(file.with_name("none.toml"))).code == 2


# --- the newest list ---

TODAY = datetime.now(UTC).date()
NEWEST = (TODAY - timedelta(days=1)).isoformat()


def new_list(comment: str = f"Checked on {NEWEST}.", models: int = 1_500) -> list[dict[str, Any]]:
    """A list in the form of genai-prices' own, of invented models and gpt-4o at another price."""

    def model(name: str, usd: float) -> dict[str, Any]:
        return {"id": name, "match": {"equals": name}, "prices": {"input_mtok": usd, "output_mtok": usd}}

    first = {**model("gpt-4o", 77), "price_comments": comment}
    made = [model(f"invented-{number}", 0.1) for number in range(models)]
    named = [("openai", r"https://api\.openai\.com", [first, *made])]
    named += [
        (name, rf"https://api\.{name}\.com", [model(f"of-{name}", 1)]) for name in ("anthropic", "google")
    ]
    return [
        {"id": name, "name": name, "api_pattern": pattern, "models": found} for name, pattern, found in named
    ]


class ListServer:
    """Serves a price list, and counts who asks."""

    def __init__(self) -> None:
        self.content = json.dumps(new_list()).encode()
        self.status = 200
        self.announced: int | None = None
        self.requests: list[str] = []
        served = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                served.requests.append(self.path)
                self.send_response(served.status)
                self.send_header("Content-Length", str(served.announced or len(served.content)))
                self.end_headers()
                self.wfile.write(served.content)

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/data.json"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def newest() -> Iterator[ListServer]:
    server = ListServer()
    yield server
    server.close()


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = tmp_path / "user" / "list.json"
    monkeypatch.setenv("BUDGETGUARD_PRICE_LIST", str(path))
    forget_kept()
    yield path
    forget_kept()


def gpt_4o(kept: Path) -> Decimal:
    """What a million input tokens of gpt-4o cost in a process that starts now."""
    done = run("prices", "gpt-4o", "--json", BUDGETGUARD_PRICE_LIST=str(kept), BUDGETGUARD_STORE="memory://")
    return Decimal(prices_of(done)["input_tokens", None]["usd"])


@pytest.mark.full
def test_nothing_is_fetched_before_it_is_asked_for_and_every_later_process_uses_what_was(
    command: Command, newest: ListServer, kept: Path
) -> None:
    assert gpt_4o(kept) == Decimal("2.5")
    assert not newest.requests
    done = command("prices", "update", "--url", newest.url, "--json", BUDGETGUARD_PRICE_LIST=str(kept))
    assert newest.requests == ["/data.json"]
    assert done.code == 0, done.err
    assert done.object["kept"] == str(kept)
    assert (done.object["before"]["kind"], done.object["after"]["kind"]) == ("installed", "fetched")
    assert (done.object["after"]["dated"], done.object["after"]["age_days"]) == (NEWEST, 0)
    assert "openai/gpt-4o" in done.object["changed"]
    assert gpt_4o(kept) == 77
    guard = Guard(store="memory://", price_list=str(kept))
    assert guard.engine.prices.rates("invented-7").cost(Usage.of(input_tokens=10)) == 1_000
    with pytest.raises(UnknownModelError, match=r"as it was fetched on .* \(of today\)"):
        guard.engine.prices.rates("nobody")
    assert len(newest.requests) == 1
    assert [path.name for path in kept.parent.iterdir()] == ["list.json"]


def test_it_says_what_it_did(command: Command, newest: ListServer, kept: Path) -> None:
    done = command("prices", "update", "--url", newest.url, BUDGETGUARD_PRICE_LIST=str(kept))
    assert "1,503 models of 3 providers. 1,503 models new or changed: openai/gpt-4o" in done.out
    assert f"Kept in {kept}, for every process that starts from now on." in done.out
    again = command("prices", "update", "--url", newest.url, BUDGETGUARD_PRICE_LIST=str(kept))
    assert "No changes." in again.out


def test_the_running_process_goes_on_with_the_list_that_it_began_with(
    command: Command, newest: ListServer, kept: Path
) -> None:
    guard = Guard(store="memory://", price_list=str(kept))
    before = guard.engine.prices.rates("gpt-4o").cost(Usage.of(input_tokens=1_000))
    command("prices", "update", "--url", newest.url, BUDGETGUARD_PRICE_LIST=str(kept))
    assert guard.engine.prices.rates("gpt-4o").cost(Usage.of(input_tokens=1_000)) == before


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"<html>Not here", "is not genai-prices' list"),
        (b"", "is not genai-prices' list"),
        (b"{}", "is not genai-prices' list: it is no array of providers"),
        (b"[1, 2]", "is not genai-prices' list"),
        (json.dumps([{"id": "openai"}]).encode(), "is not genai-prices' list"),
        (json.dumps(new_list()[1:]).encode(), "lacks openai"),
        (json.dumps(new_list(models=3)).encode(), "has 6 models, fewer than half of those installed"),
        (json.dumps(new_list()).replace("77", '"cheap"').encode(), "is not genai-prices' list"),
    ],
)
def test_a_bad_list_changes_nothing(
    command: Command, newest: ListServer, kept: Path, content: bytes, says: str
) -> None:
    good = command("prices", "update", "--url", newest.url, BUDGETGUARD_PRICE_LIST=str(kept))
    assert good.code == 0, good.err
    before = kept.read_bytes()
    newest.content = content
    done = command("prices", "update", "--url", newest.url, BUDGETGUARD_PRICE_LIST=str(kept))
    assert done.code == 1
    assert says in done.err
    assert "Nothing was changed" in done.err
    assert kept.read_bytes() == before
    assert [path.name for path in kept.parent.iterdir()] == ["list.json"]


def test_a_server_that_fails_or_breaks_off_changes_nothing(
    command: Command, newest: ListServer, kept: Path
) -> None:
    newest.status = 500
    failed = command("prices", "update", "--url", newest.url, BUDGETGUARD_PRICE_LIST=str(kept))
    newest.status, newest.announced = 200, len(newest.content) + 7
    broken = command("prices", "update", "--url", newest.url, BUDGETGUARD_PRICE_LIST=str(kept))
    newest.close()
    gone = command("prices", "update", "--url", newest.url, "--json", BUDGETGUARD_PRICE_LIST=str(kept))
    assert (failed.code, broken.code, gone.code) == (1, 1, 1)
    assert "could not be fetched" in failed.err
    assert "broke off" in broken.err
    assert gone.error["error"] == "PriceListError"
    assert not kept.exists()


def test_an_older_list_is_not_kept(command: Command, newest: ListServer, kept: Path) -> None:
    newest.content = json.dumps(new_list("Checked on 2026-01-31.")).encode()
    done = command("prices", "update", "--url", newest.url, BUDGETGUARD_PRICE_LIST=str(kept))
    assert done.code == 0
    assert "Nothing was changed: the list there is not newer than the list of genai-prices" in done.out
    assert not kept.exists()


def test_a_kept_list_gives_way_to_a_newer_package(
    command: Command, newest: ListServer, kept: Path, caplog: pytest.LogCaptureFixture
) -> None:
    command("prices", "update", "--url", newest.url, BUDGETGUARD_PRICE_LIST=str(kept))
    told = json.loads(kept.read_text())
    installed = dated(get_snapshot().providers)
    assert installed is not None
    of_one_day = {**told, "dated": installed.isoformat()}
    for change, counts in (
        ({**told, "version": "0.0.1"}, True),
        ({**told, "dated": (installed - timedelta(days=1)).isoformat()}, False),
        (of_one_day, True),
        ({**of_one_day, "version": "0.0.1"}, False),
        ({**of_one_day, "dated": None}, False),
    ):
        kept.write_text(json.dumps(change))
        forget_kept()
        book = PriceBook(price_list=str(kept))
        assert (book.list.facts().kind == "fetched") is counts, (change["version"], change["dated"])
    assert not caplog.messages


@pytest.mark.parametrize("content", ["", "{}", '{"format": 2}', "[", '{"format": 1, "fetched_at": "soon"}'])
def test_a_damaged_kept_list_is_passed_over_and_said(
    kept: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    kept.parent.mkdir()
    kept.write_text(content)
    for _ in range(2):
        book = PriceBook(price_list=str(kept))
        assert book.rates("gpt-4o").cost(Usage.of(input_tokens=1_000_000)) == 2_500_000_000
    (warned,) = caplog.messages
    assert str(kept) in warned
    assert "budgetguard prices update" in warned


def test_a_list_that_a_program_has_set_itself_comes_before_a_kept_one(
    command: Command, newest: ListServer, kept: Path
) -> None:
    from genai_prices.data_snapshot import DataSnapshot, set_custom_snapshot

    command("prices", "update", "--url", newest.url, BUDGETGUARD_PRICE_LIST=str(kept))
    forget_kept()
    book = PriceBook(price_list=str(kept))
    set_custom_snapshot(DataSnapshot(list(get_snapshot().providers), from_auto_update=False))
    try:
        assert book.rates("gpt-4o").cost(Usage.of(input_tokens=1_000_000)) == 2_500_000_000
        assert book.list.facts().kind == "program"
    finally:
        set_custom_snapshot(None)
    assert book.rates("gpt-4o").cost(Usage.of(input_tokens=1_000_000)) == 77_000_000_000


def test_where_to_keep_it_may_be_named_or_none(command: Command, newest: ListServer, tmp_path: Path) -> None:
    none = command("prices", "update", "--url", newest.url, BUDGETGUARD_PRICE_LIST="none")
    assert none.code == 2
    assert "name a file" in none.err
    (tmp_path / "a-file").write_text("")
    below = command(
        "prices", "update", "--url", newest.url, BUDGETGUARD_PRICE_LIST=str(tmp_path / "a-file" / "x")
    )
    assert below.code == 1
    assert "cannot be written" in below.err
    odd = command("prices", "update", "--url", "file:///etc/passwd")
    assert odd.code == 2
    assert "http or https" in odd.err
