"""LiteLLM's BudgetManager, and what its files say."""
