import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ukbob_jax as bob
from tests.volumes import malformed
from ukbob_jax.errors import InputError

CASES = {case.name: case for case in malformed.cases()}


def read(case: malformed.Case, paths: list):
    if case.purpose == "pair":
        return bob.read_pair(*paths)[1]
    return bob.read_volume(paths[0], kind=case.purpose)


def check(volume: bob.Volume, expect: dict, warned: bool) -> None:
    got = {
        "shape": lambda: volume.shape,
        "spacing": lambda: pytest.approx(volume.spacing_mm, rel=1e-6),
        "sum": lambda: volume.array.sum(dtype=np.float64),
        "counts": lambda: malformed.counts(volume.array),
        "orientation": lambda: volume.orientation,
        "voxel_volume_mm3": lambda: abs(np.linalg.det(volume.affine)),
        "equals_label": lambda: np.array_equal(volume.array, malformed.label()),
        "warns": lambda: warned,
    }
    for name, value in expect.items():
        assert got[name]() == value, name


@pytest.mark.parametrize("name", CASES)
def test_a_malformed_file_is_refused_with_its_name_or_read_right(name, tmp_path, capfd):
    case = CASES[name]
    for file, data in case.files.items():
        (tmp_path / file).mkdir() if data is None else (tmp_path / file).write_bytes(data)
    paths = [tmp_path / file for file in case.files] or [tmp_path / name]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if case.outcome == "accept":
            check(read(case, paths), case.expect, bool(caught))
        else:
            try:
                volume = read(case, paths)
            except case.error as error:
                assert paths[-1].name in str(error) and "\n" not in str(error)
            else:
                assert case.outcome == "either", f"accepted as {volume}"
                check(volume, case.expect, bool(caught))
    assert capfd.readouterr() == ("", "")  # nibabel would log here


FIELD = st.sampled_from(
    [b"\0\0\0\0", b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\1\0\0\0", b"\xff\xff\xff\x7f", b"\0\0\x80\xbf"]
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 86), FIELD | st.binary(min_size=4, max_size=4)), min_size=1, max_size=4)
)
def test_no_header_whatever_its_bytes_ends_in_a_foreign_error(folder, edits):
    data = bytearray(malformed.nii(malformed.image()))
    for word, value in edits:
        data[4 * word : 4 * word + 4] = value
    (folder / "a.nii").write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # numpy's warnings are foreign too
        warnings.simplefilter("ignore", UserWarning)
        try:
            volume = bob.read_volume(folder / "a.nii", channels=True).to_ras()
        except InputError as error:
            assert "a.nii" in str(error)
        else:
            assert np.isfinite(volume.array).all() and np.isfinite(volume.affine).all()
