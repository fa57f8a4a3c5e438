"""Alerts: what budgets tell people on Slack, Teams, Discord, by mail, webhook, and the rest of apprise.

A threshold that is reached and a refusal are told once a window and account, whichever process meets them.
What is told, in which words, whether now or after the quiet period, and how it is sent, is a file each.
"""
