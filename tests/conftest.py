"""What all tests run under."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from budgetguard.engine.threads import surroundings
from tests.tiers import leave_for_a_release
from tests.watchdog import watch_over_this_process

# A busy machine is no failure.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_configure(config: pytest.Config) -> None:
    """Have what this run starts end with it: see `tests.watchdog`. Its workers are among that."""
    gc.disable()  # nearly all that is made until the tests are collected stays
    if not hasattr(config, "workerinput"):
        watch_over_this_process()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what waits for a release, before `-m` chooses."""
    leave_for_a_release(items)


def pytest_collection_finish() -> None:
    """Let the collector look at what tests make, not at all modules and thousands of tests each time."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def no_home() -> Iterator[None]:
    """Give tests, and processes that they start, a home of their own: it is where stores are by default."""
    with tempfile.TemporaryDirectory() as home, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", home)
        patch.setenv("USERPROFILE", home)
        yield


@pytest.fixture(scope="session", autouse=True)
def no_authorities() -> Iterator[None]:
    """Trust no certificate authority, here and in processes that tests start.

    Tests talk to 127.0.0.1 in the clear. To read the machine's authorities takes each new client 30 to
    50 ms, several times what a call takes; and what goes elsewhere by mistake now fails.
    """
    with tempfile.TemporaryDirectory() as empty, pytest.MonkeyPatch.context() as patch:
        patch.delenv("SSL_CERT_FILE", raising=False)
        patch.setenv("SSL_CERT_DIR", empty)
        yield


@pytest.fixture(autouse=True)
def _nothing_stays_current() -> Iterator[None]:
    """See that a test leaves no user, run or call current behind, which the next would be charged to."""
    yield
    assert surroundings() is None
