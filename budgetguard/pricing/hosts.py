"""Hosts where model calls are billed, and which of them an event of the interpreter's is about.

Imports nothing: in the Pythons of a run that never import budgetguard, this file is loaded alone, by
`launch/onpath/_budgetguard_run.py`, in whichever version of Python the program uses.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# A star stands for one label or several, or for a part of one. What serves much else beside models at the
# same host is left out (api.cloudflare.com, *.azure-api.net, *.cloud.databricks.com, *.modal.run).
PROVIDER_HOSTS = (
    "api.ai21.com",
    "api.aimlapi.com",
    "api.anthropic.com",
    "api.arcee.ai",
    "api.avian.io",
    "api.cerebras.ai",
    "api.cohere.ai",
    "api.cohere.com",
    "api.cursor.com",
    "api.deepinfra.com",
    "api.deepseek.com",
    "api.doubleword.ai",
    "api.elevenlabs.io",
    "api.*.elevenlabs.io",
    "api.featherless.ai",
    "api.fireworks.ai",
    "api.friendli.ai",
    "api.githubcopilot.com",
    "api.groq.com",
    "api.hyperbolic.xyz",
    "api.inference.net",
    "api.jina.ai",
    "api.lambda.ai",
    "api.meta.ai",
    "api.minimax.chat",
    "api.minimax.com",
    "api.minimax.io",
    "api.minimaxi.com",
    "api.mistral.ai",
    "api.*.mistral.ai",
    "api.moonshot.ai",
    "api.moonshot.cn",
    "api.novita.ai",
    "api.openai.com",
    "*.api.openai.com",
    "api.perplexity.ai",
    "api.quicksilverpro.io",
    "api.replicate.com",
    "api.sambanova.ai",
    "api.siliconflow.cn",
    "api.siliconflow.com",
    "api.stability.ai",
    "api.studio.nebius.ai",
    "api.studio.nebius.com",
    "api.tokenfactory.nebius.com",
    "api.together.ai",
    "api.together.xyz",
    "eu-api.together.ai",
    "us-api.together.ai",
    "api.typesafe.ai",
    "api.upstage.ai",
    "api.voyageai.com",
    "api.writer.com",
    "api.x.ai",
    "*.api.x.ai",
    "api.z.ai",
    "ark.*.volces.com",
    "codestral.mistral.ai",
    "dashscope.aliyuncs.com",
    "dashscope-*.aliyuncs.com",
    "inference.baseten.co",
    "integrate.api.nvidia.com",
    "llm.chutes.ai",
    "models.github.ai",
    "models.inference.ai.azure.com",
    "oai.endpoints.kepler.ai.cloud.ovh.net",
    "open.bigmodel.cn",
    "api.openrouter.ai",
    "openrouter.ai",
    "*.openrouter.ai",
    "router.huggingface.co",
    # Azure: deployments of OpenAI's and others' models.
    "*.openai.azure.com",
    "*.openai.azure.us",
    "*.openai.azure.cn",
    "*.cognitiveservices.azure.com",
    "*.services.ai.azure.com",
    "*.inference.ai.azure.com",
    "*.models.ai.azure.com",
    # Google: Gemini's Developer API, and Vertex AI in every region.
    "generativelanguage.googleapis.com",
    "aiplatform.googleapis.com",
    "*-aiplatform.googleapis.com",
    "aiplatform.*.rep.googleapis.com",
    # Amazon Bedrock, with its FIPS, dual-stack and private addresses.
    "bedrock-runtime.*.amazonaws.com",
    "bedrock-runtime.*.amazonaws.com.cn",
    "bedrock-runtime-fips.*.amazonaws.com",
    "bedrock-runtime.*.api.aws",
    "bedrock-runtime-fips.*.api.aws",
    "bedrock-mantle.*.api.aws",
    "bedrock-agent-runtime.*.amazonaws.com",
    "*.bedrock-runtime.*.vpce.amazonaws.com",
)

# Look-ups, and connections. Python's own HTTP client, which is below requests, urllib3 and botocore as well,
# tells also of requests over connections that are open, and of whom a proxy is asked for.
EVENTS = (
    "socket.getaddrinfo",
    "socket.gethostbyname",
    "socket.connect",
    "http.client.send",
)

REMEDY = (
    "patch its SDK, wrap(client), or put `with guard.call(...)` or @budgeted around the call; if it is "
    'meant, configure(unguarded="allow") or BUDGETGUARD_UNGUARDED=allow'
)

_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789.-_:")
_MOST_REMEMBERED = 4096


def target_of(event: str, args: tuple[object, ...]) -> tuple[object, object] | None:
    """Return the host and the port that one of `EVENTS` is about; None if it is about neither."""
    if event == "socket.connect":
        address = args[1]
        if isinstance(address, tuple) and len(address) > 1:
            return address[0], address[1]
        return None
    if event == "socket.getaddrinfo":
        return args[0], args[1]
    if event == "socket.gethostbyname":
        return args[0], None
    connection = args[0]
    tunnel = getattr(connection, "_tunnel_host", None)
    if tunnel:
        return tunnel, getattr(connection, "_tunnel_port", None)
    return getattr(connection, "host", None), getattr(connection, "port", None)


def plain(host: object) -> str:
    """Return a host in the form that is compared: in small letters, without brackets and a dot at its end."""
    if isinstance(host, (bytes, bytearray)):
        host = host.decode("ascii", "replace")
    return host.strip("[]").rstrip(".").lower() if isinstance(host, str) else ""


def parsed(entry: object) -> tuple[str, int | None] | None:
    """Return the host, which may have stars, and the port of `host` or `host:port`; None if it is neither."""
    if not isinstance(entry, str):
        return None
    host, colon, port = entry.strip().rpartition(":")
    if not colon or port.endswith("]") or (":" in host and not host.startswith("[")):
        host, port = entry.strip(), ""
    host = plain(host)
    if not host.replace("*", "").strip(".") or not _LETTERS.issuperset(host.replace("*", "")):
        return None
    if colon and port and not (port.isdigit() and 0 < int(port) < 65536):
        return None
    return host, int(port) if port else None


class Hosts:
    """The hosts of providers.

    Args:
        more: `host` or `host:port`, beside `PROVIDER_HOSTS`; what cannot be read is none.
    """

    def __init__(self, more: Iterable[str] = ()) -> None:
        self._exact: dict[str, tuple[int | None, ...]] = {}
        self._stars: list[tuple[list[str], int | None]] = []
        self._found: dict[object, tuple[int | None, ...]] = {}
        for entry in (*PROVIDER_HOSTS, *more):
            read = parsed(entry)
            if read is not None:
                host, port = read
                if "*" in host:
                    self._stars.append((host.split("*"), port))
                else:
                    self._exact[host] = (*self._exact.get(host, ()), port)

    def knows(self, host: object) -> bool:
        """Whether a host is a provider's, at any port."""
        try:
            return bool(self._found[host] if host in self._found else self._find(host))
        except TypeError:  # a bytearray
            return False

    def address(self, host: object, port: object) -> str | None:
        """Return the address of a provider's host as it is told: with its port only if that matters.

        None if it is no provider's.
        """
        try:
            ports = self._found[host]
        except KeyError:
            ports = self._find(host)
        except TypeError:  # a bytearray
            return None
        if not ports:
            return None
        if None in ports:
            return plain(host)
        number = int(port) if isinstance(port, (str, bytes)) and port.isdigit() else port
        return f"{plain(host)}:{number}" if number in ports else None

    def _find(self, host: object) -> tuple[int | None, ...]:
        name = plain(host)
        ports = self._exact.get(name, ())
        if _LETTERS.issuperset(name):
            ports += tuple(port for pieces, port in self._stars if _fits(name, pieces))
        if len(self._found) >= _MOST_REMEMBERED:
            self._found.clear()
        self._found[host] = ports
        return ports


def _fits(name: str, pieces: list[str]) -> bool:
    """Whether a name is these pieces in this order with anything, but never nothing, between them."""
    first, last = pieces[0], pieces[-1]
    if not (name.startswith(first) and name.endswith(last)):
        return False
    at, end = len(first), len(name) - len(last)
    for piece in pieces[1:-1]:
        at = name.find(piece, at + 1, end)
        if at < 0:
            return False
        at += len(piece)
    return at < end


def told(address: str, caller: str | None, refused: bool) -> str:
    """Return what is said of a connection to a provider that was made outside of a guarded call."""
    by = "" if caller is None else f", from {caller},"
    if refused:
        return (
            f"a connection to {address}{by} was refused before anything was sent: it is a model provider's "
            f"address, and the call is not guarded. To guard it, {REMEDY}"
        )
    return (
        f"a connection to {address}{by} is made outside of every guarded call: it is a model provider's "
        f"address, and what is called there is under no budget and not booked. To guard it, {REMEDY}"
    )
