"""Attaches to the frameworks that this process uses, and imports none that it doesn't.

What is imported already is attached to at once. For the rest a finder stands first in
sys.meta_path: it finds nothing itself, but lets a module's own loader tell when the module is
there. It goes when it has nothing left to wait for.
"""

from __future__ import annotations

import sys
from _thread import get_ident
from importlib import import_module
from typing import Any

from ._values import absorb

# What each is called, the module that a run of it can't do without, and ours for it, of which
# install() is called once the other is there.
INTEGRATIONS = {
    # The callback manager imports this one when the first run begins.
    "langchain": ("langchain_core.tracers.context", "sidelight.langchain"),
    "openai": ("openai", "sidelight.openai_client"),
    "anthropic": ("anthropic", "sidelight.anthropic_client"),
    "openai_agents": ("agents.tracing", "sidelight.openai_agents"),
}


def install(only: Any = None) -> list[str]:
    """Reports all runs of these frameworks, or of those named in `only`, in this process.

    Returns the names of those that are here. A name that is not known does nothing.
    """
    try:
        names = INTEGRATIONS if only is None else [only] if isinstance(only, str) else list(only)
        return [name for name in INTEGRATIONS if name in names and _install(name)]
    except BaseException as error:
        absorb(error)
        return []


def handler() -> Any:
    """A callback handler for LangChain: one that does nothing where ours doesn't fit."""
    try:
        from .langchain import SidelightCallbackHandler

        return SidelightCallbackHandler()
    except BaseException as error:
        absorb(error)
        from langchain_core.callbacks import BaseCallbackHandler

        return BaseCallbackHandler()


def _install(name: str) -> bool:
    theirs, ours = INTEGRATIONS[name]
    if _is_ready(theirs):
        return _attach(ours)
    _finder.wait_for(theirs, ours)
    return _is_here(theirs.partition(".")[0])


def _is_ready(theirs: str) -> bool:
    """Says whether a module is imported, all of it."""
    module = sys.modules.get(theirs)
    return module is not None and not getattr(getattr(module, "__spec__", None), "_initializing", False)


def _attach(ours: str) -> bool:
    try:
        import_module(ours).install()
        return True
    except BaseException as error:
        absorb(error)
        return False


def _is_here(package: str) -> bool:
    """Says whether a package could be imported, without doing so."""
    if package in sys.modules:
        return True
    try:
        return _find(package, None, None) is not None
    except BaseException as error:
        absorb(error)
        return False


def _find(name: str, path: Any, target: Any) -> Any:
    """What the other finders say."""
    for finder in list(sys.meta_path):
        find_spec = getattr(finder, "find_spec", None)
        if find_spec is not None and finder is not _finder:
            spec = find_spec(name, path, target)
            if spec is not None:
                return spec
    return None


class _Finder:
    """The modules that are waited for, and what to attach to each."""

    def __init__(self) -> None:
        self.waits: dict[str, str] = {}
        self._asking: set[tuple[str, int]] = set()  # which module, on which thread

    def wait_for(self, theirs: str, ours: str) -> None:
        self.waits[theirs] = ours
        if self not in sys.meta_path:
            # A list of our own: another thread may be in the middle of the old one.
            sys.meta_path = [self, *sys.meta_path]

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        try:
            self._look()
            asking = (name, get_ident())
            if name not in self.waits or asking in self._asking:
                return None  # not ours, or a finder that asks the others as well has come round
            self._asking.add(asking)
            try:
                spec = _find(name, path, target)
            finally:
                self._asking.discard(asking)
            return spec if spec is not None and self._listen(name, spec.loader) else None
        except Exception as error:
            absorb(error)
            return None  # the other finders are asked again, and raise it themselves

    def _look(self) -> None:
        """What was on its way when we began to wait for it comes without a word."""
        for theirs in list(self.waits):
            if _is_ready(theirs):
                self._arrived(theirs)

    def _listen(self, name: str, loader: Any) -> bool:
        """Has the loader tell us once the module is there."""
        if isinstance(loader, type):
            return False  # it is everybody's
        execute = loader.exec_module

        def exec_module(module: Any) -> None:
            execute(module)
            if getattr(module, "__name__", None) == name:
                loader.__dict__.pop("exec_module", None)
                self._arrived(name)

        loader.exec_module = exec_module
        return True

    def _arrived(self, name: str) -> None:
        ours = self.waits.pop(name, None)
        if not self.waits:
            sys.meta_path = [finder for finder in sys.meta_path if finder is not self]
        if ours is not None:
            _attach(ours)


_finder = _Finder()
