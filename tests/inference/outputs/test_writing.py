"""What is written beside a label map comes back as it was, whatever the grid and the format."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from tests.inference.networks import CARD, Bands, bands, scan
from ukbob_jax.errors import ConfigError, MismatchError
from ukbob_jax.inference import predict_scans
from ukbob_jax.inference.options import PredictOptions
from ukbob_jax.inference.outputs import writing
from ukbob_jax.inference.outputs.writing import Outputs
from ukbob_jax.inference.segmenter import Segmenter
from ukbob_jax.volumes import layouts
from ukbob_jax.volumes.nifti import read_label_names, read_volume, write_volume
from ukbob_jax.volumes.volume import Volume

OPTIONS = PredictOptions()
COSINE, SINE = np.cos(0.3), np.sin(0.3)
OBLIQUE = np.array(
    [[-0.9 * COSINE, 0, 4 * SINE, 11], [0, 1.7, 0, -20.5], [0.9 * SINE, 0, 4 * COSINE, 33.25], [0, 0, 0, 1]]
)
GRIDS = {
    "straight": np.diag([2.0, 2, 2, 1]),
    "anisotropic": np.diag([0.7, 0.7, 5.0, 1]),
    "left-handed": np.diag([-1.5, 1.5, 3.0, 1]),
    "oblique": OBLIQUE,
}


@pytest.fixture(scope="module")
def segmenter():
    model = Bands()
    return Segmenter(model, model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 8, 1)))["params"], CARD)


@pytest.fixture(scope="module")
def prediction(segmenter):
    return segmenter.predict(scan())


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("ending", [e for e in writing.ENDINGS if e != ".dcm"])
def test_labels_and_affine_come_back_equal(segmenter, tmp_path, ending, grid):
    if "nii" not in ending and ending not in (".mgz", ".mgh"):
        pytest.importorskip("SimpleITK")
    given = scan(affine=GRIDS[grid])
    target = tmp_path / "below" / f"labels{ending}"
    kept = writing.write(Outputs(), segmenter.predict(given), target, given, ("water",), OPTIONS)
    found = read_volume(target, kind="label")
    np.testing.assert_array_equal(found.array, bands(given.array))
    np.testing.assert_allclose(found.affine, given.affine, atol=2e-5)  # mm; float32 in NIfTI and MGH
    assert json.loads((tmp_path / "below" / "labels.json").read_text()) == kept.report
    if ending in (".nii", ".nii.gz", ".seg.nrrd"):
        assert {i: n for i, n in read_label_names(target).items() if i} == {1: "liver", 3: "spleen"}


def test_a_slicer_segmentation_has_names_and_the_colours_of_the_taxonomy(prediction, tmp_path):
    sitk = pytest.importorskip("SimpleITK")
    target = tmp_path / "labels.seg.nrrd"
    writing.write(Outputs(), prediction, target, scan(), ("water",), OPTIONS)
    image = sitk.ReadImage(str(target))
    said = {key: image.GetMetaData(key) for key in image.GetMetaDataKeys() if key.startswith("Segment0_")}
    assert said["Segment0_Name"] == "liver" and said["Segment0_LabelValue"] == "1"
    rgb = [float(part) * 255 for part in said["Segment0_Color"].split()]
    assert rgb == pytest.approx([0xA0, 0x52, 0x2D], abs=0.01)


def test_a_subset_keeps_the_whole_networks_answer(segmenter, prediction, tmp_path):
    outputs = Outputs(roi_subset=("spleen",))
    writing.check(outputs, segmenter.names, {"a": scan()})
    kept = writing.write(outputs, prediction, tmp_path / "a.nii.gz", scan(), ("water",), OPTIONS)
    expected = bands(scan().array)
    expected[expected == 1] = 0
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii.gz").array, expected)
    assert list(kept.report["structures"]) == ["spleen"] and set(kept.names) == {0, 3}
    assert kept.report["structures"]["spleen"] == prediction.report["structures"]["spleen"]


@pytest.mark.parametrize(
    "asked, said",
    [
        ("Spleen", r"'Spleen' \(did you mean spleen\?\)"),
        ("lever", r"'lever' \(did you mean liver\?\)"),
        ("zzz", r"draws no 'zzz'\. It draws liver, spleen"),
        ("unused", "no 'unused'"),
        ("background", "no 'background'"),
    ],
)
def test_a_misspelt_structure_is_told_with_those_that_are_near(segmenter, asked, said):
    with pytest.raises(ConfigError, match=said):
        writing.check(Outputs(roi_subset=(asked,)), segmenter.names, {"a": scan()})


def test_masks_are_one_file_per_structure_also_of_absent_ones(prediction, tmp_path):
    writing.write(Outputs(masks=True), prediction, tmp_path / "a.nii.gz", scan(), ("water",), OPTIONS)
    masks = {path.name: read_volume(path) for path in (tmp_path / "a_masks").iterdir()}
    assert set(masks) == {"liver.nii.gz", "spleen.nii.gz"}
    together = masks["liver.nii.gz"].array + 3 * masks["spleen.nii.gz"].array
    np.testing.assert_array_equal(together, bands(scan().array))
    np.testing.assert_array_equal(masks["liver.nii.gz"].affine, scan().affine)


def test_two_structures_of_one_file_name_are_refused():
    with pytest.raises(ConfigError, match="'a/b' and 'a:b' would be one file"):
        writing.check(Outputs(masks=True), {0: "background", 1: "a:b", 2: "a/b"}, {})


def test_a_preview_shows_three_planes_plain_and_labelled(prediction, tmp_path):
    writing.write(Outputs(preview=True), prediction, tmp_path / "a.nii.gz", scan(), ("water",), OPTIONS)
    picture = np.asarray(Image.open(tmp_path / "a.preview.png").convert("RGB")).astype(int)
    upper, lower = np.array_split(picture, 2)
    coloured = [(np.ptp(half, axis=-1) > 40).mean() for half in (upper, lower)]
    assert (
        coloured[0] < coloured[1] / 3 and coloured[1] > 0.05
    )  # of the legend, a part is beside the upper row


def test_itksnap_reads_a_row_per_label(prediction, tmp_path):
    writing.write(Outputs(itksnap=True), prediction, tmp_path / "a.nii.gz", scan(), ("water",), OPTIONS)
    lines = (tmp_path / "a.label.txt").read_text().splitlines()
    rows = [line.split(None, 7) for line in lines if not line.startswith("#")]
    assert [(row[0], row[7]) for row in rows] == [("0", '"Clear Label"'), ("1", '"liver"'), ("3", '"spleen"')]
    assert rows[1][1:7] == ["160", "82", "45", "1", "1", "1"] and rows[0][1:7] == ["0"] * 6


def test_statistics_of_a_folder_become_one_table_also_after_a_second_start(segmenter, tmp_path):
    for n in range(2):
        write_volume(tmp_path / "in" / f"s{n}.nii.gz", scan(seed=n))
    scans = {f"s{n}": tmp_path / "in" / f"s{n}.nii.gz" for n in range(2)}
    out = tmp_path / "out"
    for existing in ("refuse", "skip"):
        predict_scans.label(segmenter, scans, out, existing, OPTIONS, Outputs(statistics=True))
        assert len((out / "statistics.csv").read_text().splitlines()) == 1 + 2 * 2
        (out / "statistics.csv").unlink()
    one = json.loads((out / "s0.statistics.json").read_text())["liver"]
    inside = scan(seed=0).array[bands(scan(seed=0).array) == 1]
    assert one["intensity"] == pytest.approx(inside.mean(), rel=1e-12) and one["volume"] == 8 * len(inside)


def test_a_file_per_contrast_is_measured_on_the_labels_voxels(prediction, tmp_path):
    given = scan()
    write_volume(tmp_path / "a.nii.gz", given)
    other = Volume(3 * given.array + 1, given.affine, given.codes).reorient("SPL")
    write_volume(tmp_path / "b.nii.gz", other)
    files = (tmp_path / "a.nii.gz", tmp_path / "b.nii.gz")
    outputs, contrasts = Outputs(statistics=True), ("water", "fat")
    writing.write(outputs, prediction, tmp_path / "l.nii.gz", files, contrasts, OPTIONS)
    for one in json.loads((tmp_path / "l.statistics.json").read_text()).values():
        water, fat = (one["intensities"][contrast] for contrast in contrasts)
        assert fat["mean"] == pytest.approx(3 * water["mean"] + 1, rel=1e-12)
        assert fat["p95"] == pytest.approx(3 * water["p95"] + 1, rel=1e-12)
    with pytest.raises(MismatchError, match="2 contrasts, the network names 1"):
        writing.write(outputs, prediction, tmp_path / "l.nii.gz", files, ("water",), OPTIONS)
    elsewhere = tmp_path / "c.nii.gz"
    write_volume(elsewhere, scan((12, 9, 10)))
    with pytest.raises(MismatchError, match="its labels: shape"):
        writing.write(outputs, prediction, tmp_path / "l.nii.gz", elsewhere, ("water",), OPTIONS)


def test_a_bids_derivative_is_read_back_by_the_layout(segmenter, tmp_path):
    raw = tmp_path / "raw"
    for person in ("01", "02"):
        write_volume(raw / f"sub-{person}" / "anat" / f"sub-{person}_acq-dixon_T1w.nii.gz", scan())
    (raw / "dataset_description.json").write_text('{"Name": "raw", "BIDSVersion": "1.10.0"}')
    out = raw / "derivatives" / "ukbob"
    scans = {c.subject: c.images for c in layouts.list_cases("bids", raw)}
    outputs = Outputs(bids=True, masks=True, statistics=True)
    predict_scans.label(segmenter, scans, out, "refuse", OPTIONS, outputs)
    cases = layouts.list_cases("bids", raw, pipeline="ukbob")
    assert [case.subject for case in cases] == ["sub-01_acq-dixon", "sub-02_acq-dixon"]
    for one in cases:
        found = read_volume(one.labels["ukbob"], kind="label")
        np.testing.assert_array_equal(found.array, bands(scan().array))
        assert one.description.label_names["ukbob"] == {0: "background", 1: "liver", 3: "spleen"}
    folder = out / "sub-01" / "anat"
    assert sorted(path.name for path in folder.iterdir()) == [
        "sub-01_acq-dixon_seg-ukbob_dseg.json", "sub-01_acq-dixon_seg-ukbob_dseg.nii.gz",
        "sub-01_acq-dixon_seg-ukbob_dseg.statistics.csv", "sub-01_acq-dixon_seg-ukbob_dseg.statistics.json",
        "sub-01_acq-dixon_seg-ukbob_dseg.tsv", "sub-01_acq-dixon_seg-ukbob_label-liver_mask.nii.gz",
        "sub-01_acq-dixon_seg-ukbob_label-spleen_mask.nii.gz",
    ]  # fmt: skip
    side = json.loads((folder / "sub-01_acq-dixon_seg-ukbob_dseg.json").read_text())
    assert side["Sources"] == ["bids:raw:sub-01/anat/sub-01_acq-dixon_T1w.nii.gz"] and not side["Manual"]
    about = json.loads((out / "dataset_description.json").read_text())
    assert about["DatasetType"] == "derivative" and about["DatasetLinks"] == {"raw": "../.."}
    assert (folder / "sub-01_acq-dixon_seg-ukbob_dseg.tsv").read_text().splitlines()[2] == "1\tliver\t#a0522d"


def test_scans_that_would_share_a_bids_name_are_refused(tmp_path):
    scans = {"a": tmp_path / "sub-1_T1w.nii.gz", "b": tmp_path / "sub-1_T2w.nii.gz"}
    with pytest.raises(ConfigError, match=r"b and a would both become .*sub-1_seg-ukbob_dseg"):
        writing.targets(Outputs(bids=True), tmp_path, scans)


def test_what_does_not_go_together_is_refused(segmenter, tmp_path):
    with pytest.raises(ConfigError, match=r"BIDS has \.nii\.gz and \.nii, not \.mha"):
        Outputs(bids=True, ending=".mha")
    with pytest.raises(ConfigError, match=r"cannot end in '\.png'"):
        Outputs(ending=".png")
    pytest.importorskip("highdicom")
    with pytest.raises(
        ConfigError, match=r"a DICOM segmentation refers to DICOM files, and .*a.nii.gz is none"
    ):
        writing.check(Outputs(ending=".dcm"), segmenter.names, {"a": tmp_path / "a.nii.gz"})
