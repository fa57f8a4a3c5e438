"""A guard whose project may pay as well."""

from __future__ import annotations

import pytest

from budgetguard import Guard
from tests.payers.asking import limited_guard


@pytest.fixture
def guard() -> Guard:
    return limited_guard()
