"""Which tests of the contract wait for a release: those of many rows, on the store that is slow with them."""

from __future__ import annotations

from typing import Final

import pytest

_MANY_ROWS: Final = frozenset(
    {
        "test_a_copy_books_nothing_again_of_which_the_first_has_swept_the_record",
        "test_an_export_goes_over_more_rows_than_a_page",
        "test_what_retention_has_removed_is_not_taken_for_a_difference",
    }
)
_SLOW: Final = "TestRedis::"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _SLOW in item.nodeid and getattr(item, "originalname", None) in _MANY_ROWS:
            item.add_marker(pytest.mark.full)
