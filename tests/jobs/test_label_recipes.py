"""The command lines that docs/labels.md gives for public labellers, run with programs that take the same options."""

import ast
import re
import shlex
import stat
import sys

import numpy as np
import pytest

import ukbob_jax as bob
from configs import common
from tests.conftest import ROOT
from tests.inference.nnunet import tiny
from ukbob_jax import anatomy, settings
from ukbob_jax.inference.preset_names import PRESETS
from ukbob_jax.jobs import label
from ukbob_jax.labelling import merge
from ukbob_jax.store.reader import Store
from ukbob_jax.store.writer import StoreWriter
from ukbob_jax.volumes.volume import Volume

SHAPE, AFFINE = (6, 5, 4), np.diag([2.0, 2.0, 3.0, 1.0])
CONTRASTS = ("in_phase", "opposed_phase", "water")
# Options as the programs' own parsers have them; every voxel above 50 becomes class 5, the liver of either.
PROGRAM = """#!{python}
import argparse, nibabel, numpy
parser = argparse.ArgumentParser(allow_abbrev=False)
{options}
found = parser.parse_args()
{check}
image = nibabel.load(found.input)
labels = numpy.where(numpy.asanyarray(image.dataobj) > 50, 5, 0).astype("uint8")
nibabel.save(nibabel.Nifti1Image(labels, image.affine), found.output)
"""
TOTALSEGMENTATOR = """
parser.add_argument("-i", dest="input", required=True)
parser.add_argument("-o", dest="output", required=True)
parser.add_argument("-ml", "--ml", action="store_true")
parser.add_argument("-ta", "--task", choices=["total", "total_mr"], default="total")
"""
VIBESEGMENTATOR = """
parser.add_argument("--img", dest="input", required=True)
parser.add_argument("--out_path", dest="output", required=True)
parser.add_argument("--dataset_id", type=int)
"""


def program(path, options: str, check: str):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(PROGRAM.format(python=sys.executable, options=options, check=check))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def recipe(title: str) -> dict[str, str]:
    """Settings of the labeller in the first block of a section of the page."""
    text = (ROOT / "docs" / "labels.md").read_text().split(f"### {title}", 1)[1]
    words = shlex.split(re.search(r"```bash\n(.*?)```", text, re.S)[1].replace("\\\n", " "))
    return dict(word.removeprefix("--config.labeller.").split("=", 1) for word in words)


@pytest.fixture
def store(tmp_path) -> Store:
    with StoreWriter(tmp_path / "store") as writer:
        image = np.random.default_rng(0).integers(0, 73, (*SHAPE, 3)).astype(np.int16)
        writer.write("s0", image, AFFINE, {}, source="0", contrasts=CONTRASTS, attributes={"sex": "F"})
    return Store.open(tmp_path / "store")


def run(store: Store, workdir, settings: dict[str, str]) -> np.ndarray:
    config = common.base()
    config.store = store.path
    config.labeller.update(settings | {"contrasts": ast.literal_eval(settings["contrasts"])})
    label.run(config.copy_and_resolve_references(), str(workdir))
    return Store.open(store.path).read("s0", "label/auto")


def test_the_recipe_for_totalsegmentator(store, tmp_path, monkeypatch):
    check = "assert found.ml and found.task == 'total_mr'"
    program(tmp_path / "bin" / "TotalSegmentator", TOTALSEGMENTATOR, check)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    found = run(store, tmp_path, recipe("TotalSegmentator"))
    expected = np.where(store.read("s0", "image")[..., 0] > 50, anatomy.IDS["liver"], 0)
    np.testing.assert_array_equal(found, expected)


def test_the_recipe_for_totalvibesegmentator(store, tmp_path):
    program(tmp_path / "run_VIBESegmentator.py", VIBESEGMENTATOR, "assert found.dataset_id == 100")
    settings = recipe("TotalVibeSegmentator (VIBESegmentator)")
    assert settings["version"] == "100" and settings["merge"] == "rules"
    command = settings["command"].replace("/opt/VIBESegmentator", str(tmp_path))
    settings |= {"command": command.replace("python ", f"{sys.executable} ", 1), "merge": "first"}
    found = run(store, tmp_path, settings)  # "rules" would take away the stray voxels of this noise
    expected = np.where((store.read("s0", "image") > 50).any(-1), anatomy.IDS["liver"], 0)
    np.testing.assert_array_equal(found, expected)


def test_the_recipe_for_a_model_folder(store, tmp_path):
    section = (ROOT / "docs" / "labels.md").read_text().split("## From a model folder of nnU-Net", 1)[1]
    by_folder, by_preset = re.findall(r"(--config=configs/label\.py:nnunet .*?)```", section, re.S)[:2]
    folder = tiny.folder(tmp_path / "model", change=tiny.narrow, by_torch=False)
    words = shlex.split(by_folder.replace("\\\n", " "))
    changed = {"--workdir": tmp_path, "--config.store": store.path, "--config.labeller.model": folder}
    words = [
        f"{word.split('=')[0]}={changed.get(word.split('=')[0], word.partition('=')[2])}" for word in words
    ]
    config, options = settings.parse([*words, "--config.mesh.data=1"], usage="")
    label.run(settings.resolve(config, options.workdir), options.workdir)
    water = Volume(store.read("s0", "image")[..., CONTRASTS.index("water")], AFFINE)
    expected = bob.nnunet.load(folder).predict(water).array * anatomy.IDS["liver"]
    np.testing.assert_array_equal(Store.open(store.path).read("s0", "label/auto"), expected)
    words = shlex.split(by_preset.replace("\\\n", " "))
    made = settings.parse(words, usage="")[0].labeller  # fields that are not there are refused
    assert made.preset in PRESETS and made.merge in merge.KINDS


def test_a_program_that_is_no_python(store, tmp_path):
    """`cp` makes a label map of an image whose values are ids."""
    found = run(store, tmp_path, {"command": "cp {input} {output}", "contrasts": '("water",)'})
    np.testing.assert_array_equal(found, store.read("s0", "image")[..., 2])
