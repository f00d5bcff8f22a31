"""SIGTERM in gunicorn's uvicorn workers, without a word of configuration.

gunicorn handles SIGTERM in its master process, and each worker sets up its signals after the fork. uvicorn's
give SIGTERM its default action back there, and die of it without ``atexit``; so `arm_workers` has their
`init_signals` end with `flush_on_sigterm`. gunicorn's own workers handle SIGTERM themselves, and end by
``atexit``.

``opentelemetry-instrument`` calls `arm_workers` as an entry point of the group
``opentelemetry_pre_instrument``: after the configurator, which makes the exporter, as the group
``opentelemetry_post_instrument``, but also where one of the instrumentations that come between fails.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from functools import partial, wraps
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

# Either may be the one that is used; both name the class alike.
_MODULES = ("uvicorn.workers", "uvicorn_worker")
_CLASS = "UvicornWorker"

_Hook = Callable[[ModuleType], None]


def arm_workers() -> None:
    """Where this process flushes on SIGTERM, have uvicorn's workers under gunicorn do so too; never raise."""
    # Whoever has not loaded this has armed nothing, and need not pay for the import.
    shutdown = sys.modules.get("otel_analytics.sdk.shutdown")
    if shutdown is None:
        return
    try:
        timeout_millis = shutdown.armed_timeout_millis()
        if timeout_millis is not None:
            _call_after_import(partial(_arm, timeout_millis))
    except Exception:  # noqa: BLE001 - the application's start goes on, whatever our fault is
        _tell()


def _arm(timeout_millis: float, module: ModuleType) -> None:
    from otel_analytics.sdk.shutdown import flush_on_sigterm  # noqa: PLC0415 - see `arm_workers`

    worker = getattr(module, _CLASS)
    init_signals = worker.init_signals

    @wraps(init_signals)
    def init_signals_and_flush(*args: Any, **kwargs: Any) -> None:
        init_signals(*args, **kwargs)
        flush_on_sigterm(timeout_millis)

    worker.init_signals = init_signals_and_flush


def _call_after_import(hook: _Hook) -> None:
    """Have each of the modules passed to the hook: now where it is imported already, else when it is."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder(hook))
    for module in filter(None, map(sys.modules.get, _MODULES)):
        hook(module)


class _Finder(MetaPathFinder):
    """Finds the modules where the finders after this one do, and has a hook called with each.

    Args:
        hook: Called with a module that has just been executed; what it raises is logged.
    """

    def __init__(self, hook: _Hook) -> None:
        self._hook = hook

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of one of the modules, else none: the import system asks the next finder."""
        if fullname not in _MODULES:
            return None
        spec = self._next_spec(fullname, path, target)
        if spec is not None and hasattr(spec.loader, "exec_module"):
            spec.loader = _Loader(spec.loader, self._hook)
        return spec

    def _next_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None
    ) -> ModuleSpec | None:
        # Those before this one have been asked.
        for finder in sys.meta_path[sys.meta_path.index(self) + 1 :]:
            find_spec = getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = find_spec and find_spec(fullname, path, target)
            if spec is not None:
                return spec
        return None


class _Loader(Loader):
    """Loads as another does, and then calls a hook; to the module, the other is its loader.

    Args:
        loader: The other one.
        hook: See `_Finder`.
    """

    def __init__(self, loader: Any, hook: _Hook) -> None:
        self._loader = loader
        self._hook = hook

    def __getattr__(self, name: str) -> Any:
        """Return what else the other has, such as the source."""
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Create the module."""
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Execute the module; what it raises is the application's."""
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        try:
            self._hook(module)
        except Exception:  # noqa: BLE001 - as above
            _tell()


def _tell() -> None:
    from otel_analytics.delivery.logs import log_safely  # noqa: PLC0415 - see `arm_workers`

    log_safely(
        logging.WARNING, "gunicorn's uvicorn workers may lose their last events at SIGTERM", exc_info=True
    )
