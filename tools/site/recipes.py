"""Fields of recipes as pages: those that all share, those of each network and task, and what each recipe changes."""

import inspect
import itertools
from collections.abc import Iterable

import ml_collections

from configs import common, networks, pretrain
from tools.site.config_fields import Field, field, fields, recipes
from tools.site.tables import code, plain, prose, table
from ukbob_jax import settings
from ukbob_jax.models import architecture
from ukbob_jax.training.objectives import tasks

HEAD = ("field", "type", "unit", "default", "meaning")
TOP = " without a section"  # title of the fields without a section; sorts before the others


def shared() -> str:
    """Fields that every recipe has, a table per section."""
    own = [f for f in fields(common.base()) if not f.name.startswith("model.")]
    parts = itertools.groupby(sorted(own, key=_section), _section)
    return "\n\n".join(f"## {title.strip()}\n\n{_table(rows)}" for title, rows in parts)


def models() -> str:
    """The section `config.model` of every network."""
    parts = []
    for name in architecture.names():
        if hasattr(networks, name):
            config = ml_collections.ConfigDict({"model": getattr(networks, name)()})
            summary = (inspect.getdoc(getattr(networks, name)) or "").partition("\n")[0]
            parts.append(f"## {name}\n\n{summary}\n\n{_table(fields(config))}".replace("\n\n\n\n", "\n\n"))
    return "\n\n".join(parts)


def pretraining() -> str:
    """The section `config.pretrain` of every method."""
    parts = []
    for name in tasks.METHODS:
        own = (f for f in fields(pretrain.get_config(name), "pretrain") if f.name.startswith("pretrain."))
        parts.append(f"## {name}\n\n{_table(own)}")
    return "\n\n".join(parts)


def each() -> str:
    """What every recipe says of itself, and the fields that its first variant adds to or changes in the shared ones."""
    return "\n\n".join(_recipe(name) for name in recipes())


def _recipe(name: str) -> str:
    module = recipes()[name]
    first, *others = module.VARIANTS
    base = dict(settings.fields(common.base()))
    made = list(fields(module.get_config(first), name))
    rows = [f for f in made if f.name not in base or f.default != field(f.name, base[f.name], "").default]
    parts = [f"## {name}.py", prose(inspect.getdoc(module) or "")]
    parts += [
        f"Variants: {', '.join(code(':' + v) for v in module.VARIANTS)}; without one, {code(':' + first)}."
    ]
    parts += [_table(rows)] if rows else []
    for variant in others:
        if changed := _changed(name, first, variant):
            parts.append(f"### {name}.py:{variant}\n\nOther than in {code(':' + first)}:\n\n{changed}")
    return "\n\n".join(parts)


def _changed(name: str, first: str, variant: str) -> str:
    """Table of the fields in which a variant differs from the first."""
    before = {f.name: f.default for f in fields(recipes()[name].get_config(first), name)}
    now = fields(recipes()[name].get_config(variant), name)
    rows = [f for f in now if before.get(f.name) != f.default]
    return _table(rows) if rows else ""


def _section(row: Field) -> str:
    section = row.name.partition(".")[0]
    return section if "." in row.name else TOP


def _table(rows: Iterable[Field]) -> str:
    return table(
        HEAD, ((code(f"config.{f.name}"), f.kind, f.unit, code(f.default), plain(f.meaning)) for f in rows)
    )
