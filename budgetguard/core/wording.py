"""Words for people: numbers of things, and names that are safe to print."""

from __future__ import annotations


def count(number: int, noun: str) -> str:
    """Write a number of things."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def printable(text: str) -> str:
    """Return text with what could steer a terminal (C1 controls, direction marks) made visible."""
    return "".join(ch if ch.isprintable() else f"\\u{ord(ch):04x}" for ch in text)
