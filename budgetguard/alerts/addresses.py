"""Where alerts go: URLs of apprise, checked when they are set, and never shown with their secrets."""

from __future__ import annotations

import logging
import re
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote

from budgetguard.alerts.wording import Message
from budgetguard.errors import ConfigurationError

EXTRA: Final = "pip install 'budgetguard-ai[alerts]'"

_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,31})://[^\s]*")
# Between two addresses; within one a comma may stand, as in the receivers of a mail.
_BETWEEN: Final = re.compile(r"[\s,]+(?=[A-Za-z][A-Za-z0-9+.-]*://)")
# A part of a URL that an error may repeat: those that are shorter are no secrets.
_SECRET: Final = re.compile(r"[^/:@?&=#,;\s]{4,}")
# Of apprise, and of what it sends with: at level DEBUG that tells each path, often a token.
_LOGGERS: Final = ("apprise", "urllib3.connectionpool", "urllib3.util.retry", "requests_oauthlib.oauth1_auth")
_FOR_PROGRAMS: Final = ("NotifyJSON", "NotifyXML", "NotifyForm")
_LONGEST_PROBLEM: Final = 300


def split_addresses(text: str) -> tuple[str, ...]:
    """Return the addresses of a text that has them separated by commas, spaces or lines."""
    return tuple(one for part in _BETWEEN.split(text.strip()) if (one := part.strip(" \t\r\n,")))


def check_addresses(urls: object) -> None:
    """Check that these look like addresses; whether apprise knows them, `address_of` says.

    Raises:
        ConfigurationError: they do not; its text shows no part that may be secret.
    """
    what = "alerts is a list of addresses such as ['slack://TOKEN_A/TOKEN_B/TOKEN_C', 'mailto://USER:PASSWORD@HOST']"
    if not isinstance(urls, tuple):
        raise ConfigurationError(
            f"{what}, not one {type(urls).__name__} (it is not shown: it may hold secrets)"
        )
    for place, url in enumerate(urls, start=1):
        if not isinstance(url, str) or not _URL.fullmatch(url):
            why = "has no SCHEME:// before it, or has spaces" if isinstance(url, str) else "is no text"
            raise ConfigurationError(f"{what}; number {place} {why} (it is not shown: it may hold secrets)")


def masked(url: str) -> str:
    """Return an address without all that may be secret: its scheme."""
    match = _URL.fullmatch(url)
    return f"{match[1].lower()}://…" if match else "…"


class AlertAddress:
    """One address that alerts are sent to. It shows its service, and no secret.

    Args:
        url: as apprise reads it.

    Attributes:
        shown: the service and its place, for logs and people.

    Raises:
        ConfigurationError: apprise is missing, or does not know the address.
    """

    def __init__(self, url: str) -> None:
        with _heard() as said:
            apprise = _apprise()
            asset = _asset(apprise)
            try:
                # It imports all services. Some warn, and were missing where warnings are errors.
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    plugin = apprise.Apprise.instantiate(url, asset=asset)
            except Exception:  # noqa: BLE001 - of any service's code, and its text may hold the address
                plugin = None
            self._sender = apprise.Apprise(asset=asset)
            if plugin is not None:
                self._sender.add(plugin)
        if plugin is None:
            raise ConfigurationError(_unknown(url, apprise, said))
        self._secrets = _secrets_of(url, plugin.host if _is_at_host(plugin) else "")
        self._apprise = apprise
        self._markdown = _reads_markdown(plugin)
        self.shown = f"{_service(plugin)} ({_place(plugin, url)})"

    def __repr__(self) -> str:
        return f"<AlertAddress {self.shown}>"

    def send(self, message: Message) -> str:
        """Send a message; return why it was not taken, empty if it was. Takes seconds if nobody answers."""
        types, formats = self._apprise.NotifyType, self._apprise.NotifyFormat
        with _heard() as said:
            try:
                taken = self._sender.notify(
                    title=message.title,
                    body=message.markdown if self._markdown else message.text,
                    body_format=formats.MARKDOWN if self._markdown else formats.TEXT,
                    notify_type=types.FAILURE if message.urgent else types.WARNING,
                )
            except Exception as error:  # noqa: BLE001 - whatever a service's code raises
                return type(error).__name__
        if taken:
            return ""
        return self._without_secrets("; ".join(dict.fromkeys(said)))[:_LONGEST_PROBLEM] or "it gave no reason"

    def _without_secrets(self, text: str) -> str:
        for secret in self._secrets:
            text = re.sub(re.escape(secret), "…", text, flags=re.IGNORECASE)
        return " ".join(text.split())


@lru_cache(maxsize=256)
def address_of(url: str) -> AlertAddress:
    """Return the address of a URL; see `AlertAddress`.

    Raises:
        ConfigurationError: apprise is missing, or does not know the URL.
    """
    return AlertAddress(url)


def addresses_of(urls: Iterable[str]) -> tuple[AlertAddress, ...]:
    """Return the addresses of these URLs; see `address_of`."""
    return tuple(address_of(url) for url in urls)


def _apprise() -> Any:
    try:
        import apprise
    except ImportError as error:
        raise ConfigurationError(f"alerts need apprise: {EXTRA} ({error})") from error
    return apprise


def _asset(apprise: Any) -> Any:
    """Return how apprise shall work: under our name and without its picture, and in the thread that asks."""
    more = {}
    if hasattr(apprise.AppriseAsset, "_service_timeout"):
        # Else apprise 2 sends in a pool of threads, which takes no more work when the process ends.
        more["service_timeout"] = 0
    return apprise.AppriseAsset(
        app_id="budgetguard",
        app_desc="budgetguard",
        app_url="",
        image_url_mask="",
        image_url_logo="",
        async_mode=False,
        **more,
    )


def _unknown(url: str, apprise: Any, said: list[str]) -> str:
    match = _URL.fullmatch(url)
    scheme = match[1].lower() if match else ""
    if scheme in ("http", "https"):
        return (
            f"apprise knows no service whose webhooks are at this {scheme}:// address: for a server of your "
            f"own write {'jsons' if scheme == 'https' else 'json'}:// in its place"
        )
    known = set(_schemes(apprise))
    if scheme in known:
        return (
            f"the address {masked(url)} is not what apprise expects after {scheme}://: see "
            "https://appriseit.com/services and docs/alerts.md for its form, and percent-encode what "
            "is special in its parts"
        )
    from difflib import get_close_matches

    near = get_close_matches(scheme, known, n=1, cutoff=0.7)
    hint = f"did you mean {near[0]}://?" if near else "docs/alerts.md has the addresses of common ones"
    return f"apprise knows no service {scheme}://: {hint}"


def _schemes(apprise: Any) -> Iterator[str]:
    for service in apprise.Apprise().details()["schemas"]:
        for key in ("protocols", "secure_protocols"):
            yield from service[key] or ()


def _service(plugin: Any) -> str:
    return str(plugin.service_name)


def _is_at_host(plugin: Any) -> bool:
    """Whether a service's addresses always begin with a host, which is no secret then."""
    templates = tuple(getattr(plugin, "templates", ()))
    return bool(templates and getattr(plugin, "host", None)) and all("{host}" in one for one in templates)


def _place(plugin: Any, url: str) -> str:
    scheme = masked(url).partition("://")[0]
    if not _is_at_host(plugin):
        return f"{scheme}://…"
    port = getattr(plugin, "port", None)
    return f"{scheme}://{plugin.host}{f':{port}' if port else ''}/…"


def _reads_markdown(plugin: Any) -> bool:
    """Whether a service shows Markdown, or HTML, which apprise makes of it.

    Of a service that takes several formats, as apprise 2 lists them, a chat gets Markdown, and a program
    behind a webhook plain text.
    """
    formats = plugin.notify_format
    listed = formats if isinstance(formats, tuple | list) else (formats,)
    named = [str(getattr(one, "value", one)) for one in listed]
    return named[0] in ("markdown", "html") or (
        "markdown" in named and type(plugin).__name__ not in _FOR_PROGRAMS
    )


def _secrets_of(url: str, host: str) -> list[str]:
    """Return the parts of a URL that an error must not repeat, the longest first; its host may be shown."""
    parts = set(_SECRET.findall(url.partition("://")[2])) - {host}
    return sorted(parts | {unquote(one) for one in parts}, key=len, reverse=True)


@contextmanager
def _heard() -> Iterator[list[str]]:
    """Collect what apprise logs in this thread, and keep it from the program's log: it may show addresses."""
    said: list[str] = []
    thread = threading.get_ident()

    def keep(record: logging.LogRecord) -> bool:
        if record.thread != thread:
            return True
        if record.levelno >= logging.WARNING and record.name == "apprise":
            said.append(record.getMessage())
        return False

    loggers = [logging.getLogger(name) for name in _LOGGERS]
    for logger in loggers:
        logger.addFilter(keep)
    try:
        yield said
    finally:
        for logger in loggers:
            logger.removeFilter(keep)
