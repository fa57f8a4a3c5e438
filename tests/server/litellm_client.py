"""A client of the shape of LiteLLM's `BudgetManager(client_type="hosted")`: same requests, same state.

It keeps all users' records itself, reads them once, when it is made, and sends all of them at each change.
"""

from __future__ import annotations

import copy
import time
from typing import Any

import httpx2

IMPORTED_AT = time.time()


class LiteLLMClient:
    """Keep users' records as LiteLLM does.

    Args:
        url: the service.
        key: sent as a bearer token, in the headers that replace the default ones; None sends none.
        project: whose users.
        imported_at: when LiteLLM was imported: what `create_budget` dates records with.
        cookies: whether the HTTP client keeps cookies, as LiteLLM's does.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        project: str = "p",
        *,
        imported_at: float = IMPORTED_AT,
        cookies: bool = True,
    ) -> None:
        self.url, self.project, self.imported_at = url, project, imported_at
        self.headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self.keeps_cookies = cookies
        self.http = httpx2.Client(timeout=60)
        stored = self.post("get_budget", {"project_name": project})
        self.user_dict: dict[str, dict[str, Any]] = {} if stored["status"] == "error" else stored["data"]

    def post(self, path: str, body: Any) -> Any:
        if not self.keeps_cookies:
            self.http.cookies.clear()
        response = self.http.post(f"{self.url}/{path}", headers=self.headers, json=body)
        assert response.status_code == 200, response.text
        return response.json()

    def body(self) -> Any:
        """What it would send now, as it is now."""
        return copy.deepcopy({"project_name": self.project, "user_dict": self.user_dict})

    def save(self) -> None:
        assert self.post("set_budget", self.body()) == {"status": "success"}

    def create_budget(self, total: float, user: str, days: int | None = None) -> None:
        self.user_dict[user] = {"total_budget": total}
        if days is not None:
            self.user_dict[user] |= {
                "duration": days,
                "created_at": self.imported_at,
                "last_updated_at": self.imported_at,
            }
            self.save()

    def spend(self, user: str, cost: float, model: str = "gpt-4o") -> None:
        """Add a call's cost without saying so yet."""
        record = self.user_dict[user]
        record["current_cost"] = cost + record.get("current_cost", 0)
        models = record.setdefault("model_cost", {})
        models[model] = cost + models.get(model, 0)

    def update_cost(self, user: str, cost: float, model: str = "gpt-4o") -> None:
        self.spend(user, cost, model)
        self.save()

    def reset_cost(self, user: str) -> None:
        self.user_dict[user]["current_cost"] = 0
        self.user_dict[user]["model_cost"] = {}

    def reset_on_duration(self, user: str) -> None:
        """Reset as if the duration were over."""
        self.reset_cost(user)
        self.user_dict[user]["last_updated_at"] = time.time()
        self.save()

    def close(self) -> None:
        self.http.close()
