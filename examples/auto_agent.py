"""Put a program under a budget with one import; the Python processes that it starts share the budget."""

import os
import subprocess
import sys
import tempfile

from _offline import offline

offline("Yes.")

WORKER = """
import sys
from openai import OpenAI

for number in range(3):
    try:
        OpenAI().chat.completions.create(
            model="gpt-4o-mini",
            messages=[{"role": "user", "content": "Shall we go on?"}],
            max_completion_tokens=200,
        )
        print("worker", sys.argv[1], "made a call")
    except Exception as stopped:
        print("worker", sys.argv[1], "was stopped:", type(stopped).__name__)
"""

AGENT = f"""
import subprocess, sys
import budgetguard.auto  # the only line about budgets

for name in ("one", "two"):
    subprocess.run([sys.executable, "-c", {WORKER!r}, name])
"""

with tempfile.TemporaryDirectory() as folder:
    limits = {
        "BUDGETGUARD_STORE": f"disk://{folder}/budgets",  # processes cannot share memory://
        "BUDGETGUARD_MAX_BUDGET": "0.00013",
    }
    print("the agent, with a budget of $0.00013:", flush=True)
    subprocess.run([sys.executable, "-c", AGENT], env={**os.environ, **limits}, stderr=subprocess.STDOUT)
