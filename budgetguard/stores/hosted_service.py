"""Which protocol a hosted service speaks: budgetguard's own, or LiteLLM's alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias
from urllib.parse import quote

from budgetguard.core.windows import Clock
from budgetguard.stores.hosted import HostedStore
from budgetguard.stores.hosted_link import Link
from budgetguard.stores.hosted_litellm import LiteLLMStore
from budgetguard.stores.hosted_target import parse_url

Service: TypeAlias = HostedStore | LiteLLMStore


def open_service(url: str, *, project: str, headers: Mapping[str, str] | None, clock: Clock) -> Service:
    """Open a project's budgets at a service, in budgetguard's own protocol if it speaks that.

    Args:
        url: see `hosted_target.parse_url`.
        project: whose users.
        headers: sent in place of the key; see `hosted_target.parse_url`.
        clock: what tells the time where the service does not.

    Raises:
        ConfigurationError: a bad URL or header.
        StoreError: the service does not answer.
    """
    link = Link(parse_url(url, headers))
    if _is_ours(link, project):
        link.close()
        return HostedStore(url, project=project, clock=clock, retention="", headers=headers)
    return LiteLLMStore(link, url, project, clock)


def _is_ours(link: Link, project: str) -> bool:
    answer = link.ask("GET", f"/v1/projects/{quote(project, safe='')}/balances?limit=1")
    if not isinstance(answer.value, Mapping):
        return False
    if answer.status == 200:
        return "balances" in answer.value
    # Refused, by a service whose refusals are ours: the next verb will meet it, and say why.
    return isinstance(answer.value.get("error"), str) and isinstance(answer.value.get("message"), str)
