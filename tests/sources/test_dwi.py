"""A BIDS folder of diffusion series through its recipe into a store, with files and pictures beside it."""

import nibabel
import numpy as np
import pytest
from PIL import Image

from configs import dwi
from tests.diffusion import fields
from tests.volumes import real
from ukbob_jax import errors, files
from ukbob_jax.jobs import ingest
from ukbob_jax.store.reader import Store

pytest.importorskip("dipy")
pytest.importorskip("SimpleITK")
B = np.array([5.0, 0.0, *[1000.0] * 12])
G = np.concatenate([np.zeros((2, 3)), fields.directions(12)])
AXES = fields.rotation(2)
TENSOR = AXES @ np.diag(fields.EIGENVALUES) @ AXES.T
SHAPE = (16, 14, 12)
AFFINE = np.array([[0.0, 0, -2, 20], [2.5, 0, 0, -15], [0, 2, 0, -9], [0, 0, 0, 1]])  # ASL


def save(root, subject, noise=0.0, gradients=True, shape=SHAPE):
    """A ball of one tensor in air."""
    distance = np.linalg.norm((np.indices(shape).T / (np.array(shape) - 1) - 0.5).T, axis=0)
    inside = (distance < 0.38)[..., None]
    series = np.where(inside, fields.signal(B, G, TENSOR), 5.0)
    series += noise * np.random.default_rng(0).normal(size=series.shape)
    folder = root / subject / "dwi"
    folder.mkdir(parents=True)
    nibabel.save(
        nibabel.Nifti1Image(np.abs(series).astype(np.float32), AFFINE), folder / f"{subject}_dwi.nii.gz"
    )
    if gradients:
        fields.write_gradients(f"{folder}/{subject}_dwi", B, fields.to_fsl(G, AFFINE))
    return inside[..., 0]


def config(root, variant="all"):
    made = dwi.get_config(variant)
    made.store, made.workers, made.source.root = str(root / variant), 1, str(root)
    made.source.output = str(root / "maps")
    return made


def test_the_tensor_alone_arrives_in_the_world_and_is_not_made_twice(tmp_path):
    inside = save(tmp_path, "sub-1")
    save(tmp_path, "sub-2", gradients=False)
    with pytest.raises(errors.SomeFailed, match=r"no \.bval and \.bvec"):
        ingest.run(config(tmp_path, "fit"), str(tmp_path))
    [failed] = files.read_jsonl(tmp_path / "failures.jsonl")
    assert failed["subject"] == "sub-2"
    store = Store.open(tmp_path / "fit")
    row = store.rows["sub-1"]
    assert [channel.name for channel in row.channels] == ["t2", "adc", "fa"] and row.labels == ()
    assert row.shape == (12, 16, 14)  # ASL to RAS
    assert row.quality["diffusion"]["shells"] == [[1000.0, 12]] and row.quality["diffusion"]["unaligned"] == 0
    image = {
        name: nibabel.load(tmp_path / "maps" / "sub-1" / f"{name}.nii.gz") for name in ("t2", "adc", "fa")
    }
    ball = np.flip(inside.transpose(2, 0, 1), 0)  # x is -z of the file, y is x, z is y
    np.testing.assert_allclose(
        image["fa"].get_fdata()[ball], fields.anisotropy(fields.EIGENVALUES), rtol=0.01
    )
    np.testing.assert_allclose(image["adc"].get_fdata()[ball], fields.EIGENVALUES.mean(), rtol=0.01)
    np.testing.assert_allclose(image["t2"].get_fdata()[ball], 900, rtol=0.01)
    assert np.asarray(Image.open(tmp_path / "maps" / "sub-1" / "maps.png")).std() > 10
    (tmp_path / "maps" / "sub-1" / "fa.nii.gz").unlink()
    with pytest.raises(errors.SomeFailed):
        ingest.run(config(tmp_path, "fit"), str(tmp_path))
    assert not (tmp_path / "maps" / "sub-1" / "fa.nii.gz").exists()


def test_cleaning_a_noisy_series_leaves_its_tensor(tmp_path):
    """All steps but motion, since a ball cannot say how it turned."""
    inside = save(tmp_path, "sub-1", noise=15.0, shape=(32, 28, 24))
    made = config(tmp_path)
    made.source.output, made.source.motion = "", False
    ingest.run(made, str(tmp_path))
    store = Store.open(tmp_path / "all")
    row = store.rows["sub-1"]
    assert row.labels == ("mask/anatomy",) and not (tmp_path / "maps").exists()
    ball = np.flip(inside.transpose(2, 0, 1), 0)
    brain = store.read("sub-1", "label/mask/anatomy") == 1
    assert 2 * (brain & ball).sum() / (brain.sum() + ball.sum()) > 0.8
    _, adc, fa = np.moveaxis(store.read("sub-1", "image"), -1, 0)
    core = brain & ball
    assert abs(np.median(adc[core]) / fields.EIGENVALUES.mean() - 1) < 0.05
    assert abs(np.median(fa[core]) / fields.anisotropy(fields.EIGENVALUES) - 1) < 0.05
    assert not fa[~brain].any()


def test_gradients_that_do_not_fit_are_one_failure(tmp_path):
    save(tmp_path, "sub-1")
    (tmp_path / "sub-1" / "dwi" / "sub-1_dwi.bval").write_text("0 1000")
    with pytest.raises(errors.MismatchError, match=r"dwi\.bval: 2 gradients, but its image has 14 volumes"):
        ingest.run(config(tmp_path, "fit"), str(tmp_path))


@pytest.mark.parametrize(
    "field, value, message", [("b0_s_mm2", -1.0, "0 or more"), ("slice_axis", 3, "0, 1 or 2")]
)
def test_settings_that_mean_nothing(tmp_path, field, value, message):
    save(tmp_path, "sub-1")
    made = config(tmp_path)
    made.source[field] = value
    with pytest.raises(errors.ConfigError, match=rf"config\.source\.{field} .*{message}"):
        ingest.run(made, str(tmp_path))


def test_a_real_cord_through_all_steps(tmp_path):
    given = real.folder("sct_spinal_cord") / "dmri"
    folder = tmp_path / "sub-1" / "dwi"
    folder.mkdir(parents=True)
    for name, ending in (("dmri.nii.gz", "nii.gz"), ("bvals.txt", "bval"), ("bvecs.txt", "bvec")):
        (folder / f"sub-1_dwi.{ending}").write_bytes((given / name).read_bytes())
    with pytest.warns(UserWarning, match=r"badly: condition number|motion of \d volumes") as told:
        ingest.run(config(tmp_path), str(tmp_path))
    assert "motion of 6 volumes could not be found" in "".join(
        str(one.message) for one in told
    )  # of five slices
    row = Store.open(tmp_path / "all").rows["sub-1"]
    assert row.shape == (40, 42, 5) and row.quality["diffusion"]["shells"] == [[750.0, 6]]
    assert np.asarray(Image.open(tmp_path / "maps" / "sub-1" / "maps.png")).std() > 10
