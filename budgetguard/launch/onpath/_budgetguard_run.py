"""Guard the SDKs of `_GUARDED` in a Python of a run, from the moment this is imported.

It runs in programs that never call a model, so it imports nothing: what guards is imported together with the
SDK. Where that cannot be, the SDK cannot be imported either, for its calls would be under no budget.
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


def _report_unguarded() -> None:
    """Report SDKs that are imported and not guarded: at once, as a process that is killed has no end."""
    for sdk in list(_unguarded):
        if sdk in sys.modules and sdk in _unguarded:
            _unguarded.remove(sdk)
            _report(sdk)


def _report(sdk: str) -> None:
    """Report an SDK to the runs that this process is part of, in the files of `budgetguard.engine.runlog`."""
    for path in os.environ.get("BUDGETGUARD_RUN_LOG", "").split(os.pathsep):
        try:
            file = os.open(path, os.O_WRONLY | os.O_APPEND)
        except OSError:
            continue  # the run is over
        try:
            os.write(file, b'"%s"\n' % sdk.encode())
        finally:
            os.close(file)


_armed: "list[bool]" = []
_looks_at_exit: "list[bool]" = []
# Both as `budgetguard.providers.sdks` has them, which is not imported here.
_GUARDED = ("openai", "anthropic", "groq", "cerebras.cloud.sdk", "together", "google.genai")
_unguarded = [
    "ai21",
    "cohere",
    "dashscope",
    "fireworks.client",
    "google.generativeai",
    "litellm",
    "mistralai",
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
