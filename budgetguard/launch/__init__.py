"""A whole program under one budget, without editing it: what `budgetguard run` and `budgetguard.auto` do."""
