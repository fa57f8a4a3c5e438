"""Guard the SDKs of `_GUARDED` in a Python of a run, from the moment this is imported.

It runs in programs that never call a model, so it imports nothing: what guards is imported together with the
SDK. Where that cannot be, the SDK cannot be imported either, for its calls would be under no budget.

It tells of connections to model providers as well, or refuses them, as long as nothing of budgetguard is here
that knows which of them are guarded: then none is.
"""

import os
import sys

TYPE_CHECKING = False  # typing takes longer to import than all of this
if TYPE_CHECKING:
    from typing import Any


class _Armed:
    """Load an SDK as its own loader does, and guard it first."""

    def __init__(self, loader: "Any", name: str) -> None:
        self._loader = loader
        self._name = name

    def __getattr__(self, name: str) -> "Any":
        return getattr(self._loader, name)

    def create_module(self, spec: "Any") -> "Any":
        return self._loader.create_module(spec)

    def exec_module(self, module: "Any") -> None:
        module.__spec__.loader = module.__loader__ = self._loader
        _arm(self._name)
        self._loader.exec_module(module)


class _Finder:
    """Find an SDK as the other finders do, and have it loaded by `_Armed`."""

    busy = False

    @classmethod
    def find_spec(cls, name: str, path: "Any" = None, target: "Any" = None) -> "Any":
        if name not in _GUARDED or cls.busy:
            return None
        cls.busy = True
        try:
            for finder in sys.meta_path:
                spec: Any = finder.find_spec(name, path, target)
                if spec is not None:
                    # Guarded while it is loaded, not here: whoever finds holds the lock of all imports.
                    if spec.loader is not None:
                        spec.loader = _Armed(spec.loader, name)
                    return spec
        finally:
            cls.busy = False
        return None


def _verify(event: str, args: "Any") -> None:
    if event == "import":
        # Whoever finds modules before `_Finder` does imports past it. The interpreter tells of all parts.
        if not _armed:
            for package in _GUARDED:
                if args[0].startswith(package + "."):
                    _arm(package)
                    break
        if args[0] in _unguarded and not _looks_at_exit:
            # It is not there yet, and may be the last import of all.
            import atexit

            _looks_at_exit.append(True)
            atexit.register(_report_unguarded)
        _report_unguarded()
    elif event in _CONNECTS and _mode != "allow":
        refusal = None
        try:  # noqa: SIM105 - which would be an import
            refusal = _judge(event, args)
        except Exception:  # noqa: BLE001, S110 - the connection is the program's, and so is the error
            pass
        if refusal is not None:
            if event == "socket.connect":
                args[0].close()  # which is otherwise done after an OSError only
            raise refusal


def _judge(event: str, args: "Any") -> "UnguardedCall | None":
    """Tell of a connection to a provider, and return what it is refused with, if it is."""
    watcher = getattr(sys.modules.get("budgetguard.engine.unguarded"), "watcher", None)
    if watcher is not None and watcher.decides:
        return None
    if not _hosts:
        _hosts.append(_load_hosts())
    hosts, known = _hosts[0]
    target = hosts.target_of(event, args)
    address = None if target is None else known.address(*target)
    if address is None:
        return None
    refused = _mode == "block"
    text = hosts.told(address, None, refused)
    if address not in _told:
        _told.add(address)
        line = b'{"address": "%s", "refused": %s}' % (address.encode(), b"true" if refused else b"false")
        _report(line)
        import logging

        logging.getLogger("budgetguard").warning("budgetguard: %s", text)
    if not refused:
        return None
    # Of the same class as everywhere, where the program can know it.
    kind = getattr(sys.modules.get("budgetguard.errors"), "UnguardedCallError", None)
    return UnguardedCall(text, address) if kind is None else kind(text, address=address)


class UnguardedCall(Exception):
    """What a connection is refused with where budgetguard is not imported: see its UnguardedCallError.

    Attributes:
        address: the provider's host.
    """

    status_code = 422  # as all errors that it is no use to try again after

    def __init__(self, message: str, address: str) -> None:
        super().__init__(message, address)
        self.address = address

    def __str__(self) -> str:
        return str(self.args[0])


def _load_hosts() -> "Any":
    """Return the module of providers' hosts, loaded without the package that it is in, and the hosts."""
    package = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))  # noqa: PTH120 - as in sitecustomize
    path = os.path.join(package, "pricing", "hosts.py")  # noqa: PTH118 - likewise
    loader = sys.modules["_frozen_importlib_external"].SourceFileLoader("_budgetguard_hosts", path)
    hosts: Any = type(sys)("_budgetguard_hosts")
    loader.exec_module(hosts)
    return hosts, hosts.Hosts(os.environ.get("BUDGETGUARD_PROVIDER_HOSTS", "").split(","))


def _report_unguarded() -> None:
    """Report SDKs that are imported and not guarded: at once, as a process that is killed has no end."""
    for sdk in list(_unguarded):
        if sdk in sys.modules and sdk in _unguarded:
            _unguarded.remove(sdk)
            _report(b'"%s"' % sdk.encode())


def _report(line: bytes) -> None:
    """Report to the runs that this process is part of, in the files of `budgetguard.engine.runlog`."""
    for path in os.environ.get("BUDGETGUARD_RUN_LOG", "").split(os.pathsep):
        try:
            file = os.open(path, os.O_WRONLY | os.O_APPEND)
        except OSError:
            continue  # the run is over
        try:
            os.write(file, line + b"\n")
        finally:
            os.close(file)


_armed: "list[bool]" = []
_hosts: "list[Any]" = []
_told: "set[str]" = set()
_mode = os.environ.get("BUDGETGUARD_UNGUARDED", "warn")
# As `budgetguard.pricing.hosts` has them.
_CONNECTS = (
    "socket.getaddrinfo",
    "socket.gethostbyname",
    "socket.connect",
    "http.client.send",
)
_looks_at_exit: "list[bool]" = []
# Both as `budgetguard.providers.sdks` has them, which is not imported here.
_GUARDED = (
    "openai",
    "anthropic",
    "groq",
    "cerebras.cloud.sdk",
    "together",
    "botocore.client",
    "aiobotocore.client",
    "mistralai",
    "cohere",
    "litellm",
)
_unguarded = [
    "ai21",
    "dashscope",
    "fireworks.client",
    "google.genai",
    "google.generativeai",
    "ollama",
    "replicate",
    "vertexai",
    "voyageai",
    "xai_sdk",
    "zhipuai",
]


def _arm(sdk: str) -> None:
    try:
        try:
            from budgetguard.providers.sdks import patch
        except ImportError:
            foreign = os.environ.get("BUDGETGUARD_RUN_PYTHON") != sys.implementation.cache_tag
            if foreign or sys.flags.ignore_environment:  # which is not to say where code is
                raise
            # Of the same version as the Python that started the run: what that one has fits here too.
            sys.path += os.environ.get("BUDGETGUARD_RUN_PATH", "").split(os.pathsep)
            from budgetguard.providers.sdks import patch
    except ImportError as error:
        message = (
            f"budgetguard: {sys.executable} cannot import {sdk}, because it has no budgetguard that would "
            f"keep its calls to the budget of this run ({error}): install budgetguard for it"
        )
        sys.stderr.write(message + "\n")
        raise ImportError(message, name=sdk) from error
    import budgetguard

    patch(budgetguard.default_guard().engine)
    _armed.append(True)


sys.meta_path.insert(0, _Finder)
sys.addaudithook(_verify)
