"""The domain without I/O: money, windows, usage, accounts, holds, the ledger."""
