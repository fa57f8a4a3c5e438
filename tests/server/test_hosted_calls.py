"""Patched clients whose budgets are at a service: ten calls' budget lets ten out, whoever asks at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.race import test_calls as race

from .services import Service


@pytest.mark.parametrize("crowd", race.CROWDS)
def test_of_thirty_two_calls_at_once_ten_go_out(open_service: Service, crowd: str, tmp_path: Path) -> None:
    url = f"{open_service.url}?timeout=60"
    race.test_of_thirty_two_calls_at_once_ten_go_out(url, crowd, race.EXACT, tmp_path)


@pytest.mark.full
def test_of_four_processes_with_eight_threads_ten_calls_go_out(open_service: Service, tmp_path: Path) -> None:
    race.processes_let_ten_out(f"{open_service.url}?timeout=60", race.EXACT, tmp_path)
