"""Tell people when a budget runs low and when a call is refused; a server on this machine is the chat."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from _offline import offline
from openai import OpenAI

import budgetguard
from budgetguard import BudgetExceededError, budget_user


class Chat(BaseHTTPRequestHandler):
    """Show what is posted."""

    def do_POST(self) -> None:
        posted = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        print(f"{posted['title']}\n{posted['message']}\n")
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


chat = ThreadingHTTPServer(("127.0.0.1", 0), Chat)
threading.Thread(target=chat.serve_forever, daemon=True).start()

offline()
budgetguard.configure(
    # In earnest: "https://hooks.slack.com/services/…", "mailto://…". See docs/alerts.md.
    alerts=[f"json://127.0.0.1:{chat.server_port}/"],
    alert_on=["threshold", "refused"],
)
budgetguard.default_guard().set_budget(0.00003, user="1234", duration="monthly")
client = budgetguard.wrap(OpenAI())

with budget_user("1234"):
    try:
        while True:
            client.chat.completions.create(
                model="gpt-4o-mini",
                messages=[{"role": "user", "content": "Say hello."}],
                max_completion_tokens=10,
            )
            budgetguard.default_guard().flush()  # to see one alert after another; else it is not needed
    except BudgetExceededError:
        print("refused\n")
