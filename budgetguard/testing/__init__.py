"""Offer what budgetguard's own tests run against, for other people's tests too."""
