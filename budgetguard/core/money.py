"""Money as integer Nanos: exact, ordered, and safe in every store.

One Nano is 1e-9 USD, so a token at $0.15 per million costs 150 Nanos. Amounts stop at
`MAX_NANOS` because Redis Lua, one of the stores, computes in IEEE doubles, and sums at `MAX_SUM`.
"""

from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from typing import TypeAlias

from budgetguard.errors import ConfigurationError

Nanos: TypeAlias = int

NANOS_PER_USD = 1_000_000_000
MAX_NANOS: Nanos = 2**53 - 1
"""The largest amount, be it a limit, a hold or a cost."""
MAX_SUM: Nanos = 2**60
"""The largest sum of amounts. No store has an integer that a few such sums are too large for."""
MAX_USD = Decimal(MAX_NANOS) / NANOS_PER_USD

# Wide enough that no product of a price and a count is rounded before `ceil_nanos` rounds it.
_EXACT = Context(prec=60)


def to_nanos(usd: int | float | Decimal, *, name: str = "amount") -> Nanos:
    """Convert USD to Nanos, refusing what is not an amount of money.

    A float is read by its shortest decimal form, so `0.1` is exactly 100 000 000 Nanos. Digits
    beyond the ninth are rounded half to even.

    Args:
        usd: USD, from 0 to 9 007 199.254740991.
        name: what the value is, for the error's text.

    Raises:
        ConfigurationError: text, bool, NaN, infinite, negative or too large.
    """
    if isinstance(usd, bool) or not isinstance(usd, int | float | Decimal):
        raise ConfigurationError(
            f"{name} must be a number of USD such as 10 or 0.5, not {usd!r} ({type(usd).__name__})"
        )
    value = Decimal(repr(usd)) if isinstance(usd, float) else Decimal(usd)
    if not value.is_finite():
        raise ConfigurationError(f"{name} must be a finite number of USD, not {usd}")
    if value < 0:
        raise ConfigurationError(f"{name} must not be negative, and {usd} is; use 0 to allow nothing")
    if value > MAX_USD:
        raise ConfigurationError(f"{name} must be at most {MAX_USD} USD, and {usd} is more")
    nanos = _EXACT.multiply(value, Decimal(NANOS_PER_USD)).quantize(
        Decimal(1), rounding=ROUND_HALF_EVEN, context=_EXACT
    )
    return int(nanos)


def parse_usd(text: str, *, name: str = "amount") -> Decimal:
    """Read USD from a setting or a command line, where every value is text.

    Raises:
        ConfigurationError: not a decimal number.
    """
    try:
        return Decimal(text.strip().removeprefix("$"))
    except InvalidOperation:
        raise ConfigurationError(f"{name} must be a number of USD such as 10 or 0.5, not {text!r}") from None


def ceil_nanos(usd: Decimal) -> Nanos:
    """Convert a computed cost in USD to Nanos, rounded up so that no cost is ever booked short."""
    scaled = _EXACT.multiply(usd, Decimal(NANOS_PER_USD))
    return int(scaled.to_integral_value(rounding=ROUND_CEILING))


def to_usd(nanos: Nanos) -> Decimal:
    """Convert Nanos to USD as an exact Decimal: at least cents, and as many digits more as needed.

    >>> to_usd(10_000_000_000), to_usd(7_500_000), to_usd(0)
    (Decimal('10.00'), Decimal('0.0075'), Decimal('0.00'))
    """
    return Decimal(_digits(nanos))


def format_usd(nanos: Nanos) -> str:
    """Write Nanos for people: at least cents, and as many digits more as the amount has.

    >>> format_usd(10_000_000_000), format_usd(-1_500), format_usd(7_500_000)
    ('$10.00', '-$0.0000015', '$0.0075')
    """
    sign = "-" if nanos < 0 else ""
    whole, _, fraction = _digits(abs(nanos)).partition(".")
    return f"{sign}${int(whole):,}.{fraction}"


def _digits(nanos: Nanos) -> str:
    whole, fraction = divmod(abs(nanos), NANOS_PER_USD)
    return f"{'-' if nanos < 0 else ''}{whole}.{f'{fraction:09d}'.rstrip('0').ljust(2, '0')}"
