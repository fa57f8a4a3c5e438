"""The guard of a hosted `BudgetManager`: the user's own, but for where its balances live."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from budgetguard.config import Settings
from budgetguard.errors import ConfigurationError
from budgetguard.guard import Guard
from budgetguard.stores.base import public_url
from budgetguard.stores.hosted_litellm import Service, open_service
from budgetguard.stores.targets import service_target


class HostedGuard:
    """Guards that keep a project's balances at a service; nothing is asked before the first is made.

    Args:
        api_base: the service's address.
        headers: sent in place of the key.
        project: whose users.

    Raises:
        ConfigurationError: no address, a bad one, or a bad header.
    """

    def __init__(self, api_base: str | None, headers: Mapping[str, str] | None, project: str) -> None:
        if not isinstance(api_base, str) or not api_base:
            raise ConfigurationError(
                "client_type='hosted' needs the service's address: api_base='https://budgets.example.com'"
            )
        if headers is not None and not isinstance(headers, Mapping):
            raise ConfigurationError(
                f"headers must be a dict of names and texts, not {type(headers).__name__}"
            )
        service_target(api_base, headers)
        self._api_base = api_base
        self._headers = None if headers is None else dict(headers)
        self._project = project
        self._lock = threading.RLock()
        self._store: Service | None = None
        self._made: tuple[Guard, Settings, Guard] | None = None

    def beside(self, base: Guard) -> Guard:
        """Return a guard with the prices, hooks and settings of another: itself, if it is there already.

        Raises:
            StoreError: the service does not answer.
        """
        if self._headers is None and base.engine.place == public_url(self._api_base):
            return base
        with self._lock:
            if self._store is None:
                self._store = open_service(
                    self._api_base, project=self._project, headers=self._headers, clock=base.settings.clock
                )
            if self._made is None or self._made[0] is not base or self._made[1] is not base.settings:
                self._made = base, base.settings, base.beside(store=self._store, project=self._project)
            return self._made[2]
