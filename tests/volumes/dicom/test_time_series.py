"""Time series of one file per slice: which files belong to one image, in which order, and what is refused."""

import numpy as np
import pytest

from tests.volumes.dicom.series_files import images, volume, write
from ukbob_jax.errors import FileError, GeometryError
from ukbob_jax.volumes import dicom

UID = "1.2.3.4"
TIMES, SLICES = 6, 5


def truths():
    return [volume(seed=seed) for seed in range(TIMES)]


def expected():
    return np.stack([truth.to_ras().array for truth in truths()], -1)


def series(tags, found=None):
    """Every slice of every time point; `tags(t, z)` is what its header says."""
    made = []
    for t, truth in enumerate(found or truths()):
        slices = images(truth, SeriesInstanceUID=UID)
        for z, one in enumerate(slices):
            for tag, value in tags(t, z).items():
                setattr(one.dataset, tag, value)
        made += slices
    return made


ORDERS = {
    "time point": lambda t, z: {"TemporalPositionIdentifier": t + 1, "InstanceNumber": 1 + (7 * t + 3 * z) % 30},
    "acquisition": lambda t, z: {"AcquisitionNumber": t + 1},
    "more than nine": lambda t, z: {"AcquisitionNumber": 8 + t},
    "instances, image by image": lambda t, z: {"InstanceNumber": 1 + SLICES * t + z, "AcquisitionNumber": 1},
    "instances, odd slices first": lambda t, z: {"InstanceNumber": 1 + SLICES * t + [0, 3, 1, 4, 2][z]},
    "instances, place by place": lambda t, z: {"InstanceNumber": 1 + TIMES * z + t},
    "trigger times": lambda t, z: {"InstanceNumber": 1, "TriggerTime": f"{100 * t + 3 * z}"},
    "an acquisition per slice": lambda t, z: {"AcquisitionNumber": 1 + SLICES * t + z, "InstanceNumber": 1 + SLICES * t + z},
    "a time point per place": lambda t, z: {"TemporalPositionIdentifier": z + 1, "InstanceNumber": 1 + SLICES * t + z},
}  # fmt: skip


@pytest.mark.parametrize("name", ORDERS)
def test_time_points_come_in_their_order(name, tmp_path):
    write(tmp_path, series(ORDERS[name]))
    found = dicom.read_series(tmp_path, channels=True)
    np.testing.assert_array_equal(found.array, expected())
    np.testing.assert_allclose(found.affine, truths()[0].to_ras().affine, atol=1e-6)
    np.testing.assert_array_equal(dicom.read_series(tmp_path, f"{UID}:4").array, expected()[..., 3])
    np.testing.assert_array_equal(
        dicom.read_series(tmp_path, f"{UID}:2-3", channels=True).array, expected()[..., 1:3]
    )
    with pytest.raises(FileError) as caught:
        dicom.read_series(tmp_path)
    kind = "acquisitions" if name in ("acquisition", "more than nine") else "time points"
    assert (
        f"6 images: {UID}:1 to {UID}:6 (Dixon_noBH_W, 6 {kind}, 7 x 6, 5 slices, 1.25 x 2.5 x 4 mm). Ch"
        in str(caught.value)
    )


def test_a_diffusion_series_is_in_the_order_of_its_acquisition(tmp_path):
    weights = [0, 1000, 1000, 0, 1000, 2000]
    write(
        tmp_path, series(lambda t, z: {"InstanceNumber": 1 + 5 * t + z, "DiffusionBValue": float(weights[t])})
    )
    np.testing.assert_array_equal(dicom.read_series(tmp_path, channels=True).array, expected())
    with pytest.raises(FileError, match="6 volumes of b-value 0, 1000, 2000 s/mm2"):
        dicom.read_series(tmp_path)


def test_echoes_of_a_time_series_are_listed_apart(tmp_path):
    echo = lambda t: {"EchoTime": [13.0, 31.0][t % 2], "AcquisitionNumber": t // 2 + 1}  # noqa: E731
    found = [volume(seed=seed) for seed in range(10)]
    write(tmp_path, series(lambda t, z: echo(t), found))
    with pytest.raises(
        FileError, match=rf"10 images: {UID}:1 to {UID}:5 .*echo time.*; {UID}:6 to {UID}:10 "
    ) as caught:
        dicom.read_series(tmp_path, channels=True)
    first = 0 if str(caught.value).index("13 ms") < str(caught.value).index("31 ms") else 1
    for start, which in ((1, first), (6, 1 - first)):
        echoes = dicom.read_series(tmp_path, f"{UID}:{start}-{start + 4}", channels=True)
        np.testing.assert_array_equal(echoes.array, np.stack([v.to_ras().array for v in found[which::2]], -1))
    with pytest.raises(FileError, match="10 images: "):  # a stretch is no single image
        dicom.read_series(tmp_path, f"{UID}:1-5")
    for wrong in (f"{UID}:11", f"{UID}:0", f"{UID}:3-1", f"{UID}:x"):
        with pytest.raises(FileError, match=f"no series {wrong}; there are"):
            dicom.read_series(tmp_path, wrong)


def without(found, *gone):
    return [one for number, one in enumerate(found) if number not in gone]


@pytest.mark.parametrize("kind", ["time point", "acquisition"])
def test_a_time_point_that_was_broken_off_is_refused_and_the_others_are_read(kind, tmp_path):
    write(tmp_path, without(series(ORDERS[kind]), 28, 29))
    with pytest.raises(GeometryError, match=f"series {UID}:6: {kind} 6 has 3 slices, the others 5"):
        dicom.read_series(tmp_path, f"{UID}:6")
    with pytest.raises(GeometryError, match=f"{kind} 6 has 3 slices"):
        dicom.read_series(tmp_path, channels=True)
    np.testing.assert_array_equal(dicom.read_series(tmp_path, f"{UID}:4").array, expected()[..., 3])


@pytest.mark.parametrize(
    "tags, gone, message",
    [
        (ORDERS["instances, image by image"], (28,), r"6 slices at most places, but 5 at 15\d.75 mm.*missing or doubled"),
        (lambda t, z: {}, (), "6 slices at each of 5 places, and neither time point, acquisition nor instance number"),
        (lambda t, z: {"InstanceNumber": 1 + (7 * t + 11 * z) % 30}, (), "6 slices at each of 5 places"),
    ],
    ids=["a file is missing", "nothing tells them apart", "instances without order"],
)  # fmt: skip
def test_a_series_that_cannot_be_told_apart_is_refused_in_one_line(tags, gone, message, tmp_path):
    write(tmp_path, without(series(tags), *gone))
    with pytest.raises(GeometryError, match=message) as caught:
        dicom.read_series(tmp_path)
    assert "\n" not in str(caught.value) and UID in str(caught.value)


def test_images_on_different_grids_are_no_channels(tmp_path):
    moved = volume(seed=1)
    moved.affine[0, 3] += 5
    write(tmp_path, series(ORDERS["acquisition"], [volume(), moved]))
    with pytest.raises(GeometryError, match=r"corners 5\.0 mm apart: they cannot be channels"):
        dicom.read_series(tmp_path, channels=True)
