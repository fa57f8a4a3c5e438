"""Providers' bills, and how they compare with what was booked: `guard.reconcile(...)`."""

from budgetguard.billing.anthropic import anthropic_bill
from budgetguard.billing.bill import Bill, BillLine
from budgetguard.billing.openai import openai_bill
from budgetguard.billing.result import ReconciledRow, Reconciliation, Threshold

__all__ = [
    "Bill",
    "BillLine",
    "ReconciledRow",
    "Reconciliation",
    "Threshold",
    "anthropic_bill",
    "openai_bill",
]
