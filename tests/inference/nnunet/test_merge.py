"""Tiles, merging and labels against the same in numpy, written as nnU-Net's code is."""

import dataclasses
import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from tests.inference.nnunet import test_plans
from ukbob_jax.errors import ConfigError, FileError
from ukbob_jax.inference.nnunet import export, merge, plans, tiles
from ukbob_jax.inference.nnunet.plans import Resampling
from ukbob_jax.regions import Regions
from ukbob_jax.volumes.volume import Volume

PATCH = (4, 6, 8)


@dataclasses.dataclass(frozen=True)
class Ramps:
    """A network that sees where in the tile a voxel is: mirroring and shifts change its logits."""

    def __call__(self, variables, x):
        ramp = sum(jnp.arange(n).reshape([-1 if a == i else 1 for a in range(x.ndim - 2)]) * (i + 1)
                   for i, n in enumerate(x.shape[1:-1]))  # fmt: skip
        return jnp.stack([x[..., 0] * w + jnp.sin(ramp * w)[None] for w in variables], axis=-1)


MEMBERS = (np.array([1.0, -0.5, 0.3], np.float32), np.array([0.2, 0.9, -0.7], np.float32))


def numpys(array, patch, step, axes):
    """Merged logits, k z y x float64."""
    flat, apply = len(patch) == 2, Ramps()
    size = (1, *patch) if flat else patch
    more = [max(p - n, 0) for p, n in zip(size, array.shape[1:])]
    width = [(m // 2, m // 2 + m % 2) for m in more]
    padded = np.pad(array, [(0, 0), *width])
    steps = [compute_steps(n, p, step) for n, p in zip(padded.shape[1:], size)]
    if flat:
        steps[0] = list(range(padded.shape[1]))
    gauss = np.zeros(patch)
    gauss[tuple(p // 2 for p in patch)] = 1
    gauss = ndimage.gaussian_filter(gauss, [p / 8 for p in patch], 0, mode="constant", cval=0)
    gauss = (gauss / gauss.max() * 10).reshape(size)
    gauss[gauss == 0] = gauss[gauss > 0].min()
    total, count = np.zeros((3, *padded.shape[1:])), np.zeros(padded.shape[1:])
    flips = [c for n in range(len(axes) + 1) for c in itertools.combinations(axes, n)]
    for start in itertools.product(*steps):
        place = tuple(slice(s, s + p) for s, p in zip(start, size))
        tile = np.moveaxis(padded[(slice(None), *place)], 0, -1)
        for variables, flip in itertools.product(MEMBERS, flips):
            flip = [a + int(flat) for a in flip]
            x = np.flip(tile, flip)
            y = np.asarray(apply(variables, x if flat else x[None]))
            y = np.flip(y if flat else y[0], flip)
            total[(slice(None), *place)] += np.moveaxis(y, -1, 0) * gauss / len(flips) / len(MEMBERS)
        count[place] += gauss
    inside = tuple(slice(a, a + n) for (a, _), n in zip(width, array.shape[1:]))
    return (total / count)[(slice(None), *inside)]


def compute_steps(size, patch, step):
    count = int(np.ceil((size - patch) / (patch * step))) + 1
    width = (size - patch) / (count - 1) if count > 1 else 99999999999
    return [int(np.round(width * i)) for i in range(count)]


def whole(array, patch, step=0.5, axes=(), batch=1):
    laid = tiles.lay(array.shape[1:], patch, step)
    found = np.stack([np.asarray(p) for p in merge.planes(Ramps(), MEMBERS, array, laid, axes, batch)], 1)
    return found[:, :, *(slice(b, b + s) for b, s in zip(laid.before[1:], laid.shape[1:]))]


@pytest.mark.parametrize(
    ("shape", "patch", "step", "axes", "batch"),
    [
        ((11, 15, 13), PATCH, 0.5, (), 1),
        ((11, 15, 13), PATCH, 0.8, (0, 1, 2), 3),
        ((3, 15, 5), PATCH, 0.5, (1,), 4),
        ((3, 9, 13), PATCH[1:], 0.5, (0, 1), 5),
        ((2, 5, 5), PATCH[1:], 0.5, (), 1),
    ],
)
def test_merged_logits_are_nnunets(shape, patch, step, axes, batch):
    array = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    expected = numpys(array, patch, step, axes)
    np.testing.assert_allclose(whole(array, patch, step, axes, batch), expected, atol=2e-5)


def test_tiles_are_spread_evenly_and_round_half_to_even():
    laid = tiles.lay((27, 75, 85), (16, 56, 48))
    assert [sorted(set(laid.starts[:, a].tolist())) for a in range(3)] == [[0, 6, 11], [0, 19], [0, 18, 37]]
    assert laid.bucket == (32, 84, 96) and not laid.flat
    assert tiles.lay((85, 27, 75), (16, 56, 48)).before == (0, 14, 0)
    with pytest.raises(ConfigError, match="step_size 0"):
        tiles.lay((5, 5, 5), PATCH, 0)


def test_weights_are_cut_off_and_never_zero():
    weight = tiles.gaussian((9, 32, 16))
    assert (
        weight.dtype == np.float32
        and weight.max() == 10
        and weight.argmax() == np.ravel_multi_index((4, 16, 8), weight.shape)
    )
    assert (weight > 0).all()


def model(tmp_path, regions=None):
    found = plans.read(test_plans.write(tmp_path))
    how = Resampling("resample_data_or_seg_to_shape", {"order": 1, "order_z": 0, "force_separate_z": None})
    return dataclasses.replace(
        found, resampling_logits=how, regions=regions, labels={0: "background", 1: "a", 2: "b"},
        spacing=(2.0, 2.0, 2.0),
    )  # fmt: skip


REGIONS = Regions(("x", "y", "z"), ((1, 2), (2,), (3,)), (5, 1, 9), {0: "background"})


@pytest.mark.parametrize("regions", [None, REGIONS])
@pytest.mark.parametrize("spacing", [[1.0, 2.0, 1.5], [7.0, 1.0, 1.0], [1.0, 1.0, 7.0], [2.0, 2.0, 2.0]])
def test_labels_are_those_of_resampled_logits(tmp_path, regions, spacing):
    """Spacing z y x of the file; the plans put y first. Labels go back into the box and the file's axes."""
    resize = pytest.importorskip("skimage.transform").resize
    said = model(tmp_path, regions)
    array = np.random.default_rng(1).normal(size=(1, 7, 9, 11)).astype(np.float32)
    current = [spacing[axis] for axis in said.transpose_forward]
    cropped = tuple(round(n * 2.0 / s) for n, s in zip(array.shape[1:], current))
    before = tuple(n + 3 for n in cropped)
    shape = [before[axis] for axis in said.transpose_backward][::-1]
    properties = {
        "spacing": spacing,
        "shape_before_cropping": before,
        "bbox_used_for_cropping": [[1, n + 1] for n in cropped],
        "shape_after_cropping_and_before_resampling": cropped,
        "grid": Volume(np.broadcast_to(np.uint8(0), shape), np.diag([*spacing[::-1], 1.0])),
    }
    laid = tiles.lay(array.shape[1:], PATCH)
    planes = merge.planes(Ramps(), MEMBERS, array, laid)
    labels, certain = export.label(planes, laid, export.taps(said, laid.shape, properties), said, True)
    merged = numpys(array, PATCH, 0.5, ())
    apart = max(current) / min(current) > 3
    keep = int(np.argmax(current))
    if apart:
        size = [n if a != keep else array.shape[1 + a] for a, n in enumerate(cropped)]
        logits = np.stack([resize(c, size, 1, mode="edge", anti_aliasing=False) for c in merged])
        at = array.shape[1 + keep] / cropped[keep] * (np.arange(cropped[keep]) + 0.5) - 0.5
        logits = logits.take(np.clip(np.floor(at + 0.5), 0, array.shape[1 + keep] - 1).astype(int), keep + 1)
    else:
        logits = np.stack([resize(c, cropped, 1, mode="edge", anti_aliasing=False) for c in merged])
    expected = logits.argmax(0)
    if regions:
        expected = np.zeros(cropped, int)
        for channel, value in zip(logits, regions.region_labels):
            expected[channel > 0] = value
    best = np.sort(logits, 0)
    close = (np.abs(logits).min(0) if regions else best[-1] - best[-2]) < 1e-4
    assert close.mean() < 0.01
    np.testing.assert_array_equal(labels[~close], expected[~close])
    assert certain is not None and certain.labels.shape == array.shape[1:]
    pasted = export.paste(labels, said, properties)
    assert pasted.shape == tuple(shape) and pasted.array.dtype == np.uint8
    inside = pasted.array.T.transpose(said.transpose_forward)[1:-2, 1:-2, 1:-2]
    np.testing.assert_array_equal(inside, labels)
    assert pasted.array.sum() == labels.sum()


def test_labels_of_turned_scans_are_turned_back(tmp_path):
    said = dataclasses.replace(model(tmp_path), reader="NibabelIOWithReorient")
    affine = np.array([[0, 0, 2, 0], [-1, 0, 0, 9], [0, -3, 0, 8], [0, 0, 0, 1.0]])
    stored = Volume(np.random.default_rng(2).integers(0, 3, (4, 5, 6)).astype(np.uint8), affine)
    turned = stored.to_ras().array.T.transpose(said.transpose_forward)
    properties = {
        "shape_before_cropping": turned.shape,
        "bbox_used_for_cropping": [[0, n] for n in turned.shape],
        "grid": stored,
    }
    np.testing.assert_array_equal(export.paste(turned, said, properties).array, stored.array)


def test_many_labels_need_more_bits(tmp_path):
    said = dataclasses.replace(model(tmp_path), labels={i: str(i) for i in range(256)})
    planes = [jnp.zeros((300, 1, 1)).at[256].set(1)]
    laid = tiles.lay((1, 1, 1), (1, 1, 1))
    to = export.resample.taps(export.resample.Axes((1, 1, 1), (1,) * 3, (None,) * 3), (1, 1, 1), "")
    labels, _ = export.label(planes, laid, to, said, False)
    assert labels.dtype == np.uint16 and labels[0, 0, 0] == 256


def test_logits_that_are_not_resampled_must_fit(tmp_path):
    said = dataclasses.replace(model(tmp_path), resampling_logits=Resampling("no_resampling_hack", {}))
    properties = {"spacing": [1.0] * 3, "shape_after_cropping_and_before_resampling": (5, 6, 7)}
    with pytest.raises(FileError, match="as they are"):
        export.taps(said, (4, 6, 7), properties)
    assert len(export.taps(said, (5, 6, 7), properties)) == 3
