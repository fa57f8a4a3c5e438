"""Words for people: numbers of things, and names that are safe to print."""

from __future__ import annotations

from typing import Final

from budgetguard.core.accounts import USD, Unit
from budgetguard.core.money import Nanos, format_usd

_NOUNS: Final = {
    "tokens": "token",
    "input_tokens": "input token",
    "output_tokens": "output token",
    "requests": "request",
    "concurrent": "call under way",
}


def count(number: int, noun: str) -> str:
    """Write a number of things."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def printable(text: str) -> str:
    """Return text with what could steer a terminal (C1 controls, direction marks) made visible."""
    return "".join(ch if ch.isprintable() else f"\\u{ord(ch):04x}" for ch in text)


def format_amount(amount: Nanos, unit: Unit) -> str:
    """Write an amount of a unit for people: `$10.00`, `60 requests`, `1 call under way`."""
    if unit == USD:
        return format_usd(amount)
    if unit == "concurrent":
        return f"{amount:,} call{'' if amount == 1 else 's'} under way"
    return count(amount, _NOUNS[unit])
