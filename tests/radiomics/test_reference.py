"""Every feature beside pyradiomics' own values, and beside those that IBSI published for its digital phantom."""

import json

import nibabel
import numpy as np
import pytest

from ukbob_jax import radiomics
from ukbob_jax.radiomics import discretisation, glrlm, glszm, neighbours, regions

pytestmark = pytest.mark.reference
OPTIONS = {
    "binWidth": "bin_width", "binCount": "bin_count", "voxelArrayShift": "voxel_shift", "distances": "distances",
    "gldm_a": "alpha", "weightingNorm": "weighting", "normalizeScale": "normalise_scale",
}  # fmt: skip
SETTINGS = (
    "width25",
    "width25_shift",
    "count16",
    "width25_distance2",
    "width25_manhattan",
    "normalized_width5",
)


def tolerance(name: str) -> float:
    """Relative; the reference's own (its README): formulas 1e-6, eigenvalues and NGTDM 1e-5, meshes 1e-4."""
    return 1e-4 if name.startswith("shape") else 1e-5 if name.startswith("ngtdm") or "MCC" in name else 1e-6


def compare(found: dict[str, np.ndarray], wanted: dict[str, float]) -> None:
    assert set(found) == {f"original_{name}" for name in wanted}
    for name, value in wanted.items():
        np.testing.assert_allclose(found[f"original_{name}"], [value], rtol=tolerance(name), err_msg=name)


@pytest.fixture(scope="module")
def phantom(reference):
    stored = json.loads((reference / "radiomics" / "phantom.json").read_text())
    return np.array(stored["array_zyx"]).transpose(2, 1, 0), stored


@pytest.fixture(scope="module")
def cases(reference):
    return json.loads((reference / "radiomics" / "features.json").read_text())


def read(reference, case):
    image, labels = (nibabel.load(reference / "volumes" / case[what]) for what in ("image", "labels"))
    return np.asarray(image.dataobj, np.float64), np.asarray(labels.dataobj).astype(np.int32), image.affine


def families(wanted):
    return [f for f in radiomics.ALL if any(name.startswith(f"{f}_") for name in wanted)]


def test_phantom(phantom):
    image, stored = phantom
    found = radiomics.features(image, image > 0, stored["spacing_mm"], bin_width=1, classes=(1,))
    compare(found, stored["features"])


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("case", ["ct", "mr", "spine"])
def test_real_organs(reference, cases, case, name):
    """The other organs of the label map are measured beside it: they change nothing."""
    stored = cases[case]["settings"][name]
    image, labels, _ = read(reference, cases[case])
    options = {OPTIONS[k]: v for k, v in stored["arguments"].items() if k in OPTIONS}
    label, wanted = cases[case]["label"], stored["features"]
    classes = [label]
    if name == "width25":
        classes += [
            i for i in np.unique(labels[labels > 0]).tolist() if (labels == i).sum() > 1 and i != label
        ]
    found = radiomics.features(
        image, labels, cases[case]["spacing_xyz"], classes=classes, families=families(wanted), **options
    )
    compare({name: values[:1] for name, values in found.items()}, wanted)


@pytest.mark.parametrize("case", ["ct", "mr", "spine"])
def test_resampled_as_pyradiomics_does(reference, cases, case):
    pytest.importorskip("SimpleITK")
    wanted = cases[case]["settings"]["resampled2mm_width25"]["features"]
    image, labels, affine = read(reference, cases[case])
    label = cases[case]["label"]
    mask = (labels == label).astype(np.uint8)
    image, mask, spacing = radiomics.resample(
        image, mask, cases[case]["spacing_xyz"], 2.0, affine=affine, around=1
    )
    compare(radiomics.features(image, mask, spacing, classes=(1,)), wanted)


def test_matrices_of_the_phantom(phantom, reference):
    image, _ = phantom
    stored = np.load(reference / "radiomics" / "phantom_matrices.npz")
    measured = regions.collect(image, (image > 0).astype(np.uint8), (2, 2, 2), np.array([1]), 1)
    cells = regions.cells(measured.values.astype(int), measured.organ, 1)
    steps = neighbours.offsets((1,))
    counts = neighbours.count(measured, cells, steps)
    pairs = counts.pairs.reshape(13, 4, 4)
    pairs = pairs + pairs.transpose(0, 2, 1)
    ours = pairs / pairs.sum((1, 2), keepdims=True)
    theirs = np.moveaxis(stored["glcm"][0], -1, 0)  # in another order of directions
    for matrix in ours:
        assert np.isclose(np.abs(theirs - matrix).max((1, 2)).min(), 0, atol=1e-12)
    np.testing.assert_allclose(ours.sum(0), theirs.sum(0), atol=1e-12)
    wanted = stored["gldm"][0]  # columns that occur: 1, 2, ...
    kept = counts.dependence[1:, counts.dependence.any(0)]
    np.testing.assert_array_equal(kept, wanted)
    np.testing.assert_allclose(counts.difference[1:], stored["ngtdm"][0][:, 1], rtol=1e-12)
    np.testing.assert_array_equal(cells.voxels[1:], stored["ngtdm"][0][:, 0])
    runs, _ = glrlm.run_counts(measured, cells, steps)
    np.testing.assert_array_equal(runs[:, 1:].reshape(13, 4, 5).sum(0), stored["glrlm"][0].sum(-1))
    cell, size, number = glszm.zone_counts(measured, cells)
    zones = np.zeros((4, len(np.unique(size))))
    zones[cell - 1, np.unique(size, return_inverse=True)[1]] = number
    np.testing.assert_array_equal(zones, stored["glszm"][0])


def test_bin_edges(phantom):
    _, stored = phantom
    for name, case in stored["bin_edges"].items():
        options = {OPTIONS[k]: v for k, v in case["settings"].items()}
        values = np.array(case["values"])
        found = discretisation.grey_levels(
            values, np.zeros(len(values), int), values[:1] * 0 + values.min(), values[:1] * 0 + values.max(), **options
        )  # fmt: skip
        assert found.tolist() == case["levels"], name


# IBSI reference manual, digital phantom, 3D; GLCM and GLRLM: averaged over directions, merged. Three digits are published.
PUBLISHED = {
    "firstorder_Mean": 2.15, "firstorder_Variance": 3.05, "firstorder_Skewness": 1.08, "firstorder_Kurtosis": -0.355,
    "firstorder_Energy": 567, "firstorder_RootMeanSquared": 2.77, "firstorder_Entropy": 1.27,
    "firstorder_Uniformity": 0.512, "firstorder_MeanAbsoluteDeviation": 1.55,
    "firstorder_RobustMeanAbsoluteDeviation": 1.11, "shape_MeshVolume": 556, "shape_VoxelVolume": 592,
    "shape_SurfaceArea": 388, "shape_SurfaceVolumeRatio": 0.698, "shape_Sphericity": 0.843,
    "shape_Maximum3DDiameter": 13.1, "shape_MajorAxisLength": 11.4, "shape_MinorAxisLength": 9.31,
    "shape_LeastAxisLength": 8.54, "shape_Elongation": 0.816, "shape_Flatness": 0.749, "ngtdm_Coarseness": 0.0296,
    "ngtdm_Contrast": 0.584, "ngtdm_Busyness": 6.54, "ngtdm_Complexity": 13.5, "ngtdm_Strength": 0.763,
    "glszm_SmallAreaEmphasis": 0.255, "glszm_LargeAreaEmphasis": 550, "glszm_ZonePercentage": 0.0676,
    "glszm_ZoneEntropy": 2.32, "gldm_SmallDependenceEmphasis": 0.045, "gldm_LargeDependenceEmphasis": 109,
    "gldm_DependenceVariance": 22.1, "gldm_DependenceEntropy": 4.4,
}  # fmt: skip
PUBLISHED_BY_DIRECTION = {
    "glcm_MaximumProbability": (0.503, 0.509), "glcm_JointAverage": (2.14, 2.15), "glcm_SumSquares": (3.1, 3.13),
    "glcm_JointEntropy": (2.4, 2.57), "glcm_DifferenceAverage": (1.43, 1.38), "glcm_DifferenceVariance": (3.06, 3.21),
    "glcm_DifferenceEntropy": (1.56, 1.64), "glcm_SumAverage": (4.29, 4.3), "glcm_ClusterTendency": (7.07, 7.41),
    "glcm_SumEntropy": (1.92, 2.11), "glcm_JointEnergy": (0.303, 0.291), "glcm_Contrast": (5.32, 5.12),
    "glcm_Id": (0.677, 0.688), "glcm_Idn": (0.851, 0.856), "glcm_Idm": (0.618, 0.631), "glcm_Idmn": (0.898, 0.902),
    "glcm_InverseVariance": (0.0604, 0.0574), "glcm_Correlation": (0.157, 0.183),
    "glcm_Autocorrelation": (5.06, 5.19), "glcm_ClusterShade": (16.6, 17.4), "glcm_ClusterProminence": (145, 147),
    "glcm_Imc1": (-0.157, -0.0288), "glcm_Imc2": (0.52, 0.269), "glrlm_ShortRunEmphasis": (0.705, 0.729),
    "glrlm_LongRunEmphasis": (3.06, 2.76), "glrlm_LowGrayLevelRunEmphasis": (0.603, 0.607),
    "glrlm_HighGrayLevelRunEmphasis": (9.7, 9.64), "glrlm_GrayLevelNonUniformity": (21.8, 281),
    "glrlm_RunLengthNonUniformity": (26.9, 328), "glrlm_RunPercentage": (0.68, 0.68),
    "glrlm_RunEntropy": (2.43, 2.62), "glrlm_RunVariance": (0.574, 0.598),
}  # fmt: skip


@pytest.mark.parametrize("merge", [False, True])
def test_values_that_ibsi_published(phantom, merge):
    image, _ = phantom
    found = radiomics.features(
        image, image > 0, (2, 2, 2), bin_width=1, classes=(1,), definition="ibsi", merge=merge
    )
    wanted = PUBLISHED | {name: values[merge] for name, values in PUBLISHED_BY_DIRECTION.items()}
    for name, value in wanted.items():
        digit = 10.0 ** (np.floor(np.log10(abs(value))) - 2)  # of the third figure
        assert abs(found[f"original_{name}"][0] - value) <= 0.5001 * digit, name
