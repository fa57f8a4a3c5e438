"""What random histories are made of."""

from __future__ import annotations

from hypothesis import strategies as st

from budgetguard.core.accounts import Budget
from budgetguard.core.holds import Charge
from budgetguard.core.money import MAX_NANOS
from budgetguard.testing.clock import FakeClock

REQUESTS = "labels:@unit=requests&user=1"
CONCURRENT = "labels:@unit=concurrent&user=1"
TOKENS = "labels:@unit=tokens&@rolling=hourly&user=1"
ROLLING = "labels:@rolling=daily&user=1"
ACCOUNTS = ["user:1", "user:2", "project:p", "run:r", REQUESTS, CONCURRENT, TOKENS, ROLLING]
SECOND = 1_000

limits = st.one_of(st.none(), st.integers(0, 40))
durations = st.sampled_from([None, "hourly", "daily"])
rollovers = st.sampled_from([0, 0, 7, 100])
rules = st.sampled_from(["", "", "", "", "", "", '{"a":1}', '{"b":"\u00fc"}'])
whens = st.sampled_from([None, None, FakeClock()() - 5_000_000, FakeClock()() + 7_200_001])
plain_budgets = st.builds(Budget, limits, durations, starts_at=whens, rollover=rollovers, rules=rules)
rolling_budgets = st.builds(
    Budget, limits, st.sampled_from(["hourly", "daily"]), rolling=st.just(True), rules=rules
)
budgets = st.one_of(plain_budgets, plain_budgets, rolling_budgets)
charges = st.builds(
    Charge,
    st.sampled_from(ACCOUNTS),
    required=st.booleans(),
    budget=st.one_of(st.none(), st.none(), st.builds(Budget, limits, durations), rolling_budgets),
    pinned=st.booleans(),
    ephemeral=st.booleans(),
    shadow=st.sampled_from([False, False, False, True]),
)
# By which documents a hold is judged, as a rule by those that are in force.
judgements = st.sampled_from([*["present"] * 9, "none", "former"])
units = st.dictionaries(
    st.sampled_from(["requests", "tokens", "concurrent"]), st.tuples(st.integers(0, 9), st.integers(0, 9))
)
entries = st.one_of(st.none(), st.none(), st.integers(0, 9))
costs = st.dictionaries(st.sampled_from(["requests", "tokens"]), st.integers(0, 12))
# Now and then as much as there may be: a history has too few of them for a sum to reach its bound. Not often,
# since the limits here refuse it, and then there is nothing to settle. (`one_of` would take either half
# of the time: it leaves out what is named twice.)
amounts = st.sampled_from([*range(16), MAX_NANOS, 2**52 + 1])
