"""The pre-training benchmark: its scales, that its views are the objectives', and that PyTorch's side has our losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tools import bench_pretrain
from ukbob_jax.training.objectives import forward, masked, tasks, voco

SIZES = {"voco": (64, 64, 16), "swinunetr": (32, 32, 32)}


class Seen(Exception):
    """Ends an objective once its network has been handed something."""


def small(method: str) -> bench_pretrain.Case:
    return bench_pretrain.Case(method, SIZES.get(method, (32, 32, 16)), 12, batch=1)


def test_ratios_above_one_are_in_our_favour() -> None:
    found = bench_pretrain.compared(
        {"ours": [2.0, 9.0, 2.0], "theirs": [6.0, 5.0, 7.0]}, {"ours": [4.0] * 3, "theirs": [10.0] * 3}, 4
    )
    assert (found["ours_s"], found["theirs_s"]) == (2, 6)
    assert (found["ours_volumes_per_s"], found["theirs_volumes_per_s"]) == (2, pytest.approx(4 / 6))
    assert (found["ratio"], found["cpu_ratio"]) == (3, 2.5)


def test_augmentations_are_a_share_of_a_step_that_has_them() -> None:
    found = bench_pretrain.shares(step=8.0, views=0.4, augment=2.0)
    assert (found["views_share"], found["augment_share"]) == (0.05, 0.2)


def test_every_method_is_timed_and_two_have_a_peer() -> None:
    every = bench_pretrain.cases(bench_pretrain.arguments(["shares"]))
    assert {*tasks.METHODS} - {case.method for case in every} == {
        "s3d",
        "rasd",
    }  # not for Swin-UNETR, not of scans
    two = bench_pretrain.cases(bench_pretrain.arguments(["steps", "--widths", "12", "24"]))
    assert [(case.method, case.width) for case in two] == [
        ("mae", 12),
        ("mae", 24),
        ("voco", 12),
        ("voco", 24),
    ]
    assert two[0].size == (64, 64, 64) and two[2].size == (128, 128, 32)


def test_a_method_without_a_peer_is_refused(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        bench_pretrain.arguments(["steps", "--only", "simclr"])
    assert "no step of simclr in PyTorch; there are mae, voco" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["mae", "fusion", "swinunetr"])
def test_what_is_timed_is_what_the_network_sees(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case, key = small(method), jax.random.key(3)
    batch, handed = {"image": jnp.asarray(case.image)}, []

    def stop(model: object, params: object, state: object, image: jax.Array, key: jax.Array) -> None:
        handed.append(image)
        raise Seen

    monkeypatch.setattr(forward, "dense", stop)
    monkeypatch.setattr(forward, "encode", stop)
    with pytest.raises(Seen):
        case.task.objective({}, None, batch, key)
    timed = bench_pretrain.seen(method, case.options, key, batch)
    np.testing.assert_array_equal(timed, handed[0])
    assert not np.array_equal(timed[: len(case.image)], case.image)


def test_vocos_crops_are_those_of_its_task() -> None:
    case, key = small("voco"), jax.random.key(3)
    batch = {"image": jnp.asarray(case.image)}
    timed, cut = bench_pretrain.seen("voco", case.options, key, batch), case.task.cut(key, batch)
    assert timed["image"].shape == (20, 16, 16, 16, 1)
    jax.tree.map(np.testing.assert_array_equal, timed, cut)


def test_pytorchs_side_has_our_masks_crops_and_losses() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("monai")
    from tools import nnssl_style

    hidden = nnssl_style.block_mask(2, (32, 48, 16), 8, 0.75)
    ours = masked.block_mask(jax.random.key(0), (2, 32, 48, 16), 8, 0.75)
    assert hidden.shape == (2, 1, 32, 48, 16)
    np.testing.assert_array_equal(hidden.sum((1, 2, 3, 4)), ours.sum((1, 2, 3)))
    blocks = hidden.reshape(2, 4, 8, 6, 8, 2, 8).float().mean((2, 4, 6))
    assert set(blocks.unique().tolist()) == {0, 1}

    image, (grid, targets) = torch.arange(2 * 16 * 12 * 8.0).reshape(2, 1, 16, 12, 8), ((4, 3, 1), 5)
    bases, others, overlap = nnssl_style.cut(image, grid, targets)
    cut = voco.cut(
        jax.random.key(0), {"image": jnp.asarray(np.moveaxis(image.numpy(), 1, -1))}, grid=grid, targets=1
    )
    rows = np.moveaxis(np.asarray(cut["image"]), -1, 1).reshape(2, 13, 1, 4, 4, 8)
    np.testing.assert_array_equal(bases, rows[:, :12])
    first = others[:, :, 0, 0, 0, 0].long() - torch.arange(2)[:, None] * (16 * 12 * 8)
    starts = np.stack([first // 96, first // 8 % 12, first % 8], -1)
    np.testing.assert_allclose(overlap, voco.overlaps(starts, (4, 4, 8), (16, 12, 8), grid))

    base, target = torch.randn(2, 12, 7), torch.randn(2, 5, 7)
    theirs = nnssl_style.voco_loss(base, target, overlap).item()
    assert voco.voco(*(jnp.asarray(x.numpy()) for x in (base, target, overlap))).total == pytest.approx(
        theirs, rel=1e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize("method", bench_pretrain.PEERS)
def test_both_sides_have_one_loss_for_the_same_weights_and_inputs(method: str) -> None:
    pytest.importorskip("monai")
    ours, theirs = bench_pretrain.losses(method, 12)
    assert ours == pytest.approx(theirs, rel=bench_pretrain.SAME)
