"""What nnssl's own preprocessing wrote is read back to where the scan lay, with masks of 0 and 1 under their right names."""

import json
import pathlib
import pickle
import shutil
import sys

import numpy as np
import pytest

from ukbob_jax.errors import ConfigError, FileError, MismatchError
from ukbob_jax.sources import nnssl_arrays
from ukbob_jax.sources.openmind import list_subjects
from ukbob_jax.store.schema import ANATOMY, ANONYMISATION
from ukbob_jax.volumes.nifti import read_volume

SITK = {"spacing": (1.0, 2.0, 3.0), "origin": (5.0, 6.0, 7.0), "direction": (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)}


@pytest.fixture(scope="module")
def theirs(reference, tmp_path_factory):
    """The files of one image as nnssl wrote them, with the plans that lay beside them."""
    folder = reference / "ssl" / "nnssl_data" / "native"
    top = tmp_path_factory.mktemp("nnssl") / "Dataset746_TinyNative"
    shutil.copytree(folder / "preprocessed", top)
    expected = json.loads((folder / "expected.json").read_text())
    (top / "nnsslPlans.json").write_text(json.dumps(expected["plan"]))
    (top / "pretrain_data__noresample.json").write_text(json.dumps(expected["pretrain_json_after"]))
    return folder, top


def test_nnssls_files_are_read_as_their_scan(theirs):
    pytest.importorskip("blosc2")
    folder, top = theirs
    [one] = list_subjects(manifest=str(top / "nnsslPlans_noresample"))
    assert one.subject == "ds000__sub-01__ses-01__T1w" and one.person == "ds000__sub-01"
    scan = one.read()
    raw = folder / "raw" / "ds" / "sub-01" / "ses-01"
    source = read_volume(raw / "T1w.nii.gz").to_ras()
    start = np.rint(np.linalg.solve(source.affine, scan.image.affine[:, 3]))[:3].astype(int)
    cut = source.crop(start, scan.image.shape)
    np.testing.assert_allclose(cut.affine, scan.image.affine, atol=1e-9)
    normal = (cut.array - cut.array.mean()) / cut.array.std()
    np.testing.assert_allclose(scan.image.array[..., 0], normal, atol=2e-4)  # as the reference says
    for name, file in ((ANATOMY, "anatomy"), (ANONYMISATION, "anonymization")):
        mask = (
            read_volume(raw / f"T1w_{file}_mask.nii.gz", kind="label").to_ras().crop(start, scan.image.shape)
        )
        inside = cut.array != 0  # nnssl's masks say nothing beyond
        np.testing.assert_array_equal(scan.labels[name].array[inside], mask.array[inside])
        assert set(np.unique(scan.labels[name].array)) == {0, 1}
    stored = one.convert(scan)
    assert stored["labels"].keys() == {ANATOMY, ANONYMISATION} and stored["attributes"] == {"study": "ds000"}
    assert len(one.checksum()) == 64


def test_the_manifest_of_preprocessed_images_names_the_same_files(theirs, tmp_path):
    _, top = theirs
    link = tmp_path / top.name
    link.symlink_to(top)
    manifest = str(top / "pretrain_data__noresample.json")
    found = list_subjects(manifest=manifest, variables=(f"nnssl_preprocessed={tmp_path}",))
    one, t2, alone, *_ = found
    assert one.files()[0] == f"{link}/nnsslPlans_noresample/{top.name}/ds000/sub-01/ses-01/T1w.b2nd"
    assert {path.rsplit("/", 1)[1] for path in one.files()[1:]} == {
        "T1w.pkl",
        "T1w__anon.b2nd",
        "T1w__anat.b2nd",
    }
    assert {name: path[-9:-5] for name, path in one.masks} == {ANATOMY: "anon", ANONYMISATION: "anat"}
    assert t2.masks[0][0] == ANATOMY and alone.masks[0][0] == ANONYMISATION  # one mask alone is right
    right, *_ = list_subjects(
        manifest=manifest, variables=(f"nnssl_preprocessed={tmp_path}",), masks_swapped=False
    )
    assert {name: path[-9:-5] for name, path in right.masks} == {ANATOMY: "anat", ANONYMISATION: "anon"}
    with pytest.raises(FileError, match=r"too_small\.(b2nd|pkl): cannot be read"):
        found[-1].checksum()


def write(folder, array, mask=None, forward=(0, 1, 2), **changes):
    """An image in nnssl's layout; the scan is `z y x` = 6 8 10, cut to a box."""
    blosc2 = pytest.importorskip("blosc2")
    (folder / "plans.json").write_text(json.dumps({"transpose_forward": list(forward)}))
    path = folder / "plans_one" / "C" / "ds" / "sub" / "ses" / "T1w.b2nd"
    path.parent.mkdir(parents=True)
    blosc2.asarray(np.ascontiguousarray(array[None]), urlpath=str(path))
    if mask is not None:
        blosc2.asarray(np.ascontiguousarray(mask[None]), urlpath=str(path.with_name("T1w__anat.b2nd")))
    about = {"sitk_stuff": SITK, "bbox_used_for_cropping": [[1, 6], [2, 8], [3, 10]],
             "shape_after_cropping_and_before_resampling": (5, 6, 7), "spacing": [np.float64(1)] * 3}  # fmt: skip
    path.with_suffix(".pkl").write_bytes(pickle.dumps({**about, **changes}))
    return path


def test_axes_go_back_to_where_they_were(tmp_path):
    """The plans put x first; bounds follow the array."""
    scan = np.arange(5 * 6 * 7, dtype=np.float32).reshape(5, 6, 7)  # z y x
    forward = (2, 0, 1)
    box = [[3, 10], [1, 6], [2, 8]]
    path = write(
        tmp_path, scan.transpose(forward), (scan > 9).transpose(forward) * np.float32(2) - 1, forward,
        bbox_used_for_cropping=box, shape_after_cropping_and_before_resampling=(7, 5, 6),
    )  # fmt: skip
    [one] = list_subjects(manifest=str(tmp_path / "plans_one"))
    found = one.read()
    want = scan.transpose(2, 1, 0)[::-1, ::-1]  # LPS to RAS
    np.testing.assert_array_equal(found.image.array[..., 0], want)
    np.testing.assert_array_equal(found.labels[ANATOMY].array, want > 9)
    world = found.image.affine @ [6, 5, 0, 1]  # the array's first voxel: x y z = 3 2 1 of the scan
    np.testing.assert_allclose(world[:3], [-(5 + 3 * 1), -(6 + 2 * 2), 7 + 1 * 3])
    assert path.is_file()


def test_a_resampled_box_keeps_its_faces(tmp_path):
    write(tmp_path, np.zeros((10, 6, 14), np.float32) + 1)
    [one] = list_subjects(manifest=str(tmp_path / "plans_one"))
    image = one.read().image
    assert image.shape == (14, 6, 10)
    np.testing.assert_allclose(image.spacing_mm, (0.5, 2.0, 1.5))
    faces = image.affine @ np.array([[-0.5, -0.5, -0.5, 1], [13.5, 5.5, 9.5, 1]]).T
    box = np.array([[10, 8, 1], [3, 2, 6]]) - 0.5  # x y z of the scan; right and anterior come last
    scan = [[-(5 + x), -(6 + 2 * y), 7 + 3 * z] for x, y, z in box]
    np.testing.assert_allclose(faces[:3].T, scan)


@pytest.mark.parametrize(
    "spoil, error, message",
    [
        (lambda p: p.with_suffix(".pkl").unlink(), FileError, r"T1w\.pkl: cannot be read: No such file"),
        (
            lambda p: p.with_suffix(".pkl").write_bytes(b"no"),
            FileError,
            r"T1w\.pkl: not the properties of an image",
        ),
        (
            lambda p: p.with_suffix(".pkl").write_bytes(pickle.dumps({})),
            FileError,
            "KeyError: 'bbox_used_for_crop",
        ),
        (
            lambda p: p.with_suffix(".pkl").write_bytes(pickle.dumps(pathlib.PurePosixPath("x"))),
            FileError,
            "it names pathlib",
        ),
        (lambda p: p.write_bytes(b"no array"), FileError, r"T1w\.b2nd: not readable as a blosc2 array"),
        (
            lambda p: (p.parents[5] / "plans.json").unlink(),
            FileError,
            "no plans file that plans_one is named after",
        ),
    ],
)
def test_files_that_cannot_be_used_are_named(tmp_path, spoil, error, message):
    spoil(write(tmp_path, np.ones((5, 6, 7), np.float32)))
    nnssl_arrays._plans.cache_clear()
    [one] = list_subjects(manifest=str(tmp_path / "plans_one"))
    with pytest.raises(error, match=message):
        one.read()


def test_a_mask_of_another_shape_is_named(tmp_path):
    write(tmp_path, np.ones((5, 6, 7), np.float32), np.ones((5, 6, 6), np.float32))
    with pytest.raises(
        MismatchError, match=r"T1w__anat\.b2nd: shape \(5, 6, 6\), but T1w\.b2nd has \(5, 6, 7\)"
    ):
        list_subjects(manifest=str(tmp_path / "plans_one"))[0].read()


def test_without_blosc2_the_extra_is_named(tmp_path, monkeypatch):
    (tmp_path / "c" / "C" / "ds" / "sub" / "ses").mkdir(parents=True)
    (tmp_path / "c" / "C" / "ds" / "sub" / "ses" / "T1w.b2nd").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "blosc2", None)
    with pytest.raises(
        ConfigError, match=r"needs blosc2, which is not installed: pip install 'ukbob-jax\[blosc2\]'"
    ):
        list_subjects(manifest=str(tmp_path / "c"))[0].read()
    with pytest.raises(FileError, match=r"SUBJECT/SESSION/NAME\.b2nd\. Name the folder of a conf"):
        list_subjects(manifest=str(tmp_path / "c" / "C"))
