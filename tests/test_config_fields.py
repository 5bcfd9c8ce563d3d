"""Every field of every recipe is read by some job: an option that nothing reads promises what does not happen.

Jobs run for real on a few small phantoms, one after the other, while every read of the configuration is noted. A whole
section taken with `to_dict` counts as read where it is handed to a function, not where it is only kept or compared.
"""

import collections
import contextlib
import importlib
import pathlib
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from configs import pretrain as pretraining
from configs import swin_bob
from tests import tiny_network
from tests.conftest import ROOT
from tests.inference.networks import CARD, Bands, scan
from tests.inference.nnunet import tiny
from tools.site import formats
from ukbob_jax import devices, jobs, settings
from ukbob_jax.errors import UkbobError
from ukbob_jax.inference.segmenter import Segmenter
from ukbob_jax.jobs import active, demo, pretrain, semi, train
from ukbob_jax.volumes.nifti import write_volume
from ukbob_jax.volumes.volume import Volume

# Modules that keep, copy or compare a configuration and act on none of it.
KEEPERS = ("json", "ml_collections", "ukbob_jax.files", "ukbob_jax.training.provenance", "ukbob_jax.settings")
RECIPES = {
    path.stem: module
    for path in sorted((ROOT / "configs").glob("*.py"))
    if hasattr(module := importlib.import_module(f"configs.{path.stem}"), "get_config")
}
PHANTOMS = "swin_bob:demo", "workers=1", "source.shape=(32,24,48)", "source.count=14", "source.splits.val=2"
TINY = (
    "data.crop=(32,32,32)", "data.batch_size=2", "data.threads=2", "mesh.data=1", "augment=('intensity',)",
    "inference.overlap=0.0", "epochs.total=0", "train.steps=1", "train.log_every=1", "train.eval_every=1",
    "train.checkpoint_every=1", "optimizer.warmup_steps=0", "organs=('liver',)",
)  # fmt: skip

BY_OTHERS = {"decisions", "failures", "damaged"}  # schemas of files that these jobs leave none of: tests/site
MAY_BE_EMPTY = {"fix", "missing"}


class Section(dict):
    """A section as a dictionary that notes its reads, those of `dict(section)` and `**section` among them."""

    def __init__(self, name: str, values: dict[str, Any], reads: set[str]) -> None:
        inner = {k: Section(f"{name}{k}.", v, reads) for k, v in values.items() if isinstance(v, dict)}
        super().__init__({**values, **inner})
        self.reads = reads
        # The leaves below each key; the whole configuration is no section, so what it holds is not read with it.
        self.names = {k: {f"{name}{k}"} for k in values.keys() - inner.keys()}
        self.names |= {k: part.all() if name else set() for k, part in inner.items()}

    def all(self) -> set[str]:
        return set().union(*self.names.values())

    def note(self, names: set[str]) -> None:
        if not _caller().f_globals["__name__"].startswith(KEEPERS):
            self.reads |= names

    def note_one(self, key: str) -> None:
        if key in self and not isinstance(super().__getitem__(key), Section):
            self.note(self.names[key])

    def __getitem__(self, key: str) -> Any:
        self.note_one(key)
        return super().__getitem__(key)

    def __iter__(self) -> Iterator[str]:  # without it, `**section` would copy behind our back
        self.note(self.all())
        return super().__iter__()

    def get(self, key: str, default: Any = None) -> Any:
        self.note_one(key)
        return super().get(key, default)

    def pop(self, key: str, *default: Any) -> Any:
        self.note_one(key)
        return super().pop(key, *default)

    def keys(self) -> Any:
        self.note(self.all())
        return super().keys()

    def items(self) -> Any:
        self.note(self.all())
        return super().items()


def _caller() -> FrameType:
    """The nearest frame outside this file."""
    frame = sys._getframe()
    while frame.f_back and frame.f_globals is globals():
        frame = frame.f_back
    return frame


@contextlib.contextmanager
def noted(reads: set[str]) -> Iterator[None]:
    """Dotted names of the fields that are read meanwhile, by whatever part of the package, into `reads`."""
    item, to_dict = ml_collections.ConfigDict.__getitem__, ml_collections.ConfigDict.to_dict
    quiet = []  # while a section becomes a dictionary

    def get(self, key):
        value, name = item(self, key), f"{self.__dict__.get('_name', '')}{key}"
        if isinstance(value, ml_collections.ConfigDict):
            object.__setattr__(value, "_name", f"{name}.")
        if not quiet and (not isinstance(value, ml_collections.ConfigDict) or not len(value)):
            reads.add(name)
        return value

    def as_dict(self, *args, **options):
        quiet.append(1)
        try:
            values = to_dict(self, *args, **options)
        finally:
            quiet.pop()
        return values if quiet else Section(self.__dict__.get("_name", ""), values, reads)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ml_collections.ConfigDict, "__getitem__", get)
        patch.setattr(ml_collections.ConfigDict, "to_dict", as_dict)
        yield


def run(reads: set[str], workdir: pathlib.Path, recipe: str, *words: str) -> None:
    """One command line, from the recipe's name and its overrides; errors of the user's are raised."""
    name, _, variant = recipe.partition(":")
    path = f"{ROOT}/configs/{name}.py" + (f":{variant}" if variant else "")
    argv = [f"--config={path}", f"--workdir={workdir}", *(f"--config.{word}" for word in words)]
    config, options = settings.parse(argv, usage="")
    config = settings.resolve(config, workdir)
    workdir.mkdir(exist_ok=True, parents=True)
    with noted(reads):
        devices.start(config, options)
        for job in jobs.names(config):
            jobs.find(job).run(config, str(workdir))


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> pathlib.Path:
    """Folder of all that the jobs write."""
    return tmp_path_factory.mktemp("fields")


@pytest.fixture(scope="module")
def reads(root, quick_compilation) -> set[str]:
    """The fields that are read while every job runs once or more."""
    reads: set[str] = set()
    store, quality = f"store={root}/store", root / "store" / "quality" / "auto"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UKBOB_CACHE", "off")
        for step in (cohort, files, training, graders, choosing, networks):
            step(reads, root, store, quality, patch)
    return reads


def cohort(reads, root, store, quality, patch) -> None:
    """Phantoms into a store, their labels filtered, compared, reported."""
    run(reads, root / "a", *PHANTOMS, "job=ingest", store)
    run(reads, root / "a", "inspect:phantom", "source.count=1", "source.shape=(32,24,48)")
    run(reads, root / "a", "solf", store, "solf.min_count=3", "solf.strata=('sex',)")
    run(reads, root / "a", "solf", store, "job=solf", "solf.rule=robust", "solf.min_count=3")
    run(reads, root / "a", "solf", store, "job=solf", f"solf.limits={quality}/limits.json")
    run(reads, root / "a", "label:agreement", store)
    run(
        reads,
        root / "a",
        "radiomics",
        store,
        "radiomics.contrast=water",
        "radiomics.families=('firstorder',)",
    )
    run(reads, root / "a", "export2d", store, "label=auto", "workers=1", "export2d.axes=('z',)")
    sets = (
        "frd.where=split=train",
        "frd.other_where=split=val",
        "frd.contrast=water",
        "frd.version=v0",
        "frd.draws=1",
    )
    run(reads, root / "a", "frd", store, *sets)
    run(reads, root / "a", *PHANTOMS, "job=verify,report", store)


def files(reads, root, store, quality, patch) -> None:
    """Scans in files: looked at, ingested, judged."""
    label, image = (
        scan().array // 20,
        Volume(scan().array // 2, scan().affine),
    )  # labels too, for the labeller
    write_volume(root / "images" / "s.nii.gz", image)
    write_volume(root / "labels" / "s.nii.gz", Volume(label.astype(np.uint8), scan().affine))
    paths = f"source.paths.images={root}/images", f"source.paths.labels={root}/labels"
    run(reads, root / "b", "inspect", *paths)
    run(reads, root / "b", "finetune", "job=ingest", "workers=1", *paths)
    run(
        reads,
        root / "b",
        "solf:check_labels",
        f"check_labels.inputs={root}/labels",
        f"check_labels.limits={quality}/limits.json",
    )
    for recipe in (
        "amos",
        "btcv",
        "brats",
        "ingest_ukb",
        "ingest_openmind",
        "ingest_sa_med2d",
        "dwi",
        "inspect:ukb",
        "inspect:root",
        "nnunet",
    ):
        with pytest.raises(
            UkbobError
        ):  # their data are not here; the fields of the source are handed over before
            run(reads, root / "c", recipe)


class Reached(Exception):
    """The step of a training is about to be compiled: all of its recipe has been read."""


def training(reads, root, store, quality, patch) -> None:
    """A step of a tiny network; then what other recipes and Swin-UNETR read before their first step."""
    tiny = f"model.name={tiny_network.__name__}"
    run(reads, root / "d", "swin_bob", store, "data.val_label=auto", tiny, *TINY)

    def stop(*_, **__):
        raise Reached

    patch.setattr(train, "train_step", stop)
    more = "folds=3", "loss.name=dice_ce", "balance=0.5", f"init={root}/d/checkpoints", "init_new=('head',)"
    with pytest.raises(Reached):
        run(reads, root / "e", "swin_bob", store, tiny, *TINY, *more, "epochs.total=1", "epochs.crops=1")
    with pytest.raises(Reached):
        run(reads, root / "f", "swin_bob", store, *TINY)
    patch.setattr(pretrain, "train_step", stop)
    for method in pretraining.VARIANTS:
        with pytest.raises(Reached):
            run(reads, root / "g" / method, f"pretrain:{method}", store, tiny, *TINY)
    with pytest.raises(UkbobError, match="has 14 classes"):
        run(
            reads,
            root / "e",
            "btcv",
            store,
            "job=train",
            "label=auto",
            "splits=",
            *TINY,
            "model.out_channels=73",
            "data.normalize=zscore",  # the phantom is no CT
        )


def choosing(reads, root, store, quality, patch) -> None:
    """A round of active learning whose trainings are passed over, and a query by a network that a step trained."""
    few = "active.start=1", "active.rounds=0", "active.seeds=(0,)", "active.strategies=('random',)"
    given = store, "label=auto", f"model.name={tiny_network.__name__}", *TINY, "model.out_channels=73"
    with pytest.MonkeyPatch.context() as passed_over:
        passed_over.setattr(active, "learn", lambda config, *_: config.active.members / 10)
        run(reads, root / "h", "active", *given, *few)
        passed_over.setattr(semi.learning, "learn", lambda *_, **__: 0.5)
        (root / "j" / "seed0" / "none").mkdir(parents=True)
        (root / "j" / "seed0" / "none" / "member0").symlink_to(root / "d")
        few = "semi.labelled=1", "semi.seeds=(0,)", "semi.methods=('random',)"
        run(reads, root / "j", "semi", *given, *few)
    asked = f"query.workdirs=('{root}/d',)", "label=by_hand", "active.strategies=('entropy',)"
    run(reads, root / "i", "active:query", store, *asked, "active.budget=1", "inference.overlap=0.0")


def graders(reads, root, store, quality, patch) -> None:
    """A step of both graders; the last is evaluated, and grades the store."""
    skipped = "augment", "data.crop", "inference", "organs"
    tiny = [word for word in TINY if not word.startswith(skipped)]
    unet = "n_stages=2", "features_per_stage=(4,4)", "strides=(1,2)"
    small = "label=auto", "data.contrasts=('water',)", "sentinel.size=16", "sentinel.val_pairs=2"
    fields = {
        "cubes": ("sentinel.pairing=neighbours", *(f"model.network_fields.{field}" for field in unet)),
        "slices": ("model.depths=(1,)", "model.width=4"),
    }
    for kind, own in fields.items():
        run(reads, root / "s" / kind, f"sentinel:{kind}", store, *tiny, *small, *own)
    use = store, *small, f"sentinel.grader={root}/s/slices"
    run(reads, root / "s" / "evaluate", "sentinel:evaluate", *use)
    run(reads, root / "s" / "grade", "sentinel:grade", *use)


def networks(reads, root, store, quality, patch) -> None:
    """What is done with a trained network, here one whose answer is known; and a labeller that is another program."""
    params = Bands().init(jax.random.key(0), jnp.zeros((1, 8, 8, 8, 1)))["params"]
    patch.setattr(Segmenter, "load", lambda *_, **__: Segmenter(Bands(), params, CARD))
    evaluate = "swin_bob", store, "job=evaluate", "evaluate.split=val"
    run(reads, root / "a", *evaluate, "evaluate.methods=('off','etta','tent')")
    with pytest.raises(UkbobError, match="batch norm"):
        run(reads, root / "a", *evaluate, "evaluate.methods=('bn',)")
    images = f"predict.inputs={root}/images"
    run(reads, root / "a", "swin_bob", store, "job=predict", images, "predict.method=etta")
    run(reads, root / "a", "label:teacher", store, "labeller.name=teacher", "labeller.method=etta")
    folder = tiny.folder(root / "model", change=coarse, by_torch=False)
    theirs = f"labeller.model={folder}", "labeller.name=nnunet", "labeller.contrasts=('water',)"
    run(reads, root / "a", "label:nnunet", store, *theirs)
    copy = f"{sys.executable} -c 'import shutil,sys;shutil.copy(*sys.argv[1:])' {{input}} {{output}}"
    run(reads, root / "a", "label", f"store={root}/b/store", "labeller.name=copy", f"labeller.command={copy}")
    with noted(reads):
        demo.tests(swin_bob.get_config("demo"))  # the stores it scores on; its stages have run above


def coarse(found) -> None:
    """Few tiles and features for a model folder of nnU-Net."""
    tiny.narrow(found)
    found["configurations"]["3d_fullres"]["spacing"] = [20.0, 20.0, 20.0]


def test_every_field_of_every_recipe_is_read_by_a_job(reads):
    fields = {
        name: recipe
        for recipe, module in RECIPES.items()
        for variant in module.VARIANTS
        for name, _ in settings.fields(module.get_config(variant))
    }
    unread = sorted(f"{name} ({fields[name]})" for name in fields.keys() - reads)
    assert not unread, f"no job reads {', '.join(unread)}"


def test_files_that_jobs_write_are_as_their_schemas_say(reads, root):
    seen = collections.Counter()
    for path in root.rglob("*.json*"):
        if name := formats.of(path):
            seen[name] += formats.check_file(name, path)
    rows = formats.schemas().keys() - BY_OTHERS
    assert all(seen[name] for name in rows - MAY_BE_EMPTY), rows - MAY_BE_EMPTY - seen.keys()


def test_a_field_that_nobody_reads_is_noticed():
    reads: set[str] = set()
    config = ml_collections.ConfigDict({"used": 1, "unused": 2, "handed": {"a": 1}, "kept": {"b": 2}})
    with noted(reads):
        config = ml_collections.ConfigDict(config.to_dict())
        assert config.used == 1 and dict(**config.handed.to_dict()) == {"a": 1}
        assert config.kept.to_json() == '{"b": 2}' and config.to_json()
    assert reads == {"used", "handed.a"}
