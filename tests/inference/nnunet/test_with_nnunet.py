"""Folders beside nnU-Net itself, where it is installed; `tools/parity_nnunet.py` does more of them."""

import json
import pathlib

import numpy as np
import pytest

import ukbob_jax as bob
from tests.inference.nnunet import raw_folder, tiny
from ukbob_jax import networks, weights
from ukbob_jax.inference.nnunet import write
from ukbob_jax.weights import tensors

pytest.importorskip("nnunetv2")
pytestmark = pytest.mark.usefixtures("quick_compilation")

from tests.inference.nnunet.random_models import compare, folders, theirs  # noqa: E402


@pytest.mark.parametrize(
    ("kind", "seed"),
    [
        ("regions_ignore", 0),
        ("cascade_separate_z", 0),
        ("slices_transposed", 0),
        ("folds", 0),
        ("schemes", 0),
        ("prefixed", 0),
        ("other_formats", 1),
    ],
)
def test_a_random_folder_gives_nnunets_labels(tmp_path, kind, seed):
    made = folders.make(tmp_path, kind, seed, count=1)
    (found,) = compare.both(made, tmp_path / "out", 1)
    assert found.equal and found.seen > 1, found


@pytest.mark.parametrize("regions", [False, True])
def test_nnunet_predicts_with_a_folder_that_we_wrote(tmp_path, regions):
    """Two channels, a mask for one of them, and heads of deep supervision."""
    schemes = {
        "normalization_schemes": ["ZScoreNormalization", "CTNormalization"],
        "use_mask_for_norm": [True, False],
        "spacing": [2.3, 1.7, 2.0],
    }
    raw, file = raw_folder.write(tmp_path, number=1, regions=regions, **schemes)
    described = pathlib.Path(raw) / "dataset.json"
    described.write_text(json.dumps({**raw_folder.dataset(regions), "channel_names": {"0": "MR", "1": "CT"}}))
    found = json.loads(pathlib.Path(file).read_text())
    found["foreground_intensity_properties_per_channel"] = {
        str(c): {"mean": 60.0, "std": 50.0, "percentile_00_5": -20.0, "percentile_99_5": 190.5}
        for c in range(2)
    }
    pathlib.Path(file).write_text(json.dumps(found))
    plans = write.begin(tmp_path / "nnunet", file, raw, "3d_fullres", mirrored=not regions)
    fields = {**plans.network.fields, "deep_supervision": True}
    model = networks.build(plans.network.name, plans.in_channels, plans.out_channels, **fields)
    values = tiny.drawn(tensors.variables(model), 3)
    write.checkpoint(plans, weights.to_torch(values.pop("params"), model, values), fold=0)
    scan = f"{raw}/imagesTr/case_0_0000.nii.gz"
    other = bob.read_volume(scan)
    bob.write_volume(scan.replace("_0000", "_0001"), bob.Volume(np.flip(other.array, 0).copy(), other.affine))
    scan = (scan, scan.replace("_0000", "_0001"))
    expected = theirs.predict(theirs.predictor(plans.folder, [0]), scan, tmp_path / "theirs.nii.gz")
    ours = bob.nnunet.load(plans.folder)
    result = compare.compare(ours, scan, expected, tmp_path / "ours.nii.gz", None)
    assert result.equal and result.seen > 1, result
