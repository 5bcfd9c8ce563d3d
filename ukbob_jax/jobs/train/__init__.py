"""Train Swin-UNETR on a store's labels, without those that SOLF rejects, and score it on held-out subjects.

The same command resumes: an interrupted training goes on from its last checkpoint, a finished one is passed over.
"""

import dataclasses
import functools
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from ukbob_jax import anatomy, files, splits, weights
from ukbob_jax.data import augment, pipeline
from ukbob_jax.data.unpack import unpack
from ukbob_jax.errors import ConfigError
from ukbob_jax.jobs.train import checks
from ukbob_jax.jobs.train.validation import validator
from ukbob_jax.models.swin_unetr.network import MULTIPLE, SwinUNETR
from ukbob_jax.quality.verdicts import flagged_organs
from ukbob_jax.regions import Regions, brats
from ukbob_jax.store.reader import Store
from ukbob_jax.training import loop, losses, optimizer, provenance, sharding
from ukbob_jax.training import state as states
from ukbob_jax.training.state import TrainState
from ukbob_jax.training.step import train_step

# Names in `config.init_new` -> options of `weights.read`.
NEW_PARTS = {
    "head": {"head": "new"},
    "stem": {"stem": "new"},
    "stem_average": {"stem": "average"},
    "decoder": {"new": "^(encoder|decoder|out)"},
}
SAME_SPACING = 0.01  # share by which spacings may differ and count as one
COUNTED = 32  # label maps whose voxels are counted for `config.balance`
# Fields of `config.train` for the loop; the step takes the others.
PLANNED = {field.name for field in dataclasses.fields(loop.Plan)}


def run(config: ml_collections.ConfigDict, workdir: str) -> None:
    """Train to `config.train.steps`; everything is written into `workdir`.

    Raises:
        ConfigError: a field cannot be used, or `workdir` was made with others.
        FileError: no store, no SOLF verdicts, damaged data or weights, or a disk that is full.
        Preempted: asked to stop; the same command goes on.
    """
    checks.numbers(config)
    data = config.data
    store = Store.open(data.store)
    subjects, held_out = splits.choose(config, store, workdir)
    checks.labels(config, store, subjects, held_out)
    regions = tumour(config, store, subjects)
    config = fitted(config, store, subjects, regions)
    flagged = {} if data.flagged == "off" else flagged_organs(data.store, data.label, data.verdicts)
    contrasts = tuple(data.contrasts) or tuple(store.rows[subjects[0]]["contrasts"])
    names = regions.labels if regions else class_names(config)
    lookup = anatomy.to_names(names) if data.organs else None
    checks.network(config, store, subjects, contrasts, regions)
    model = SwinUNETR.from_config(config.model.to_dict())
    tx = optimizer.build(**config.optimizer, steps=config.train.steps)
    mesh = sharding.make_mesh(**config.mesh, batch_size=data.batch_size // config.train.accumulate)
    content = fingerprint(store, subjects, data.label, flagged)

    print(f"train: {len(subjects)} subjects, {mesh.size} of {len(jax.devices())} devices", file=sys.stderr)
    small = (1, *(MULTIPLE,) * 3, len(contrasts))
    validate = functools.partial(validator, config, store, held_out, model, mesh, names, contrasts, regions)
    loop.fit(
        init=functools.partial(
            states.init, model=model, optimizer=tx, image_shape=small, ema=config.train.ema > 0
        ),
        replace=functools.partial(load, config, model, names, workdir) if config.init else None,
        step=functools.partial(
            train_step,
            model=model,
            optimizer=tx,
            loss_fn=loss(config, store, subjects, lookup, regions),
            augment=on_device(config.augment, names, middle_spacing(store, subjects)),
            accumulate=config.train.accumulate,
            ema=config.train.ema,
        ),
        batches=functools.partial(batches, config, store, subjects, flagged, contrasts, lookup),
        evaluate=validate() if held_out else None,
        plan=loop.Plan(**{name: value for name, value in config.train.items() if name in PLANNED}),
        mesh=mesh,
        seed=config.seed,
        workdir=workdir,
        recipe=provenance.recipe(config.to_dict(), content),
        meta=weights.describe(
            model,
            labels={str(i): name for i, name in names.items()},
            regions=regions.to_json() if regions else None,
            spacing_mm=common_spacing(store, subjects),
            normalize=data.normalize,
            contrasts=list(contrasts),
            roi=list(data.crop),
            provenance={"store": store.path, "label": data.label, "flagged": data.flagged, "data": content},
        ),
        subjects=subjects,
        batch_size=data.batch_size,
        accepted=functools.partial(files.write_json, pathlib.Path(workdir) / "config.json", config.to_dict()),
    )


def batches(
    config: ml_collections.ConfigDict, store: Store, subjects: tuple[str, ...], flagged: Mapping[str, set[int]],
    contrasts: tuple[str, ...], lookup: np.ndarray | None, start_step: int,
) -> Any:  # fmt: skip
    """This process's share of the endless stream of batches."""
    data = config.data
    return pipeline.batches(
        store, subjects=subjects, label=data.label, crop=tuple(data.crop), batch_size=data.batch_size,
        seed=config.seed, start_step=start_step, foreground=data.foreground, normalize=data.normalize,
        contrasts=contrasts, flagged=flagged, flagged_action="ignore" if data.flagged == "off" else data.flagged,
        label_map=lookup, num_classes=256 if config.regions else config.model.out_channels,
        process=jax.process_index(), processes=jax.process_count(),
        threads=data.threads, workers=data.workers, packed=True, damaged=data.damaged,
    )  # fmt: skip


def on_device(
    steps: tuple[str, ...], classes: dict[int, str], spacing_mm: Sequence[float]
) -> Callable[[jax.Array, dict[str, jax.Array]], dict[str, jax.Array]]:
    """(key, packed batch) -> what the network learns from: unpacked, then changed by the augmentations named.

    An affine turns by angles that are true in mm at `spacing_mm`; a rot90 asks for the same spacing along x and y.
    A flip exchanges the ids of the two sides among `classes` (id -> name); where one side of a pair was not looked for,
    neither is learnt from, since either may be shown as the other.

    Raises:
        ConfigError: an unknown augmentation, a rot90 of voxels that are not square, or a flip of classes whose sides
            are not known.
    """
    x_mm, y_mm, _ = spacing_mm
    if "rot90" in steps and abs(x_mm - y_mm) > SAME_SPACING * x_mm:
        raise ConfigError(
            f"augmentation rot90: voxels of {x_mm:g} x {y_mm:g} mm are not square in x and y. Leave it out."
        )
    affine = functools.partial(augment.affine, spacing_mm=tuple(spacing_mm))
    if "flip" not in steps:
        turned = (affine if step == "affine" else step for step in steps)
        change = augment.compose(*turned) if steps else lambda _, batch: batch
        return lambda key, batch: change(key, unpack(batch))
    mirror = anatomy.mirror_lookup(classes)
    own = {"affine": affine, "flip": functools.partial(augment.flip, mirror=mirror)}
    chain = augment.compose(*(own.get(step, step) for step in steps))

    def flipped(key: jax.Array, packed: dict[str, jax.Array]) -> dict[str, jax.Array]:
        batch = unpack(packed)
        if "annotated" in batch:
            k = batch["annotated"].shape[1]  # b k
            other = np.where(mirror[:k] < k, mirror[:k], np.arange(k))
            batch["annotated"] &= batch["annotated"][:, other]
        return chain(key, batch)

    return flipped


def loss(
    config: ml_collections.ConfigDict, store: Store, subjects: tuple[str, ...], lookup: np.ndarray | None,
    regions: Regions | None = None,
) -> Callable[..., jax.Array]:  # fmt: skip
    """The function `config.loss` names, at every size the network gives logits of."""
    chosen = class_loss(config, store, subjects, lookup, regions)
    return losses.deep(chosen) if config.model.deep_supervision else chosen


def class_loss(
    config: ml_collections.ConfigDict, store: Store, subjects: tuple[str, ...], lookup: np.ndarray | None,
    regions: Regions | None,
) -> Callable[..., jax.Array]:  # fmt: skip
    """The function `config.loss` names; with `config.balance`, cross entropy weighs rare classes more."""
    if config.loss not in losses.LABEL_LOSSES:
        raise ConfigError(
            f"config.loss: {config.loss!r} is unknown; choose one of {', '.join(losses.LABEL_LOSSES)}."
        )
    chosen = losses.LABEL_LOSSES[config.loss]
    if regions:
        if config.loss != "dice_bce":
            raise ConfigError(
                f"config.loss: {config.loss!r} wants classes that exclude each other; regions: dice_bce."
            )
        chosen = functools.partial(losses.dice_bce_regions, regions=regions.values)
    if not config.balance:
        return chosen
    if config.loss != "dice_ce":
        raise ConfigError(f"config.balance: weighs cross entropy, which {config.loss} has not; set it to 0.")
    counts = np.zeros(config.model.out_channels)
    for subject in subjects[:COUNTED]:
        label = store.read(subject, f"label/{config.data.label}")
        label = label if lookup is None else lookup[label]
        counts += np.bincount(label[label != anatomy.IGNORE], minlength=len(counts))
    factors = (counts / counts.sum() + 1e-6) ** -config.balance
    return functools.partial(chosen, ce_weight=tuple((factors * counts.sum() / (factors @ counts)).tolist()))


def load(
    config: ml_collections.ConfigDict,
    model: SwinUNETR,
    names: dict[int, str],
    workdir: str,
    state: TrainState,
) -> TrainState:
    """`state` with the weights in `config.init`; what of the network they cover is printed and kept in `init.txt`.

    Raises:
        ConfigError: a part in `config.init_new` there is not.
        MismatchError: naming every tensor that does not fit and may not start afresh.
    """
    if unknown := set(config.init_new) - NEW_PARTS.keys():
        raise ConfigError(
            f"config.init_new: {sorted(unknown)[0]!r} is unknown; choose from {', '.join(NEW_PARTS)}."
        )
    options = {name: value for part in config.init_new for name, value in NEW_PARTS[part].items()}
    labels = {str(i): name for i, name in names.items()}
    fresh = jax.device_get(state.params) if jax.process_count() == 1 else None
    loaded = weights.read(config.init, model, init=fresh, labels=labels, seed=config.seed, **options)
    report = loaded.report
    print(
        f"train: {config.init}: {len(report.matched)} tensors taken, {len(report.new)} start afresh, "
        f"{len(report.left_out)} not used; listed in init.txt",
        file=sys.stderr,
    )
    if jax.process_index() == 0:
        files.write_bytes(pathlib.Path(workdir) / "init.txt", f"{config.init}\n{report}\n".encode())
    params = {**state.params, **loaded.params}  # heads for deep supervision start afresh: no file has them
    return state.replace(
        params=params,
        model_state=loaded.model_state or state.model_state,
        ema=jax.tree.map(jnp.copy, params) if state.ema else {},
    )


def class_names(config: ml_collections.ConfigDict) -> dict[int, str]:
    """Id -> name of the network's classes: `config.data.organs`, or the label set `config.data.names`, by default ours."""
    if config.data.organs:
        unknown = [name for name in config.data.organs if name not in anatomy.IDS]
        if unknown:
            raise ConfigError(
                f"config.data.organs: {unknown[0]!r} is not a structure; `ukbob_jax.anatomy` lists them."
            )
        return dict(enumerate((anatomy.NAMES[0], *config.data.organs)))
    chosen, k = config.data.get("names", ""), config.model.out_channels
    if chosen and chosen not in anatomy.DATASETS:
        raise ConfigError(
            f"config.data.names: {chosen!r} is unknown; choose from {', '.join(anatomy.DATASETS)}."
        )
    known = anatomy.DATASETS[chosen] if chosen else anatomy.NAMES
    if not chosen and k != anatomy.NUM_CLASSES:
        return {0: "background", **{i: f"class_{i}" for i in range(1, k)}}
    if len(known) != k:
        raise ConfigError(
            f"config.model.out_channels is {k}, but {chosen or 'our label set'} has {len(known)} classes."
        )
    return dict(known)


def tumour(config: ml_collections.ConfigDict, store: Store, subjects: tuple[str, ...]) -> Regions | None:
    """The regions to learn in place of classes, if the recipe says so."""
    if not config.regions:
        return None
    return brats(config.regions, {value for s in subjects for value in store.present(s, config.data.label)})


def fitted(
    config: ml_collections.ConfigDict, store: Store, subjects: tuple[str, ...], regions: Regions | None = None
) -> ml_collections.ConfigDict:
    """The recipe with what was left to the data filled in: channels (0), steps and warm-up in epochs."""
    config = ml_collections.ConfigDict(config.to_dict())
    if config.model.in_channels == 0:
        config.model.in_channels = len(config.data.contrasts or store.rows[subjects[0]]["contrasts"])
    if config.epochs.total:
        length = config.epochs.crops * len(subjects) / config.data.batch_size  # steps
        config.train.steps = max(1, round(config.epochs.total * length))
        config.optimizer.warmup_steps = min(round(config.epochs.warmup * length), config.train.steps - 1)
    if config.model.out_channels == 0 and regions:
        config.model.out_channels = len(regions.names)
    if config.model.out_channels == 0 and config.data.organs:
        config.model.out_channels = 1 + len(config.data.organs)
    if config.model.out_channels == 0:
        present = (max(store.present(s, config.data.label), default=0) for s in subjects)
        config.model.out_channels = 1 + max(present)
    return config


def fingerprint(store: Store, subjects: tuple[str, ...], label: str, flagged: Mapping[str, set[int]]) -> str:
    """Of what is learnt from: sources, versions of the arrays, organs left out. Other label sets do not count."""
    rows = ((subject, store.rows[subject]) for subject in subjects)
    what = [
        [subject, row["source"], row["folders"]["image"], row["folders"][f"label/{label}"]]
        + sorted(flagged.get(subject, ()))
        for subject, row in rows
    ]
    return files.fingerprint([what], 12)


def middle_spacing(store: Store, subjects: tuple[str, ...]) -> list[float]:
    """Median over the subjects of each axis's spacing, mm."""
    return np.median([store.rows[subject]["spacing_mm"] for subject in subjects], axis=0).tolist()


def common_spacing(store: Store, subjects: tuple[str, ...]) -> list[float] | None:
    """Spacing in mm that all subjects share, for inference to resample to; None: they differ."""
    spacings = np.array([store.rows[subject]["spacing_mm"] for subject in subjects])
    middle = np.median(spacings, axis=0)
    return middle.tolist() if np.all(np.abs(spacings - middle) <= SAME_SPACING * middle) else None
