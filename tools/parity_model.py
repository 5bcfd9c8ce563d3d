"""Swin-UNETR here against MONAI's stored values, as a table.

    python -m tools.parity_model --reference REFERENCE [--tags A B C D E] [--gradients A C]

REFERENCE is a folder with `swin_unetr/` as its README describes: weights and inputs by formula, outputs of MONAI 1.6.1 on
PyTorch. Columns: largest and mean absolute difference of the logits, largest of the five encoder maps, largest of the
bfloat16 policy against our own float32, parameters, and the largest relative difference of any parameter's gradient.
"""

import argparse
import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from tests.models.cases import Case
from tests.models.swin_unetr.test_gradients import monais_steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reference", type=pathlib.Path, required=True)
    parser.add_argument("--tags", nargs="+", default=list("ABCDE"))
    parser.add_argument("--gradients", nargs="*", default=["A", "C"])
    options = parser.parse_args()
    print(
        "| model | input | parameters | logits max | mean | encoder maps max | bfloat16 max | mean | gradients |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for tag in options.tags:
        case = Case(options.reference, tag)
        gradient = f"{gradients(case):.1e}" if tag in options.gradients else ""
        cells = [
            described(case.model),
            " x ".join(map(str, case.image.shape)),
            parameters(case),
            *forward(case),
        ]
        print("|", " | ".join([*cells, *bfloat16(case), gradient]), "|", flush=True)


def described(model: object) -> str:
    """What differs from MONAI's defaults."""
    default = type(model)(model.in_channels, model.out_channels)
    fields = [
        field.name
        for field in dataclasses.fields(model)
        if field.name not in ("parent", "name", "in_channels")
    ]
    values = {name: getattr(model, name) for name in fields if getattr(model, name) != getattr(default, name)}
    return ", ".join(f"{name} {value}" for name, value in values.items())


def parameters(case: Case) -> str:
    return f"{sum(leaf.size for leaf in jax.tree.leaves(case.params)):,}"


def forward(case: Case) -> list[str]:
    """Differences of the logits and of the encoder's maps."""
    logits, hidden = case.results
    theirs = case.expected["output_sub"]
    difference = np.abs(case.thinned(logits, theirs) - theirs)
    maps = []
    for number, ours in enumerate(hidden):
        theirs = case.expected.get(f"hidden{number}", case.expected.get(f"hidden{number}_sub"))
        maps.append(np.abs(case.thinned(ours, theirs) - theirs).max())
    return [f"{difference.max():.1e}", f"{difference.mean():.1e}", f"{max(maps):.1e}"]


def bfloat16(case: Case) -> list[str]:
    model = dataclasses.replace(case.model, dtype=jnp.bfloat16)
    logits = jax.jit(model.apply)({"params": case.params}, case.image)
    difference = np.abs(np.asarray(logits) - case.results[0])
    return [f"{difference.max():.3f}", f"{difference.mean():.4f}"]


def gradients(case: Case) -> float:
    """Largest relative difference in norm or projection of any parameter's gradient, both sides in float64."""
    stored = json.loads((case.folder / f"swin_{case.tag}_grads.json").read_text())["float64"]["grads"]
    with jax.enable_x64(True):
        _, ours = monais_steps(case, jnp.float64)
    worst = 0.0
    for name, facts in stored.items():
        if facts is not None:
            norm, along = np.sqrt((ours[name] ** 2).sum()), case.formulas.projection(ours[name])
            worst = max(
                worst, max(abs(norm - facts["l2"]), abs(along - facts["proj"])) / max(facts["l2"], 1e-12)
            )
    return worst


if __name__ == "__main__":
    main()
