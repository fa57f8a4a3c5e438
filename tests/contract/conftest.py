"""Which tests of the contract wait for a release: those of many rows, on stores that are slow with them."""

from __future__ import annotations

from typing import Final

import pytest

_MANY_ROWS: Final = frozenset(
    {
        "test_a_copy_books_nothing_again_of_which_the_first_has_swept_the_record",
        "test_an_export_goes_over_more_rows_than_a_page",
        "test_a_clock_that_jumps_ahead_and_back_has_no_call_booked_twice",
        "test_answers_are_forgotten_with_their_holds",
        "test_holds_without_an_account_left_are_swept_too_and_holds_that_ended_lately_are_kept",
        "test_more_accounts_than_a_page_are_listed_once_each",
        "test_of_models_too_many_nothing_is_learned",
        "test_old_records_and_idle_runs_are_swept_and_open_holds_and_users_never",
        "test_what_retention_has_removed_is_not_taken_for_a_difference",
        "test_what_was_exported_and_restored_is_the_same",
    }
)
_SLOW: Final = ("TestRedis::", "TestPostgres::", "TestHosted::")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if any(name in item.nodeid for name in _SLOW) and getattr(item, "originalname", None) in _MANY_ROWS:
            item.add_marker(pytest.mark.full)
