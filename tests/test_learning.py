"""What is learned of the length of a model's answers."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budgetguard.core.usage import ENOUGH, Observations, learned_cap, observe


def after(*answers: int) -> Observations:
    counts: Observations = {}
    for tokens in answers:
        counts = observe(counts, tokens)
    return counts


def test_nothing_is_claimed_before_enough_answers() -> None:
    assert learned_cap({}) is None
    assert learned_cap(after(*[100] * (ENOUGH - 1))) is None
    assert learned_cap(after(*[100] * ENOUGH)) is not None


@settings(derandomize=True)
@given(st.integers(0, 10**7))
def test_a_cap_is_never_below_what_was_seen_and_at_most_a_fifth_above(tokens: int) -> None:
    cap = learned_cap(after(*[tokens] * ENOUGH))
    assert cap is not None
    assert tokens <= cap <= max(1, tokens * 1.19 + 1)


@pytest.mark.parametrize("power", range(24))
def test_powers_of_two_are_their_own_caps(power: int) -> None:
    assert learned_cap(after(*[2**power] * ENOUGH)) == 2**power


def test_ninety_nine_in_a_hundred_answers_stay_under_the_cap_and_an_outlier_does_not_raise_it() -> None:
    assert learned_cap(after(*[64] * 99, 100_000)) == 64
    cap = learned_cap(after(*[64] * 98, 100_000, 100_000))
    assert cap is not None
    assert cap >= 100_000


def test_of_random_answers_hardly_one_in_a_hundred_is_longer() -> None:
    dice = random.Random(7)
    answers = [round(dice.lognormvariate(5.5, 0.8)) for _ in range(20_000)]
    cap = learned_cap(after(*answers[:3_000]))
    assert cap is not None
    assert sum(tokens > cap for tokens in answers[3_000:]) / 17_000 < 0.015


def test_old_answers_fade() -> None:
    counts = after(*[8_192] * 3_000)
    for _ in range(30_000):
        counts = observe(counts, 128)
    assert learned_cap(counts) == 128


def test_what_is_kept_stays_small_and_is_whole_numbers() -> None:
    dice = random.Random(7)
    counts = after(*[dice.randrange(1, 200_000) for _ in range(10_000)])
    assert len(counts) < 80
    assert sum(counts.values()) < 4_000
    assert all(isinstance(n, int) and n > 0 for n in counts.values())


def test_counting_changes_nothing_in_place() -> None:
    before = after(5)
    copy = dict(before)
    observe(before, 5)
    assert before == copy
