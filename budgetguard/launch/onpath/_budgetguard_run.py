"""Guard `openai` in a Python of a run, from the moment this is imported.

It runs in programs that never call a model, so it imports nothing: what guards is imported together with
`openai`. Where that cannot be, `openai` cannot be imported either, for its calls would be under no budget.
"""

import os
import sys

TYPE_CHECKING = False  # typing takes longer to import than all of this
if TYPE_CHECKING:
    from typing import Any


class _Armed:
    """Load `openai` as its own loader does, and guard it first."""

    def __init__(self, loader: "Any") -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> "Any":
        return getattr(self._loader, name)

    def create_module(self, spec: "Any") -> "Any":
        return self._loader.create_module(spec)

    def exec_module(self, module: "Any") -> None:
        module.__spec__.loader = module.__loader__ = self._loader
        _arm()
        self._loader.exec_module(module)


class _Finder:
    """Find `openai` as the other finders do, and have it loaded by `_Armed`."""

    busy = False

    @classmethod
    def find_spec(cls, name: str, path: "Any" = None, target: "Any" = None) -> "Any":
        if name != "openai" or cls.busy:
            return None
        cls.busy = True
        try:
            for finder in sys.meta_path:
                spec: Any = finder.find_spec(name, path, target)
                if spec is not None:
                    # Guarded while it is loaded, not here: whoever finds holds the lock of all imports.
                    if spec.loader is not None:
                        spec.loader = _Armed(spec.loader)
                    return spec
        finally:
            cls.busy = False
        return None


def _verify(event: str, args: "Any") -> None:
    if event == "import":
        # Whoever finds modules before `_Finder` does imports past it. The interpreter tells of all parts.
        if not _armed and args[0].startswith("openai."):
            _arm()
        if args[0] in _unguarded and not _looks_at_exit:
            # It is not there yet, and may be the last import of all.
            import atexit

            _looks_at_exit.append(True)
            atexit.register(_look)
        _look()


def _look() -> None:
    """Tell of SDKs that are imported and not guarded: now, for who is killed tells nothing at its end."""
    for sdk in list(_unguarded):
        if sdk in sys.modules and sdk in _unguarded:
            _unguarded.remove(sdk)
            _tell(sdk)


def _tell(sdk: str) -> None:
    """Tell whoever began the run, in the files of `budgetguard.engine.runlog`."""
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
# As `budgetguard.providers.checking` has them, which is not imported here.
_unguarded = [
    "ai21",
    "anthropic",
    "cerebras.cloud.sdk",
    "cohere",
    "dashscope",
    "fireworks.client",
    "google.genai",
    "google.generativeai",
    "groq",
    "litellm",
    "mistralai",
    "ollama",
    "replicate",
    "together",
    "vertexai",
    "voyageai",
    "xai_sdk",
    "zhipuai",
]


def _arm() -> None:
    try:
        try:
            from budgetguard.launch.child import arm
        except ImportError:
            foreign = os.environ.get("BUDGETGUARD_RUN_PYTHON") != sys.implementation.cache_tag
            if foreign or sys.flags.ignore_environment:  # which is not to say where code is
                raise
            # Of the same version as the Python that started the run: what that one has fits here too.
            sys.path += os.environ.get("BUDGETGUARD_RUN_PATH", "").split(os.pathsep)
            from budgetguard.launch.child import arm
    except ImportError as error:
        message = (
            f"budgetguard: {sys.executable} cannot import openai, because it has no budgetguard that would "
            f"keep its calls to the budget of this run ({error}): install budgetguard for it"
        )
        sys.stderr.write(message + "\n")
        raise ImportError(message, name="openai") from error
    arm()
    _armed.append(True)


sys.meta_path.insert(0, _Finder)
sys.addaudithook(_verify)
