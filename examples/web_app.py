"""Serve chat over HTTP with the standard library: each user has a budget, refusals are JSON with a status."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from _offline import offline
from openai import OpenAI

import budgetguard
from budgetguard import BudgetGuardError, budget_user

offline()

guard = budgetguard.default_guard()
guard.set_budget(1, user="ada", duration="monthly")
guard.set_budget(0, user="charles")
client = budgetguard.wrap(OpenAI())


class Chat(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        question = self.rfile.read(int(self.headers["content-length"])).decode()
        try:
            with budget_user(self.headers.get("x-user", "nobody")):
                answer = client.chat.completions.create(
                    model="gpt-4o-mini", messages=[{"role": "user", "content": question}]
                )
            self.reply(200, {"answer": answer.choices[0].message.content})
        except BudgetGuardError as refused:
            self.reply(refused.status, refused.to_dict())

    def reply(self, status: int, body: dict[str, object]) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: object) -> None:
        """Log nothing."""


with ThreadingHTTPServer(("127.0.0.1", 0), Chat) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for user in ("ada", "charles", "nobody"):
        url = f"http://127.0.0.1:{server.server_port}/"
        try:
            with urlopen(Request(url, b"Hello?", {"x-user": user})) as response:
                print(user, response.status, response.read().decode())
        except HTTPError as error:
            print(user, error.code, error.read().decode())
            error.close()
    server.shutdown()
