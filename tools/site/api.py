"""The public names of the package as pages: `ukbob_jax.__all__`, and those of its modules."""

import functools
import inspect
from collections.abc import Callable, Collection
from types import ModuleType

import ukbob_jax


def parts() -> dict[str, Callable[[], str]]:
    """Name of a page -> what generates it: a module of `ukbob_jax.__all__`, errors, and `top` for the other names."""
    return {"top": top, "errors": errors, **{name: functools.partial(module, name) for name in modules()}}


def modules() -> list[str]:
    """The modules among the public names."""
    return sorted(name for name in ukbob_jax.__all__ if inspect.ismodule(getattr(ukbob_jax, name)))


def top() -> str:
    """Classes and functions that `import ukbob_jax as bob` gives by themselves."""
    names = [name for name in ukbob_jax.__all__ if not name.startswith("_") and name not in modules()]
    return "\n\n".join(_object(name, getattr(ukbob_jax, name), "bob", names) for name in names)


def module(name: str) -> str:
    """A module: what it says of itself, and its public names."""
    found = getattr(ukbob_jax, name)
    names = public(found)
    members = (_object(member, getattr(found, member), f"bob.{name}", names) for member in names)
    about = f"```{{eval-rst}}\n.. automodule:: {found.__name__}\n   :no-members:\n```"
    return "\n\n".join([about, *filter(None, members)])


def errors() -> str:
    """What is raised."""
    return "```{eval-rst}\n.. automodule:: ukbob_jax.errors\n   :members:\n   :show-inheritance:\n```"


def public(found: ModuleType) -> list[str]:
    """Public classes and functions of a module, as `__all__` lists them, or else those that it defines."""
    listed = getattr(found, "__all__", None)
    names = listed or [
        n for n, value in vars(found).items() if getattr(value, "__module__", "") == found.__name__
    ]
    return [n for n in names if not n.startswith("_") and callable(getattr(found, n))]


def _object(name: str, value: object, short: str, names: Collection[str]) -> str:
    if inspect.ismodule(value):
        return ""
    if (said := getattr(value, "__name__", name)) != name and said in names:
        return f"## {short}.{name}\n\nAnother name of `{short}.{said}`."
    where = f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', name)}"
    kind = "autoclass" if inspect.isclass(value) else "autofunction"
    members = "\n   :members:\n   :member-order: bysource" if kind == "autoclass" else ""
    return f"## {short}.{name}\n\n```{{eval-rst}}\n.. {kind}:: {where}{members}\n```"
