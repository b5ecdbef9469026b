"""The devices, and which of them new arrays are born on.

The active backend says where parameters, batches and masks are born, no more. Code that is given
an array asks the array: ``backend_of(x)`` for the primitives, ``array_module(x)`` for the module.
"""

from __future__ import annotations

import os
import threading
from types import TracebackType
from typing import Any

from xpdl.backends.base import Backend
from xpdl.backends.base.types import (
    Array,
    Normal,
    Number,
    Pads,
    Pair,
    Shape,
    accumulation_dtype,
    output_size,
    spread,
)
from xpdl.backends.generators import RandomGenerator, check_generator_state
from xpdl.backends.numpy.threads import hold_while_forking
from xpdl.errors import (
    BackendMismatchError,
    BackendUnavailableError,
    DTypeError,
    UnknownNameError,
)

__all__ = [
    "BACKEND_NAMES",
    "Array",
    "Backend",
    "Normal",
    "Number",
    "Pads",
    "Pair",
    "RandomGenerator",
    "Shape",
    "accumulation_dtype",
    "array_module",
    "available_backends",
    "backend_of",
    "check_generator_state",
    "get_backend",
    "output_size",
    "spread",
    "use_backend",
]

CUPY_PROVIDERS = ("fused", "generic")
"""Whose code computes on ``cupy``: kernels of our own, or the generic primitives."""

BACKEND_NAMES = ("numpy", "numba", "cupy", "strict", "generic")

_made: dict[str, Backend] = {}
_making = threading.RLock()
hold_while_forking(_making)


class _Choice(threading.local):
    """What a thread has chosen; a thread that chose nothing has None."""

    backend: Backend | None = None


_own_choice = _Choice()
_main_choice: Backend | None = None
_default: Backend | None = None


def _make(name: str) -> Backend:
    """Return the one backend called `name`, making it at the first call."""
    if name not in BACKEND_NAMES:
        raise UnknownNameError("backend", name, BACKEND_NAMES)
    with _making:
        if name not in _made:
            if name == "cupy":
                _made[name] = _make_cupy()
            elif name == "strict":
                from xpdl.backends.strict.backend import StrictBackend

                _made[name] = StrictBackend()
            elif name == "numba":
                from xpdl.backends.numba.backend import NumbaBackend

                _made[name] = NumbaBackend()
            elif name == "numpy":
                from xpdl.backends.numpy.backend import NumpyBackend

                _made[name] = NumpyBackend()
            else:
                _made[name] = Backend()
        return _made[name]


def _make_cupy() -> Backend:
    """Return the CuPy backend with the provider that ``XPDL_PROVIDER`` names."""
    provider = os.environ.get("XPDL_PROVIDER") or CUPY_PROVIDERS[0]
    if provider not in CUPY_PROVIDERS:
        raise UnknownNameError("provider in XPDL_PROVIDER,", provider, CUPY_PROVIDERS)
    if provider == "generic":
        from xpdl.backends.cupy.backend import CupyBackend

        return CupyBackend()
    from xpdl.backends.cupy.fused import FusedCupyBackend

    return FusedCupyBackend()


class BackendChoice:
    """A choice of backend that holds from now on, or until the end of a ``with`` block."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._before = _get_choice()
        _set_choice(backend)

    def __enter__(self) -> Backend:
        if _get_choice() is not self.backend:  # kept, and entered again later
            self._before = _get_choice()
            _set_choice(self.backend)
        return self.backend

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _set_choice(self._before)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _get_choice() -> Backend | None:
    return _main_choice if _in_main_thread() else _own_choice.backend


def _set_choice(backend: Backend | None) -> None:
    global _main_choice
    if _in_main_thread():
        _main_choice = backend
    else:
        _own_choice.backend = backend


def _become_main() -> None:
    """In a forked child, whose main thread is the one that forked, make its choice the main one."""
    global _main_choice
    if _own_choice.backend is not None:
        _main_choice, _own_choice.backend = _own_choice.backend, None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_become_main)


def use_backend(name: str | Backend) -> BackendChoice:
    """Choose where new arrays are born: a name of `BACKEND_NAMES`, such as ``"cupy"``.

    A call holds from now on; ``with use_backend("numpy"): ...`` holds for the block. A thread
    follows its own choice, else the main thread's, else the variable ``XPDL_BACKEND``, else NumPy.

    Raises
    ------
    UnknownNameError
        If there is no such backend.
    BackendUnavailableError
        If it cannot be used here; the choice then stays as it was.
    """
    return BackendChoice(name if isinstance(name, Backend) else _make(name))


def get_backend(name: str | None = None) -> Backend:
    """Return the backend of a name; without one the active one, found as `use_backend` says."""
    global _default
    if name is not None:
        return _make(name)
    chosen = _own_choice.backend or _main_choice or _default
    if chosen is None:
        wanted = os.environ.get("XPDL_BACKEND") or "numpy"
        try:
            chosen = _default = _make(wanted)
        except UnknownNameError as error:
            raise UnknownNameError("backend in XPDL_BACKEND,", wanted, BACKEND_NAMES) from error
    return chosen


def backend_of(*arrays: object) -> Backend:
    """Return the backend that the arrays live on; numbers, lists and None among them don't count.

    Raises
    ------
    BackendMismatchError
        If they live on different ones.
    DTypeError
        If there is no array among them.
    """
    try:
        active: Backend | None = get_backend()
    except (BackendUnavailableError, UnknownNameError):
        active = None  # the arrays decide; who wants a new one will hear of it
    found: Backend | None = None
    for array in arrays:
        mine = active is not None and isinstance(array, active.array_type)
        backend = active if mine else _owner(array)
        if backend is None or backend is found:
            continue
        if found is not None:
            raise BackendMismatchError(
                f"arrays of two backends in one call: {found.name!r} and {backend.name!r} "
                f"(an array of shape {getattr(array, 'shape', ())}). Bring them together: "
                f"xpdl.asarray(a) puts a NumPy array on the active backend, xpdl.to_numpy(a) "
                f"brings one to the host, network.to({found.name!r}) moves a network."
            )
        found = backend
    if found is None:
        kinds = ", ".join(dict.fromkeys(type(array).__name__ for array in arrays)) or "nothing"
        raise DTypeError(f"expected an array, got {kinds}; make one with xpdl.asarray(...).")
    return found


def _owner(array: object) -> Backend | None:
    """Return the backend of an array that is not the active backend's; None for a non-array."""
    if hasattr(array, "__cuda_array_interface__"):
        return _make("cupy")
    if hasattr(array, "__xpdl_device__"):
        return _make("strict")
    numpy = _make("numpy")
    return numpy if isinstance(array, numpy.array_type) else None


def array_module(*arrays: object) -> Any:
    """Return the module (`numpy`, `cupy`, ...) whose functions take these arrays."""
    return backend_of(*arrays).xp


def available_backends() -> dict[str, str]:
    """Return each backend's name with ``"ready"`` or the reason why it is not; never raises."""

    def state(name: str) -> str:
        try:
            _make(name)
        except (BackendUnavailableError, UnknownNameError) as error:
            return str(error)
        return "ready"

    return {name: state(name) for name in BACKEND_NAMES}
