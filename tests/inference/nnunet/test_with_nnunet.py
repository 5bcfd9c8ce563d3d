"""Folders beside nnU-Net itself, where it is installed; `tools/parity_nnunet.py` does more of them."""

import dataclasses
import json
import pathlib

import nibabel as nib
import numpy as np
import pytest

import ukbob_jax as bob
from tests.inference.nnunet import raw_folder, test_plans, tiny
from ukbob_jax import networks, weights
from ukbob_jax.inference.nnunet import plans, preprocess, write
from ukbob_jax.weights import tensors

pytest.importorskip("nnunetv2")
pytestmark = [
    pytest.mark.usefixtures("quick_compilation"),
    pytest.mark.filterwarnings("ignore"),  # PyTorch's and nnU-Net's own, about what they will remove
]

from tests.inference.nnunet.random_models import compare, folders, scans, theirs  # noqa: E402


@pytest.mark.parametrize(
    ("kind", "seed"),
    [
        ("regions_ignore", 0),
        ("cascade_separate_z", 0),
        ("slices_transposed", 0),
        pytest.param("folds", 0, marks=pytest.mark.slow),
        ("schemes", 0),
        ("prefixed", 0),
        ("other_formats", 1),
    ],
)
def test_a_random_folder_gives_nnunets_labels(tmp_path, kind, seed):
    made = folders.make(tmp_path, kind, seed, count=1)
    (found,) = compare.both(made, tmp_path / "out", 1)
    assert found.equal and found.seen > 1, found


@pytest.mark.parametrize("reader", plans.READERS)
def test_arrays_and_spacings_are_those_of_nnunets_readers(tmp_path, reader):
    """Headers of every sort: sform or qform alone, pixdim of another size, other units; axes far from those of the body."""
    from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name

    said = plans.read(test_plans.write(tmp_path))
    rules = {"transpose_forward": (0, 1, 2), "transpose_backward": (0, 1, 2), "spacing": (1.0, 1.0, 1.0)}
    said = dataclasses.replace(said, reader=reader, normalization_schemes=("NoNormalization",), **rules)
    path = str(tmp_path / "scan.nii.gz")
    for seed in range(24):
        rng = np.random.default_rng(seed)
        spacing = np.round(rng.uniform(0.5, 3, 3), int(rng.integers(1, 7)))
        affine = scans.placed(spacing, rng)
        if seed % 3 == 0:
            affine[:3, :3] = np.linalg.qr(rng.normal(size=(3, 3)))[0] * spacing
        array = rng.normal(5, 2, rng.integers(3, 9, 3)).astype((np.int16, np.float32, np.uint8)[seed % 3])
        image = nib.Nifti1Image(np.maximum(array, 1), affine)
        image.set_sform(affine, int(seed % 4 != 1))
        image.set_qform(affine, int(seed % 4 != 2))
        if seed % 4 == 2:
            image.header["pixdim"][1:4] *= 1.01
        if seed % 4 == 3:
            image.header["xyzt_units"] = int(rng.choice([0, 1, 3]))
        nib.save(image, path)
        theirs_array, properties = recursive_find_reader_writer_by_name(reader)().read_images([path])
        ours = preprocess.run(
            path, dataclasses.replace(said, spacing=tuple(map(float, properties["spacing"])))
        )
        np.testing.assert_allclose(ours[0], theirs_array, rtol=1e-6)
        assert ours[1]["spacing"] == list(properties["spacing"]), seed


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
    begun = write.begin(tmp_path / "nnunet", file, raw, "3d_fullres", mirrored=not regions)
    fields = {**begun.network.fields, "deep_supervision": True}
    model = networks.build(begun.network.name, begun.in_channels, begun.out_channels, **fields)
    values = tiny.drawn(tensors.variables(model), 3)
    write.checkpoint(begun, weights.to_torch(values.pop("params"), model, values), fold=0)
    scan = f"{raw}/imagesTr/case_0_0000.nii.gz"
    other = bob.read_volume(scan)
    bob.write_volume(scan.replace("_0000", "_0001"), bob.Volume(np.flip(other.array, 0).copy(), other.affine))
    scan = (scan, scan.replace("_0000", "_0001"))
    expected = theirs.predict(theirs.predictor(begun.folder, [0]), scan, tmp_path / "theirs.nii.gz")
    ours = bob.nnunet.load(begun.folder)
    result = compare.compare(ours, scan, expected, tmp_path / "ours.nii.gz", None)
    assert result.equal and result.seen > 1, result
