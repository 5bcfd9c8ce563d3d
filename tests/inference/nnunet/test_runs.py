"""Whole runs of nnU-Net 2.8.1: merged logits and labels as it gives them with float32 sums."""

import json

import nibabel as nib
import numpy as np
import pytest
from scipy.special import softmax

from tests.inference.nnunet.test_preprocess import CASES
from ukbob_jax.inference.nnunet import preprocess, resample

pytestmark = [pytest.mark.reference, pytest.mark.usefixtures("full_optimization")]


@pytest.fixture(scope="session")
def merged(models, reference):
    """(run, case), mirrored -> array, properties, logits; each computed once."""
    found = {}

    def get(case, mirror):
        if (case, mirror) not in found:
            model = models(case[0])
            array, properties = model.preprocess(reference / CASES[case])
            found[case, mirror] = array, properties, model.logits(array, mirror=mirror)
        return found[case, mirror]

    return get


def near(model, logits, properties):
    """Voxels of the image's grid where rounding may decide."""
    spacing = [properties["spacing"][axis] for axis in model.plans.transpose_forward]
    target = properties["shape_after_cropping_and_before_resampling"]
    current = preprocess.full_spacing(model.plans, spacing)
    how = resample.axes(model.plans.resampling_logits, logits.shape[1:], target, current, spacing, "")
    logits = resample.image(logits, how)
    if model.plans.regions:
        close = (np.abs(1 / (1 + np.exp(-logits)) - 0.5) < 0.005).any(0)
    else:
        best = np.sort(softmax(logits, axis=0), axis=0)
        close = best[-1] - best[-2] < 0.01
    out = np.zeros(properties["shape_before_cropping"], bool)
    out[tuple(slice(*pair) for pair in properties["bbox_used_for_cropping"])] = close
    return out.transpose(model.plans.transpose_backward).T


@pytest.mark.parametrize("mirror", [True, False], ids=["tta", "notta"])
@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_logits_and_labels_are_nnunets(runs, models, merged, case, mirror):
    run, name, kind = runs / case[0], case[1], "tta" if mirror else "notta"
    model = models(case[0])
    array, properties, logits = merged(case, mirror)
    stages = run / "expected" / f"{name}_stages.npz"
    if stages.exists():
        step = json.loads((run / "expected.json").read_text())["cases"][name][f"logits32_{kind}_step"]
        thinned = logits[:, step // 2 :: step, step // 2 :: step, step // 2 :: step]
        np.testing.assert_allclose(thinned, np.load(stages)[f"logits32_{kind}"], atol=2e-3)
    volume, certain = model.segment(array, properties, mirror)
    assert certain is None
    expected = nib.load(run / "expected" / f"{name}_{kind}_fp32.nii.gz")
    differ = np.asarray(expected.dataobj) != volume.array
    assert not (differ & ~near(model, logits, properties)).any()
    assert differ.mean() < 1e-3
    np.testing.assert_allclose(volume.affine, expected.affine, atol=1e-4)


def test_two_folds_are_averaged(models, merged):
    """A fold twice is the fold; one whose last layer is shifted shifts the mean by half of it."""
    import dataclasses

    import jax

    model = models("mr_plain")
    array, _, alone = merged(("mr_plain", "torso"), False)
    shifted = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf + 1 if "head" in str(path) and leaf.ndim == 1 else leaf, model.members[0]
    )
    both = dataclasses.replace(model, members=(model.members[0], shifted)).logits(array, mirror=False)
    np.testing.assert_allclose(both, alone + 0.5, atol=1e-3)
