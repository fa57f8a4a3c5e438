"""placeholder"""
from __future__ import annotations
from typing import Any
class BudgetManager:
    def __init__(self, project_name: str, *, guard: Any = None) -> None: ...
