"""Alerts in plain English: a title, and lines that say who, what, how much, until when, and what to do."""

from __future__ import annotations

import os
import re
import shlex
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from budgetguard.alerts.alert import REFUSED, Alert
from budgetguard.core.accounts import CONCURRENT, PROJECT, USD, USER
from budgetguard.core.windows import Milliseconds, to_datetime
from budgetguard.core.wording import count, format_amount, printable

MOST_TOLD: Final = 20
"""How many alerts one message tells in full."""

# What would call people or a channel: `@here`, `@everyone`, `<!channel>`, `<@U123>`.
_CALLING: Final = re.compile(r"(?<!\w)@(?=\w)|<(?=[!@#])")
_MARKUP: Final = re.compile(r"([\\`*_{}\[\]<>#|~])")
_ESCAPED: Final = r"\\\1"
_LONGEST_NAME: Final = 120
# An alert that is told this much later (milliseconds) says when it was.
_LATE: Final = 120_000

Code = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent: a title, and its body as plain text and as Markdown.

    Attributes:
        urgent: calls are being refused, or will be.
    """

    title: str
    text: str
    markdown: str
    urgent: bool = False


def message_of(alerts: Sequence[Alert], now: Milliseconds) -> Message:
    """Return one message that tells of all these alerts, at least one, as of now."""
    urgent = any(one.kind == REFUSED or one.percent >= 100 for one in alerts)
    if len(alerts) == 1:
        text, markdown = (_body(alerts[0], now, code) for code in (_plain, _span))
        return Message(_title(alerts[0]), text + _footer(), markdown + _footer(), urgent)
    told, more = alerts[:MOST_TOLD], len(alerts) - MOST_TOLD
    rest = f"\n\nAnd {count(more, 'more alert')}." if more > 0 else ""
    texts = (f"{_title(one)}\n{_body(one, now, _plain)}" for one in told)
    marked = (f"{_in_bold(_title(one))}\n\n{_body(one, now, _span)}" for one in told)
    title = f"{count(len(alerts), 'budget alert')}: {', '.join(sorted({_name(one.project) for one in told}))}"
    return Message(
        title, "\n\n".join(texts) + rest + _footer(), "\n\n".join(marked) + rest + _footer(), urgent
    )


def sample() -> Message:
    """Return the message with which people try their addresses out."""
    text = "This is a test: no budget has been reached, and no call was refused."
    more = "Alerts about thresholds and refusals come to this address, once a window and account."
    return Message("budgetguard: test alert", f"{text}\n{more}" + _footer(), f"{text}\n\n{more}" + _footer())


def when(at: Milliseconds) -> str:
    """Write an instant, in UTC to the minute."""
    return f"{to_datetime(at):%Y-%m-%d %H:%M} UTC"


def in_words(alert: Alert) -> str:
    """Return one line that says what an alert is about, for a log."""
    return _title(alert)


def _title(alert: Alert) -> str:
    who = _name(alert.who)
    if alert.kind == REFUSED:
        what = f"{who} is at its limit, a call was refused"
    else:
        what = f"{who} has reached {alert.percent} % of its limit"
    of_project = alert.account == f"{PROJECT}:{alert.project}"
    return what[0].upper() + what[1:] + ("" if of_project else f" (project {_name(alert.project)})")


def _body(alert: Alert, now: Milliseconds, code: Code) -> str:
    facts = {
        "Who": f"{code(_name(alert.who))}, project {code(_name(alert.project))}",
        "What": _what(alert, code) + (f" (at {when(alert.at)})" if now - alert.at >= _LATE else ""),
        "How much": _how_much(alert),
        "Until": _until(alert, now),
        "What to do": _remedy(alert, now, code),
    }
    if alert.refusals or alert.reached:
        facts["Not told before"] = _held_back(alert)
    if code is _plain:
        return "\n".join(f"{label}: {text}" for label, text in facts.items())
    return "\n".join(f"- **{label}:** {text}" for label, text in facts.items())


def _what(alert: Alert, code: Code) -> str:
    if alert.kind == REFUSED:
        caller = ""
        if alert.user is not None and alert.account != f"{USER}:{alert.user}":
            caller = f" of user {code(_name(repr(alert.user)))}"
        takes = f"may {'cost' if alert.unit == USD else 'use'} up to {format_amount(alert.cost, alert.unit)}"
        return f"a call{caller} to {code(_name(alert.model))} that {takes} was refused; nothing was sent"
    if alert.percent >= 100:
        return f"{alert.percent} % of the limit is {_spent(alert)}: calls that need any are refused"
    return f"{alert.percent} % of the limit is {_spent(alert)}"


def _how_much(alert: Alert) -> str:
    def written(value: int) -> str:
        return format_amount(value, alert.unit)

    left = max(0, alert.limit - alert.spent - alert.held)
    if alert.unit == CONCURRENT:
        return f"{written(alert.spent + alert.held)} of {alert.limit:,} at most"
    held = f", {written(alert.held)} held for calls under way" if alert.held else ""
    return f"{written(alert.spent)} of {written(alert.limit)} {_spent(alert)}{held}, {written(left)} left"


def _spent(alert: Alert) -> str:
    return "spent" if alert.unit == USD else "used"


def _until(alert: Alert, now: Milliseconds) -> str:
    if alert.unit == CONCURRENT:
        return "calls under way end"
    if alert.resets is None:
        return "it does not reset by itself"
    if alert.resets <= now:
        return f"{when(alert.resets)}, which has passed"
    what = "the oldest part of it counts no more" if alert.rolling else "it resets"
    return f"{what} at {when(alert.resets)}{_away(alert.resets - now)}"


def _away(span: Milliseconds) -> str:
    left = timedelta(minutes=-(-span // 60_000))
    hours, minutes = left.seconds // 3600, left.seconds // 60 % 60
    parts = [(left.days, "day"), (hours, "hour"), (minutes, "minute")]
    first = next(place for place, (number, _) in enumerate(parts) if number)
    return f" (in {' '.join(count(number, noun) for number, noun in parts[first : first + 2] if number)})"


def _remedy(alert: Alert, now: Milliseconds, code: Code) -> str:
    kind, _, ident = alert.account.partition(":")
    project = f"--project {shlex.quote(alert.project)}"
    waits = alert.resets is not None and alert.resets > now
    last = ", or wait until it resets" if waits else ""
    if kind == USER:
        command = f"budgetguard create {shlex.quote(ident)} LIMIT {project}"
    elif kind == PROJECT:
        command = f"budgetguard create --project-budget LIMIT {project}"
    else:
        return f"raise its limit where it is set{last}"
    return f"raise the limit with {code(_name(command, longest=400))}{last}"


def _held_back(alert: Alert) -> str:
    parts = [count(alert.refusals, "more refusal")] if alert.refusals else []
    if alert.reached:
        parts.append(f"{' and '.join(f'{one} %' for one in alert.reached)} reached")
    return f"{', '.join(parts)} since {when(alert.since)}"


def _footer() -> str:
    return f"\n\nbudgetguard on {_name(socket.gethostname())}, process {os.getpid()}"


def _name(text: str, *, longest: int = _LONGEST_NAME) -> str:
    """Return a name so that it is shown and does nothing: it calls nobody, and stays on its line."""
    shown = printable(text)
    shown = shown if len(shown) <= longest else shown[: longest - 1] + "…"
    return _CALLING.sub(lambda match: match[0] + "\u200b", shown)


def _plain(text: str) -> str:
    return text


def _span(text: str) -> str:
    return "`" + text.replace("`", "'") + "`"


def _in_bold(text: str) -> str:
    return f"**{_MARKUP.sub(_ESCAPED, text)}**"
