"""Which of many like cases the quick tier takes; a release takes all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

import pytest

ONE_IN: Final[Mapping[str, int]] = {
    "adapters/test_odd_values.py::test_a_stream_is_read_whatever_stands_in_it": 4,
    "adapters/test_odd_values.py::test_an_answer_is_read_whatever_stands_in_it": 5,
    "adapters/test_retries.py::test_each_try_that_was_lost_costs_what_one_of_unknown_outcome_does": 3,
    "anthropic_client/test_clouds.py::test_each_way_is_booked_at_the_cloud_s_price_or_refused_unsent": 5,
    "anthropic_client/test_matrix.py::test_booked_as_billed": 3,
    "anthropic_client/test_matrix.py::test_refused_unsent": 3,
    "anthropic_client/test_matrix.py::test_unnoticed": 3,
    "bad_days/disk/test_damage.py::test_a_planted_hold_is_refused_and_never_unpickled": 5,
    "bad_days/disk/test_damage.py::test_a_planted_value_is_refused_and_never_unpickled": 5,
    "bad_days/test_interrupts.py::test_an_interrupt_at_any_place_in_a_call_leaves_no_hold": 4,
    "cli/test_budgets.py::test_bad_input_is_one_line_and_exit_code_2": 3,
    "faces/test_stacked.py::test_a_call_inside_is_charged_once": 7,
    "faces/test_stacked.py::test_a_call_inside_that_is_refused_charges_nothing": 7,
    "faces/test_stacked.py::test_a_manager_does_not_book_it_again": 7,
    "faces/test_stacked.py::test_each_of_several_calls_inside_is_charged_once": 7,
    "launch/test_auto.py::test_what_cannot_be_limited_does_not_start": 4,
    "launch/test_input.py::test_bad_input_is_one_clear_line": 6,
    "launch/test_passing_through.py::test_a_signal_reaches_the_program_once_and_it_ends_as_it_likes": 4,
    "launch/test_passing_through.py::test_the_status_is_the_program_s_whatever_becomes_of_our_output": 8,
    "launch/test_passing_through.py::test_the_status_is_the_programs": 5,
    "launch/test_python_start.py::test_a_python_that_would_not_join_is_refused_at_the_start": 7,
    "manager/test_budgets.py::test_a_bad_argument_is_named_and_changes_nothing": 3,
    "manager/test_litellm_import.py::test_a_file_with_one_fault_changes_nothing_and_the_fault_is_named": 5,
    "matrix/test_matrix.py::test_booked_as_billed": 5,
    "matrix/test_matrix.py::test_refused_unsent": 5,
    "matrix/test_matrix.py::test_unnoticed": 5,
    "matrix/test_matrix.py::test_booked_on_every_store": 3,
    "moving/test_freeze.py::test_a_verb_that_began_before_its_project_was_frozen_writes_nothing_after_it": 3,
    "moving/test_move.py::test_a_copy_has_every_row_whatever_the_two_stores_are": 5,
    "payers/test_threads.py::test_threads_and_pools_work_beside_wrappers_of_others": 5,
    "server/test_server_access.py::test_a_key_of_another_project_is_refused": 4,
    "server/test_server_access.py::test_a_revoked_key_is_refused": 4,
    "server/test_server_access.py::test_each_role_may_what_it_may_and_no_more": 4,
    "server/test_server_access.py::test_keys_and_paths_of_awkward_projects": 4,
    "server/test_server_access.py::test_nobody_is_let_in_without_a_key_that_is_known": 4,
    "server/test_server_access.py::test_not_even_the_operator_s_key_opens_where_the_keys_are": 4,
    "server/test_server_bad_input.py::test_a_body_that_is_no_good_is_refused": 4,
    "server/test_server_bad_input.py::test_a_query_that_is_no_good_is_refused": 5,
    "server/test_server_bad_input.py::test_ids_with_slashes_and_balloons_are_fine": 4,
    "server/test_server_bad_input.py::test_other_content_types_are_refused": 4,
    "server/test_server_bad_input.py::test_other_methods_are_refused_and_the_right_ones_named": 7,
    "server/test_server_limits.py::test_a_key_that_spends_ends_no_window_early": 4,
    "server/test_server_process.py::test_bad_options_are_refused_in_a_line": 3,
    "web/test_asgi.py::test_a_websocket_that_is_not_accepted_yet_is_answered": 2,
    "web/test_asgi.py::test_other_errors_stay_as_they_are_and_leave_nobody_behind": 2,
    "web/test_asgi.py::test_whatever_belongs_to_a_request_is_paid_by_its_user": 2,
}
"""Of the cases of a test, the quick tier takes the first and each that comes so many later.

Where a test has several parameters, the number shares no factor with how many values each has, so that every
value is taken. A case that a test has marked itself is not counted.
"""


def leave_for_a_release(items: Iterable[pytest.Item]) -> None:
    """Mark the cases that wait for a release."""
    seen: Counter[str] = Counter()
    for item in items:
        name = item.nodeid.partition("[")[0].removeprefix("tests/")
        if name not in ONE_IN or item.get_closest_marker("full"):
            continue
        if seen[name] % ONE_IN[name]:
            item.add_marker(pytest.mark.full)
        seen[name] += 1
