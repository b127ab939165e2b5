"""Code of libraries that the daemon imports and never runs: it is read when somebody asks for it.

    import numpy ─▶ numpy.random: a Deferred in sys.modules ── its first attribute ─▶ the real one's code

Nothing is missing, it only comes later, and costs nothing until then. Of a deferred package, modules can be
imported as usual; what its `__init__` defines runs that when it is asked for. So `aiohttp.web_protocol` comes
without the client, and `asyncua.client` without the server and what that imports.

Only a process that is nothing but the daemon does this: in others' programs, imports are others' business.
"""

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module, metadata
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from threading import RLock, get_ident
from types import ModuleType
from typing import Any, Final, NamedTuple

__all__ = ["DEFERRED", "Deferral", "Deferred", "defer"]


class Deferral(NamedTuple):
    """How a module is put off."""

    package: bool = False
    """Its own modules are imported without it."""
    first: str = ""
    """The module that a package has imported before any other: its circles of imports are so made."""
    names: Sequence[str] = ()
    """What the package takes from there."""


DEFERRED: Final[Mapping[str, Deferral]] = {
    # numpy 1 imports them itself, numpy 2 does not: 4.4 MiB.
    "numpy.ctypeslib": Deferral(),
    "numpy.fft": Deferral(),
    "numpy.ma": Deferral(),
    "numpy.polynomial": Deferral(),
    "numpy.random": Deferral(),
    # What help(numpy.sin) prints, once for each of the two names that numpy's core has had.
    "numpy.core._add_newdocs": Deferral(),
    "numpy.core._add_newdocs_scalars": Deferral(),
    "numpy._core._add_newdocs": Deferral(),
    "numpy._core._add_newdocs_scalars": Deferral(),
    # The client, its cookies and its connector, without a sink that needs them: 6 MiB.
    "aiohttp": Deferral(package=True),
    # The server and the maker of certificates: 2 MiB.
    "asyncua": Deferral(package=True, first="asyncua.common", names=("Node", "uamethod")),
    "asyncua.crypto.cert_gen": Deferral(),
}
"""By module. The figures are resident MiB, CPython 3.11, x86-64."""


def defer(deferred: Mapping[str, Deferral] = DEFERRED) -> None:
    """Put these off from now on; where one of them is imported already, it is no process of ours."""
    roots = {name.partition(".")[0] for name in deferred}
    if roots.isdisjoint(sys.modules):
        sys.meta_path.insert(0, _Finder(deferred))


class Deferred(ModuleType):
    """A module whose code has not run yet."""

    def __getattr__(self, name: str) -> Any:
        """Find what is not there yet, if need be by running the module."""
        if name.startswith("__") and name not in {"__all__", "__version__"}:
            raise AttributeError(name)  # import's own questions
        loader = self.__dict__["__loader__"]
        assert isinstance(loader, _Loader)
        return loader.found(self, name)


class _Finder(MetaPathFinder):
    def __init__(self, deferred: Mapping[str, Deferral]) -> None:
        self._deferred = deferred

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self._deferred:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self._deferred[fullname])
        return spec


class _Loader(Loader):
    """Makes a Deferred, and runs the real module in it."""

    def __init__(self, real: Loader, how: Deferral) -> None:
        self._real = real
        self._how = how
        self._lock = RLock()
        self._runs_in: int | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return Deferred(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        if self._how.first:
            first = import_module(self._how.first)
            for name in self._how.names:
                setattr(module, name, getattr(first, name))

    def found(self, module: Deferred, name: str) -> Any:
        if self._how.package:
            if name == "__version__":
                return metadata.version(module.__name__)
            if PathFinder.find_spec(f"{module.__name__}.{name}", module.__path__) is not None:
                return import_module(f"{module.__name__}.{name}")
        with self._lock:
            if self._runs_in == get_ident():
                raise AttributeError(f"module {module.__name__!r} has no attribute {name!r} yet")
            if type(module) is Deferred:
                self._run(module)
        return getattr(module, name)

    def _run(self, module: ModuleType) -> None:
        self._runs_in = get_ident()
        try:
            self._real.exec_module(module)
        finally:
            self._runs_in = None
        module.__class__ = ModuleType
