"""How a file says which layers and losses a network has: by their classes and options."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any, ClassVar, Self, TypeVar

from xpdl.arguments import plainly
from xpdl.errors import ArgumentError, UnknownNameError, shown

Kind = TypeVar("Kind", bound="Configurable")


class Configurable:
    """Base of what can be made again from its class's name and the options it was made with.

    A family of classes keeps them by name in `classes`; a subclass names in `options` the arguments
    that it was made with, each of which is an attribute of that name.
    """

    family: ClassVar[str]  # what a class of the family is called in errors, such as "layer"
    classes: ClassVar[dict[str, type]]
    options: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if Configurable in cls.__bases__:
            return
        known = cls.classes.get(cls.__name__)
        if known is not None and known.__module__.startswith("xpdl."):
            raise ArgumentError(
                f"there is a {cls.family} {cls.__name__} in xpdl; choose another name."
            )
        if not cls.__name__.startswith("_"):
            cls.classes[cls.__name__] = cls

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Make one from what `config` returned."""
        return cls(**{name: config[name] for name in config if name != "type"})

    def config(self) -> dict[str, Any]:
        """Return what it takes to make it again, as JSON can hold it."""
        return {"type": type(self).__name__} | {name: getattr(self, name) for name in self.options}

    def changed_options(self) -> dict[str, Any]:
        """Return the options that are not as usual, by name."""
        usual = inspect.signature(type(self)).parameters
        options = {name: getattr(self, name) for name in self.options if name in usual}
        return {name: value for name, value in options.items() if value != usual[name].default}

    def __repr__(self) -> str:
        """Return how to make it, without what is as usual."""
        usual = inspect.signature(type(self)).parameters
        shown = []
        for name, value in self.changed_options().items():
            if isinstance(value, tuple) and len(set(value)) == 1 and isinstance(value[0], int):
                value = value[0]
            if usual[name].default is inspect.Parameter.empty:
                shown.append(repr(value))
            elif value != usual[name].default:
                shown.append(f"{name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"


def made_from(config: Mapping[str, Any], kind: type[Kind]) -> Kind:
    """Make what ``config["type"]`` names, of the classes of a `kind`, with the options beside it.

    Raises
    ------
    UnknownNameError
        If no class is called so; one of somebody's own must be imported first.
    ArgumentError
        If `config` is no mapping with a type, or the options are not that class's.
    """
    if not isinstance(config, Mapping) or "type" not in config:
        raise ArgumentError(
            f'config must be a mapping such as {{"type": "..."}} that names a {kind.family}, '
            f"got {shown(config)}."
        )
    name = config["type"]
    if not isinstance(name, str) or name not in kind.classes:
        hint = " (one of your own must be imported before its file is read)"
        raise UnknownNameError(kind.family, name, kind.classes, hint)
    found: type[Kind] = kind.classes[name]
    try:
        return found.from_config(config)
    except (TypeError, KeyError, AttributeError) as error:
        raise ArgumentError(
            f"{name} cannot be made from {shown(config)}: {plainly(error)}."
        ) from error


def look_at_options(kind: type[Configurable]) -> None:
    """Let a class of somebody's own refuse to be made with what no file or copy would keep."""
    make: Any = kind.__init__
    variable = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    taken = list(inspect.signature(make).parameters.values())[1:]

    @functools.wraps(make)
    def made(self: Any, *arguments: Any, **options: Any) -> None:
        make(self, *arguments, **options)
        kept = {*kind.options, *self.params}  # arrays that the caller made travel by themselves
        if type(self).config is not Configurable.config or type(self) is not kind:
            return
        lost = [p.name for p in taken if p.kind not in variable and p.name not in kept]
        if lost:
            raise ArgumentError(
                f"{kind.__name__} takes {', '.join(lost)}, which no file or copy would keep: write "
                f"options = {tuple(lost)!r} in the class, and keep each as an attribute."
            )

    kind.__init__ = made  # type: ignore[method-assign]
