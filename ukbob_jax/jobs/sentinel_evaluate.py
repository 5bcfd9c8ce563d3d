"""Evaluate a trained grader on the held-out subjects of a store: `sentinel_evaluation.json` and `report/index.html`."""

import pathlib
import sys

import ml_collections

from ukbob_jax import files
from ukbob_jax.data.options import Config
from ukbob_jax.errors import ConfigError
from ukbob_jax.sentinel import assess, setup, trained
from ukbob_jax.sentinel.options import SentinelOptions
from ukbob_jax.sentinel.setup import Setup

FILE = "sentinel_evaluation.json"


def run(config: Config, workdir: str) -> None:
    """Grade masks of the subjects of `config.data.val_split`, with errors made on purpose, by `config.sentinel.grader`.

    Organs that the grader's training held out count as never seen.

    Raises:
        ConfigError: a field cannot be used, or nobody is held out.
        FileError: no grader there, or no store.
        MismatchError: a class has no embedding, or the scans are of another modality.
    """
    options = SentinelOptions(**config.sentinel)
    grader = trained.open_grader(options.grader, options.embeddings, options.modality, options.rule)
    config = ml_collections.ConfigDict(config.to_dict())
    config.data.contrasts = tuple(config.data.contrasts) or ((grader.contrast,) if grader.contrast else ())
    data = setup.open_data(config, workdir)
    setup.check_modality(data.store, data.held_out, grader.sight.modality)
    organs = {c for subject in data.held_out for c in data.store.present(subject, config.label)}
    if grader.embeddings is not None:
        grader.embeddings.of(sorted(organs))
    elif max(organs, default=0) >= grader.num_classes:
        raise ConfigError(
            f"config.label: class {max(organs)} is unknown to the grader, which has {grader.num_classes}."
        )
    ids = {name: i for i, name in data.names.items() if i}
    unseen = tuple(ids[name] for name in grader.facts.get("held_out_organs", ()) if name in ids)
    contrast, classes = setup.one_contrast(data), setup.chosen(config, ids) | set(unseen)
    made = Setup(
        options,
        data,
        contrast,
        grader.embeddings,
        grader.model,
        grader.sight,
        grader.num_classes,
        unseen,
        classes,
    )
    predict = assess.predictor(grader.model, made.vectors, grader.sight.kind)
    parts = made.held_out("evaluation", config.seed)
    found = assess.assess(predict, grader.variables, parts, data.held_out, options, unseen, grader.calibrated)
    folder = pathlib.Path(workdir)
    said = {
        "grader": options.grader,
        "digest": grader.digest,
        "store": pathlib.Path(data.store.path).name,
        "label": config.label,
        "masks": len(found.masks.dice),
        "interval": found.interval,
        "covered": found.covered,
        "scores": found.numbers,
    }
    files.write_json(folder / FILE, setup.finite(said))
    count = len(set(found.masks.subject))
    title = f"A trained grader on {count} held-out subjects. Everything below was computed by this run."
    page = assess.write(folder / "report", found, options, title)
    print(f"sentinel_evaluate: r {found.numbers['r']:.3f}; {page}", file=sys.stderr)
