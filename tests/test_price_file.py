"""A price file: whose price it sets, which entry counts, what a bad one says, and that a change is seen."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from budgetguard import ConfigurationError, Guard, UnknownModelError
from budgetguard.core.usage import Usage
from budgetguard.pricing import pricefile
from budgetguard.pricing.book import PriceBook, Rates

AT = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)
M = 1_000_000


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "prices.toml"


@pytest.fixture
def book(file: Path) -> Callable[[str], PriceBook]:
    def made(text: str) -> PriceBook:
        file.write_text(text)
        return PriceBook(str(file))

    return made


def usd(rates: Rates, **units: int) -> Decimal:
    return Decimal(rates.cost(Usage.of(**units))).scaleb(-9)


def per_million(rates: Rates) -> tuple[Decimal, Decimal]:
    return usd(rates, input_tokens=M), usd(rates, output_tokens=M)


# --- what it sets ---


def test_a_model_that_no_list_has_gets_its_price(book: Callable[[str], PriceBook]) -> None:
    prices = book("""
        [[price]]
        model = "My-Model"
        input = 0.1
        output = 2
        cached_input = 0.01
        web_searches_kcount = 5
    """)
    rates = prices.rates("my-model")
    assert per_million(rates) == (Decimal("0.1"), 2)
    assert usd(rates, input_tokens=M, cache_read_tokens=M) == Decimal("0.01")
    assert usd(rates, web_searches=1_000) == 5


def test_a_price_is_exact_to_its_last_digit(book: Callable[[str], PriceBook]) -> None:
    rates = book('[[price]]\nmodel = "m"\ninput = 0.1\noutput = 0.000000001\n').rates("m")
    assert rates.cost(Usage.of(input_tokens=3 * M)) == 300_000_000
    assert rates.cost(Usage.of(output_tokens=M)) == 1


@pytest.mark.parametrize(
    ("whose", "matches", "not_matching"),
    [
        ('model = "gpt-5*"', {"model": "gpt-5.4-2026-03-05"}, {"model": "gpt-4o"}),
        ('model = "gpt-[45]o"', {"model": "gpt-4o"}, {"model": "gpt-4.1"}),
        ('model = "gpt-4o"', {"model": "GPT-4o"}, {"model": "gpt-4o-mini"}),
        ('provider = "groq"', {"model": "groq/llama-3.1-8b-instant"}, {"model": "gpt-4o"}),
        ('provider = "vertex_ai"', {"model": "google/gemini-2.5-pro"}, {"model": "gpt-4o"}),
        (
            'base_url = "https://llm.corp.example/v1"',
            {"model": "gpt-4o", "base_url": "https://llm.corp.example:443/v1/"},
            {"model": "gpt-4o", "base_url": "https://llm.corp.example/v2"},
        ),
        (
            'base_url = "https://llm.corp.example"\nmodel = "gpt*"',
            {"model": "gpt-4o", "base_url": "https://llm.corp.example/any/where"},
            {"model": "gpt-4o"},
        ),
    ],
)
def test_an_entry_is_for_a_model_a_glob_a_provider_or_an_address(
    book: Callable[[str], PriceBook], whose: str, matches: dict[str, Any], not_matching: dict[str, Any]
) -> None:
    prices = book(f"[[price]]\n{whose}\ninput = 77\noutput = 78\n")
    assert per_million(prices.rates(**matches)) == (77, 78)
    assert usd(prices.rates(**not_matching), input_tokens=M) < 77


def test_a_file_s_units_alone_are_added_to_the_list(book: Callable[[str], PriceBook]) -> None:
    rates = book('[[price]]\nmodel = "gpt-4.1"\ninput_audio_mtok = 40\n').rates("gpt-4.1", at=AT)
    assert usd(rates, input_tokens=M) == 2
    assert usd(rates, input_tokens=M, input_audio_tokens=M) == 40


def test_a_model_may_be_free(book: Callable[[str], PriceBook]) -> None:
    prices = book('[[price]]\nbase_url = "http://10.0.0.7:8000/v1"\ninput = 0\noutput = 0\n')
    assert prices.rates("llama", base_url="http://10.0.0.7:8000/v1").is_free
    with pytest.raises(UnknownModelError):
        prices.rates("llama")


def test_a_price_begins_on_its_day(book: Callable[[str], PriceBook]) -> None:
    prices = book("""
        [[price]]
        model = "m"
        input = 1
        output = 1
        [[price]]
        model = "m"
        input = 2
        output = 2
        valid_from = 2026-12-01
        [[price]]
        model = "m"
        input = 3
        output = 3
        valid_from = 2026-12-02T01:00:00+01:00
    """)
    days = [datetime(2026, 11, 30, 23, 59), datetime(2026, 12, 1), datetime(2026, 12, 2)]
    assert [usd(prices.rates("m", at=day), input_tokens=M) for day in days] == [1, 2, 3]


# --- which counts ---


def test_what_is_more_specific_counts_and_more_general_entries_add_to_it(
    book: Callable[[str], PriceBook],
) -> None:
    prices = book("""
        [[price]]
        model = "*"
        input = 1
        output = 1
        web_searches_kcount = 1
        [[price]]
        model = "gpt-*"
        input = 2
        output = 2
        [[price]]
        model = "gpt-4*"
        web_searches_kcount = 4
        [[price]]
        model = "gpt-4o"
        input = 3
        output = 3
        [[price]]
        provider = "azure"
        input = 5
        output = 5
        [[price]]
        base_url = "https://one.openai.azure.com"
        input = 6
        output = 6
        [[price]]
        base_url = "https://one.openai.azure.com/openai/v1"
        model = "o3"
        input = 7
        output = 7
    """)
    one = "https://one.openai.azure.com"
    asked: list[tuple[str, str | None, int]] = [
        ("nobody", None, 1),
        ("gpt-9", None, 2),
        ("gpt-4o", None, 3),
        ("azure/gpt-4o", None, 5),
        ("gpt-4o", one, 6),
        ("o3", one + "/openai/v1/", 7),
        ("o1", one + "/openai/v1/", 6),
    ]
    for model, base_url, price in asked:
        assert usd(prices.rates(model, base_url=base_url), input_tokens=M) == price, model
    # A glob adds what those before it do not say, and what replaces the price ends it.
    assert usd(prices.rates("gpt-4.1"), web_searches=1_000) == 4
    with pytest.raises(UnknownModelError, match="web_searches"):
        prices.rates("gpt-4o").cost(Usage.of(web_searches=1))


def test_of_two_equally_specific_globs_the_later_counts(book: Callable[[str], PriceBook]) -> None:
    prices = book('[[price]]\nmodel="ab*"\ninput=1\noutput=1\n[[price]]\nmodel="*bc"\ninput=2\noutput=2\n')
    assert usd(prices.rates("abc"), input_tokens=M) == 2


def test_a_registered_price_comes_before_the_file_and_the_file_before_the_lists(
    book: Callable[[str], PriceBook],
) -> None:
    prices = book('[[price]]\nmodel = "gpt-4o"\ninput = 3\noutput = 3\nimages = 0.5\n')
    assert per_million(prices.rates("gpt-4o")) == (3, 3)
    prices.register("gpt-4o", web_searches_kcount=9)
    assert usd(prices.rates("gpt-4o"), input_tokens=M, web_searches=1_000, images=2) == 13
    prices.register("gpt-4o", input=4, output=4)
    assert per_million(prices.rates("gpt-4o")) == (4, 4)
    with pytest.raises(UnknownModelError):
        prices.rates("gpt-4o").cost(Usage.of(images=1))


# --- factors ---


def test_a_factor_multiplies_the_listed_prices_of_tokens_in_every_tier_and_no_fee(
    book: Callable[[str], PriceBook],
) -> None:
    here = "https://one.openai.azure.com"
    prices = book(f'[[price]]\nbase_url = "{here}"\nfactor = 1.1\n')
    plain, raised = (
        prices.rates("gpt-5", base_url=url, at=AT) for url in ("https://b.openai.azure.com", here)
    )
    for tier in (None, "priority", "flex", "batch"):
        usage = Usage.of(input_tokens=M, output_tokens=M)
        assert raised.with_tier(tier).cost(usage) * 10 == plain.with_tier(tier).cost(usage) * 11
    register = {"web_searches": 1_000}
    assert usd(raised, **register) == usd(plain, **register) > 0


def test_a_factor_holds_for_more_general_prices_and_not_for_more_specific_ones(
    book: Callable[[str], PriceBook],
) -> None:
    here = "https://llm.corp.example/v1"
    prices = book(f"""
        [[price]]
        model = "mine"
        input = 10
        output = 10
        tool_uses_browse = 1
        [[price]]
        base_url = "{here}"
        factor = 1.5
        [[price]]
        base_url = "{here}"
        model = "theirs"
        input = 10
        output = 10
        [[price]]
        base_url = "{here}"
        model = "other"
        factor = 1
    """)
    assert usd(prices.rates("mine", base_url=here), input_tokens=M, tool_uses_browse=1) == 16
    assert usd(prices.rates("theirs", base_url=here), input_tokens=M) == 10
    assert usd(prices.rates("gpt-4o", base_url=here, at=AT), input_tokens=M) == Decimal("3.75")
    prices.register("mine", input=1, output=1)
    assert usd(prices.rates("mine", base_url=here), input_tokens=M) == 1


def test_a_factor_stands_in_place_of_the_one_that_is_known_of_an_address(
    book: Callable[[str], PriceBook],
) -> None:
    here = "https://eu.api.openai.com/v1"
    # Below the step at which a long context costs more.
    few = {"input_tokens": M // 10}
    assert usd(PriceBook().rates("gpt-5.4", base_url=here, at=AT), **few) == Decimal("0.275")
    prices = book(f'[[price]]\nbase_url = "{here}"\nfactor = 1.2\n')
    assert usd(prices.rates("gpt-5.4", base_url=here, at=AT), **few) == Decimal("0.3")


def test_an_answer_of_another_model_has_the_factor_too(book: Callable[[str], PriceBook]) -> None:
    here = "https://eu.api.openai.com/v1"
    prices = book(
        f'[[price]]\nbase_url = "{here}"\nfactor = 2\n[[price]]\nmodel = "gpt-4.1"\ninput = 9\noutput = 9'
    )
    rates = prices.rates("gpt-4o", base_url=here, at=AT)
    assert usd(rates.served_as("gpt-4o-mini"), input_tokens=M) == Decimal("0.3")
    assert usd(rates.served_as("gpt-4.1-2025-04-14"), input_tokens=M) == 18


# --- what is bad ---

BAD = [
    ("[[price]\n", "is not TOML.*line 1"),
    ("[price]\nmodel = 'm'\n", r"write \[\[price\]\] with two brackets"),
    ("[[prices]]\n", r"'prices' at the top, where only \[\[price\]\] may stand"),
    ("model = 'm'\n", "'model' at the top"),
    ("\n[[price]]\nmodel = 'm'\n", r"line 2 \(entry 1\): it has no price: give it input and output"),
    ("[[price]]\ninput = 1\n", r"line 1 \(entry 1\): it does not say whose price it is"),
    ("[[price]]\nmodel = ''\ninput = 1\n", r"line 2 \(entry 1\): model must be text, not ''"),
    ("[[price]]\nmodel = 4\ninput = 1\n", "model must be text, not 4"),
    (
        "[[price]]\nmodel = 'a'\ninput = 1\n\n[[price]]\nmodel = 'b'\ninput = 'cheap'\n",
        r"prices\.toml, line 7 \(entry 2\): input must be a price in USD such as 2\.5, not 'cheap'",
    ),
    ("[[price]]\nmodel = 'm'\noutput = -1\n", "output must be a price in USD from 0 to .*, not -1"),
    ("[[price]]\nmodel = 'm'\noutput = 0.0_1\ninput = inf\n", "line 4.*input must be .*not Infinity"),
    ("[[price]]\nmodel = 'm'\ninput = true\n", "input must be a price in USD such as 2.5, not True"),
    ("[[price]]\nmodel = 'm'\nimput = 1\n", "line 3.*imput is no field of an entry; did you mean input"),
    ("[[price]]\nmodle = 'm'\ninput = 1\n", "it does not say whose"),
    ("[[price]]\nmodel = 'm'\nbase_urls = 'x'\ninput = 1\n", "did you mean base_url"),
    ("[[price]]\nmodel = 'm'\ninput_audio_mtoks = 1\n", "did you mean input_audio_mtok"),
    ("[[price]]\nmodel = 'm'\nvalid_from = '2027-01-01'\ninput = 1\n", "without quotes, not '2027-01-01'"),
    ("[[price]]\nmodel = 'm'\nfactor = '1.1'\n", "factor must be a number such as 1.1, not '1.1'"),
    (
        "[[price]]\nmodel = 'm'\nfactor = 0\n",
        "factor must be above 0 and at most 1000, not 0; for",
    ),
    ("[[price]]\nmodel = 'm'\nfactor = 2\ninput = 1\n", "factor and input in one entry.*Write two entries"),
    ("[[price]]\nprovider = 'azur'\nfactor = 2\n", "provider 'azur' is not known; did you mean 'azure'"),
    (
        "[[price]]\nbase_url = 'corp.example'\nfactor = 2\n",
        "base_url must be a plain .*not 'corp.example'",
    ),
    ("[[price]]\nbase_url = 'https://me:secret@corp.example'\nfactor = 2\n", r"not 'https://\.\.\.@corp"),
    (
        "[[price]]\nmodel = 'm'\ninput = 1\n[[price]]\nmodel = 'M'\ninput = 2\n",
        r"line 4 \(entry 2\): it is for the same as line 1 \(entry 1\)",
    ),
    ("price = [{model = 'm', input = 'x'}]\n", r"prices\.toml, entry 1: input must be"),
    ("price = 1" + "0" * 5_000, "is not TOML"),
]


@pytest.mark.parametrize(("text", "says"), BAD)
def test_a_bad_file_is_refused_with_its_name_place_value_and_remedy(file: Path, text: str, says: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=says) as caught:
        PriceBook(str(file))
    assert str(file) in caught.value.message
    assert "secret" not in caught.value.message


def test_a_file_that_is_not_there_or_no_file_or_no_text_is_refused(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=f"the price file {file} cannot be read: No such file"):
        PriceBook(str(file))
    with pytest.raises(ConfigurationError, match="is no file"):
        PriceBook(str(tmp_path))
    os.mkfifo(file)
    with pytest.raises(ConfigurationError, match="is no file"):
        PriceBook(str(file))
    file.unlink()
    file.write_bytes(b"# \xff\n")
    with pytest.raises(ConfigurationError, match=r"is not UTF-8.*save it as UTF-8"):
        PriceBook(str(file))


def test_an_empty_file_and_one_with_a_byte_order_mark_are_none_the_worse(file: Path) -> None:
    file.write_bytes(b"")
    PriceBook(str(file))
    file.write_bytes("\ufeff[[price]]\r\nmodel = 'm'\r\ninput = 1\r\noutput = 1\r\n".encode())
    assert usd(PriceBook(str(file)).rates("m"), input_tokens=M) == 1


def test_a_provider_of_the_program_s_own_may_have_prices(book: Callable[[str], PriceBook]) -> None:
    prices = book("[[price]]\nprovider = 'our-gateway'\ninput = 8\noutput = 8\n")
    assert usd(prices.rates("gpt-4o", provider="our-gateway"), input_tokens=M) == 8


def test_an_error_about_a_model_names_the_file(book: Callable[[str], PriceBook], file: Path) -> None:
    prices = book("")
    with pytest.raises(UnknownModelError, match=rf"or in {file}: \[\[price\]\] with model, input and output"):
        prices.rates("nobody")
    with pytest.raises(UnknownModelError, match=r"or in a price file \(BUDGETGUARD_PRICES\): \[\[price\]\]"):
        PriceBook().rates("nobody")


# --- as a setting ---


def test_a_bad_file_changes_no_setting(file: Path) -> None:
    file.write_text("[[price]]\nmodel = 'm'\ninput = 1\noutput = 1\n")
    guard = Guard(store="memory://", project="default", prices=file)
    sibling = guard.in_project("other")
    bad = file.with_name("bad.toml")
    bad.write_text("[[price]]\nmodel = 'm'\ninput = '1'\n")
    with pytest.raises(ConfigurationError, match=str(bad)):
        guard.configure(prices=str(bad), project="changed")
    assert (guard.project, guard.settings.prices) == ("default", str(file))
    assert usd(guard.engine.prices.rates("m"), input_tokens=M) == 1
    assert sibling.engine.prices is guard.engine.prices
    with pytest.raises(ConfigurationError, match=str(bad)):
        Guard(store="memory://", prices=str(bad))


def test_the_file_may_be_named_by_a_variable_and_taken_away(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("[[price]]\nmodel = 'm'\ninput = 1\noutput = 1\n")
    monkeypatch.setenv("BUDGETGUARD_PRICES", str(file))
    guard = Guard(store="memory://")
    assert usd(guard.engine.prices.rates("m"), input_tokens=M) == 1
    guard.configure(prices=None)
    with pytest.raises(UnknownModelError):
        guard.engine.prices.rates("m")


def test_a_relative_name_is_relative_to_where_the_program_was_when_it_said_so(
    file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file.write_text("[[price]]\nmodel = 'm'\ninput = 1\noutput = 1\n")
    monkeypatch.chdir(tmp_path)
    guard = Guard(store="memory://", prices="prices.toml")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    guard.configure(user="u")
    assert usd(guard.engine.prices.rates("m"), input_tokens=M) == 1


def test_a_guard_beside_another_may_have_a_file_of_its_own_and_shares_what_is_registered(file: Path) -> None:
    guard = Guard(store="memory://")
    file.write_text("[[price]]\nmodel = 'm'\ninput = 1\noutput = 1\n")
    other = guard.beside(prices=str(file))
    guard.register_price("late", input=5, output=5)
    assert usd(other.engine.prices.rates("late"), input_tokens=M) == 5
    assert usd(other.engine.prices.rates("m"), input_tokens=M) == 1
    with pytest.raises(UnknownModelError):
        guard.engine.prices.rates("m")


# --- a change ---


def write(file: Path, usd: int) -> None:
    """Replace the file as careful programs do."""
    new = file.with_suffix(".new")
    new.write_text(f"[[price]]\nmodel = 'm'\ninput = {usd}\noutput = {usd}\n")
    new.replace(file)


def test_a_change_counts_from_the_next_call_on_and_held_calls_keep_their_price(file: Path) -> None:
    write(file, 1)
    prices = PriceBook(str(file))
    held = prices.rates("m")
    for price in range(2, 10):
        write(file, price)
        assert usd(prices.rates("m"), input_tokens=M) == price
    # Written over in place, in the same tick and of the same size.
    for price in range(1, 10):
        file.write_text(f"[[price]]\nmodel = 'm'\ninput = {price}\noutput = {price}\n")
        assert usd(prices.rates("m"), input_tokens=M) == price
    assert usd(held, input_tokens=M) == 1


def test_a_change_within_the_file_system_s_tick_is_seen(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(file, 1)
    monkeypatch.setattr(pricefile, "time_ns", lambda: file.stat().st_mtime_ns)
    prices = PriceBook(str(file))
    assert usd(prices.rates("m"), input_tokens=M) == 1
    before = file.stat()
    with file.open("r+") as open_file:
        open_file.write("[[price]]\nmodel = 'm'\ninput = 7")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_mtime_ns == before.st_mtime_ns
    assert usd(prices.rates("m"), input_tokens=M) == 7


def test_an_unchanged_file_is_not_read_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(file, 1)
    os.utime(file, (1_700_000_000, 1_700_000_000))
    prices = PriceBook(str(file))
    monkeypatch.setattr(Path, "open", None)
    for minute in range(3):
        assert usd(prices.rates("m", at=datetime(2026, 11, 1, 12, minute)), input_tokens=M) == 1


def test_a_bad_or_vanished_file_keeps_the_last_good_prices_and_warns_once(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(file, 1)
    prices = PriceBook(str(file))
    file.write_text("[[price]]\nmodel = 'm'\n\ninput = 'free'\n")
    with caplog.at_level(logging.WARNING, "budgetguard"):
        for _ in range(3):
            assert usd(prices.rates("m"), input_tokens=M) == 1
        (warned,) = caplog.messages
        assert f"{file}, line 4 (entry 1): input must be a price in USD such as 2.5, not 'free'" in warned
        assert "stay in force until it is put right" in warned
        caplog.clear()
        file.unlink()
        for _ in range(3):
            assert usd(prices.rates("m"), input_tokens=M) == 1
        assert [f"{file} cannot be used any more" in one for one in caplog.messages] == [True]
        assert "No such file" in caplog.text
        caplog.clear()
        write(file, 2)
        assert usd(prices.rates("m"), input_tokens=M) == 2
        assert [f"{file} is in force again" in one for one in caplog.messages] == [True]


def test_a_file_that_comes_back_as_it_was_is_in_force_again(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(file, 1)
    prices = PriceBook(str(file))
    away = file.with_suffix(".away")
    for _ in range(2):
        caplog.clear()
        file.rename(away)
        assert usd(prices.rates("m"), input_tokens=M) == 1
        away.rename(file)
        assert usd(prices.rates("m"), input_tokens=M) == 1
        assert len(caplog.messages) == 2, caplog.messages


def test_threads_that_price_while_a_file_changes_see_one_of_its_prices(file: Path) -> None:
    write(file, 1)
    prices = PriceBook(str(file))
    seen: list[Decimal] = []
    failed: list[BaseException] = []
    stop = threading.Event()

    def look() -> None:
        try:
            while not stop.is_set():
                seen.append(usd(prices.rates("m"), input_tokens=M))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for price in range(2, 40):
        write(file, price)
    stop.set()
    for thread in threads:
        thread.join()
    assert not failed
    assert set(seen) <= set(map(Decimal, range(1, 40)))
    assert usd(prices.rates("m"), input_tokens=M) == 39


def test_a_call_under_way_is_settled_at_the_price_that_it_was_held_at(file: Path) -> None:
    write(file, 1)
    guard = Guard(store="memory://", prices=str(file))
    guard.set_budget(100, user="u")
    with guard.call(model="m", input_tokens=M, max_output_tokens=0, user="u") as call:
        write(file, 50)
        call.settle({"usage": {"prompt_tokens": M, "completion_tokens": 0, "total_tokens": M}})
    with guard.call(model="m", input_tokens=M, max_output_tokens=0, user="u") as call:
        call.settle({"usage": {"prompt_tokens": M, "completion_tokens": 0, "total_tokens": M}})
    assert [one.cost for one in guard.calls()] == [1, 50]
