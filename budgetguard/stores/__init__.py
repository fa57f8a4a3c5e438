"""Stores: where balances live. `open_store(url)` is the way in."""

from budgetguard.stores.base import Store, open_store

__all__ = ["Store", "open_store"]
