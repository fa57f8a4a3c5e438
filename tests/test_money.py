"""Money: exact in, exact out, and no nonsense accepted."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budgetguard.core.money import MAX_NANOS, MAX_USD, ceil_nanos, format_usd, parse_usd, to_nanos, to_usd
from budgetguard.errors import ConfigurationError

nanos = st.integers(0, MAX_NANOS)


@pytest.mark.parametrize(
    ("usd", "expected"),
    [
        (0, 0),
        (10, 10_000_000_000),
        (0.1, 100_000_000),
        (0.1 + 0.2, 300_000_000),
        (1e-9, 1),
        (Decimal("0.0000000005"), 0),
        (Decimal("0.0000000015"), 2),
        (Decimal("0.0000000005000001"), 1),
        (MAX_USD, MAX_NANOS),
        (9_007_199, 9_007_199_000_000_000),
    ],
)
def test_usd_become_nanos(usd: int | float | Decimal, expected: int) -> None:
    assert to_nanos(usd) == expected


@pytest.mark.parametrize(
    "bad",
    ["10", None, True, False, b"1", 1j, float("nan"), float("inf"), -float("inf"), Decimal("NaN"),
     Decimal("sNaN"), -1, -0.01, Decimal("-1e-30"), 9_007_200, 1e300, MAX_USD + Decimal("1e-9"), 10**400],
)  # fmt: skip
def test_what_is_no_amount_is_refused_by_its_name_and_value(bad: object) -> None:
    with pytest.raises(ConfigurationError, match="total_budget must") as caught:
        to_nanos(bad, name="total_budget")  # type: ignore[arg-type]  # callers pass anything
    # A Decimal as people write it, all else as Python does.
    assert (str(bad) if isinstance(bad, Decimal) else repr(bad)) in str(caught.value)


@settings(derandomize=True)
@given(nanos)
def test_nanos_to_usd_and_back_is_the_same(amount: int) -> None:
    assert to_nanos(to_usd(amount)) == amount
    assert parse_usd(format_usd(amount).replace(",", "")) == to_usd(amount)


@settings(derandomize=True)
@given(st.floats(0, 1_000_000))
def test_a_float_is_taken_for_what_it_prints(usd: float) -> None:
    assert to_nanos(usd) == to_nanos(Decimal(repr(usd)))


@settings(derandomize=True)
@given(st.decimals(0, 1_000_000, places=20))
def test_a_cost_is_rounded_up_and_by_less_than_a_nano(usd: Decimal) -> None:
    assert 0 <= ceil_nanos(usd) - usd * 10**9 < 1


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "$0.00"),
        (10_000_000_000, "$10.00"),
        (7_500_000, "$0.0075"),
        (1, "$0.000000001"),
        (-1_500, "-$0.0000015"),
        (1_234_567_890_000_000, "$1,234,567.89"),
        (MAX_NANOS, "$9,007,199.254740991"),
    ],
)
def test_money_is_written_with_all_its_digits(amount: int, text: str) -> None:
    assert format_usd(amount) == text


@pytest.mark.parametrize(("text", "usd"), [("10", "10"), (" $0.5 ", "0.5"), ("1e-3", "0.001")])
def test_settings_are_read_as_decimals(text: str, usd: str) -> None:
    assert parse_usd(text) == Decimal(usd)


@pytest.mark.parametrize("text", ["", "ten", "1,5", "$", "0x10"])
def test_a_setting_that_is_no_number_is_refused_by_its_name(text: str) -> None:
    with pytest.raises(ConfigurationError, match="max_budget must be a number of USD"):
        parse_usd(text, name="max_budget")
