"""The ahead-of-time compile for TPU slices: how it reads programs, and (slow) a small step for four chips."""

import importlib.util
import json
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from configs import pretrain, swin_bob
from tools import compile_for_pod as pod
from tools import compiled_step
from ukbob_jax.training import sharding

ROOT = pathlib.Path(pod.__file__).parents[1]

# Three exchanges by hand: one of all four devices, an asynchronous pair of two, one of two in a loop of five turns.
PROGRAM = """\
HloModule step

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%body (x: f32[8,3]) -> f32[8,3] {
  %x = f32[8,3]{1,0} parameter(0)
  %part = f32[4,3]{1,0:T(8,128)} reduce-scatter(%x), replica_groups=mesh['data'=2,'fsdp'=2] {'fsdp'}, to_apply=%add
  ROOT %copy = f32[8,3]{1,0} pad(%part, %x), padding=0_4x0_0
}

ENTRY %main (p: bf16[10], q: f32[6], r: f32[8,3]) -> f32[8,3] {
  %p = bf16[10]{0:T(128)(2,1)} parameter(0)
  %q = f32[6]{0} parameter(1)
  %r = f32[8,3]{1,0} parameter(2)
  %both = (bf16[10]{0:T(128)(2,1)}, /*index=1*/f32[6]{0}) all-reduce(%p, %q), replica_groups={{0,1,2,3}}, to_apply=%add
  %begun = (f32[6]{0}, f32[12]{0}) all-gather-start(%q), replica_groups=[2,2]<=[4], dimensions={0}
  %whole = f32[12]{0} all-gather-done(%begun)
  ROOT %turns = f32[8,3]{1,0} while(%r), condition=%less, body=%body, backend_config={"known_trip_count":{"n":"5"}}
}
"""


def test_reads_exchanges_from_a_program_written_by_hand() -> None:
    assert pod.collectives(PROGRAM, 4) == [
        pod.Collective("reduce-scatter", bytes=96, sent=48.0, group=2, times=5),
        pod.Collective("all-reduce", bytes=20 + 24, sent=2 * 44 * 3 / 4, group=4, times=1),
        pod.Collective("all-gather", bytes=48, sent=24, group=2, times=1, beside=True),
    ]
    assert pod.by_kind(pod.collectives(PROGRAM, 4))["reduce-scatter"] == {
        "number": 5,
        "bytes": 480,
        "sent": 240,
    }


# Through main memory go p (20 bytes), w (12), the second result (24), and a copy of q to the other memory (24).
KERNELS = """\
HloModule step

%inner (a: f32[6]) -> f32[6] {
  %a = f32[6]{0} parameter(0)
  ROOT %b = f32[6]{0} negate(%a)
}

ENTRY %main (p: bf16[10], q: f32[6], w: f32[3]) -> (f32[6], f32[6]) {
  %p = bf16[10]{0:T(128)(2,1)} parameter(0)
  %q = f32[6]{0:T(128)} parameter(1)
  %w = f32[3]{0:T(128)} parameter(2)
  %begun = (f32[6]{0:T(128)S(1)}, f32[6]{0:T(128)}, u32[]{:S(2)}) copy-start(%q)
  %near = f32[6]{0:T(128)S(1)} copy-done(%begun)
  %view = f32[6]{0:T(128)S(1)} bitcast(%near)
  %both = (f32[6]{0:T(128)S(1)}, f32[6]{0:T(128)}) fusion(%p, %view, %w, %w), kind=kLoop, calls=%inner
  %first = f32[6]{0:T(128)S(1)} get-tuple-element(%both), index=0
  %second = f32[6]{0:T(128)} get-tuple-element(%both), index=1
  ROOT %out = (f32[6]{0:T(128)S(1)}, f32[6]{0:T(128)}) tuple(%first, %second)
}
"""


def test_traffic_leaves_out_what_stays_in_fast_memory() -> None:
    assert pod.traffic(KERNELS) == 20 + 12 + 24 + 24


# A gather that starts in one kernel and ends in another, and a kernel that sums and keeps its share.
BESIDE = """\
HloModule step

%begin (a: bf16[4,4]) -> bf16[8,4] {
  %a = bf16[4,4]{1,0} parameter(0)
  %g1 = bf16[8,4]{1,0} all-gather(%a), channel_id=2, replica_groups=[2,2]<=[4], dimensions={0}
}

%end (b: bf16[4,4]) -> bf16[8,4] {
  %b = bf16[4,4]{1,0} parameter(0)
  %g2 = bf16[8,4]{1,0:S(1)} all-gather(%b), channel_id=2, replica_groups=[2,2]<=[4], dimensions={0}
}

%all-reduce-scatter.1 (c: bf16[8,4]) -> bf16[4,4] {
  %c = bf16[8,4]{1,0} parameter(0)
  %sum = bf16[8,4]{1,0} all-reduce(%c), channel_id=2, replica_groups=[2,2]<=[4]
}

ENTRY %main (p: bf16[4,4]) -> bf16[4,4] {
  %p = bf16[4,4]{1,0} parameter(0)
  %f1 = bf16[8,4]{1,0} fusion(%p), calls=%begin
  %f2 = bf16[8,4]{1,0} fusion(%p), calls=%end
  ROOT %f3 = bf16[4,4]{1,0} fusion(%f2), calls=%all-reduce-scatter.1
}
"""


def test_an_exchange_beside_other_work_counts_once() -> None:
    assert pod.collectives(BESIDE, 4) == [
        pod.Collective("all-gather", bytes=64, sent=32, group=2, times=1, beside=True),
        pod.Collective("reduce-scatter", bytes=64, sent=32, group=2, times=1),
    ]


def test_the_gradient_of_a_copied_parameter_is_summed_once() -> None:
    mesh = sharding.make_mesh(data=4, fsdp=2, batch_size=8)
    step = jax.jit(
        jax.grad(lambda w, x: jnp.sum(jnp.tanh(x @ w))),
        in_shardings=(sharding.replicated(mesh), sharding.batch_sharding(mesh)),
        out_shardings=sharding.replicated(mesh),
    )
    program = step.lower(np.ones((16, 4), np.float32), np.ones((8, 16), np.float32)).compile().as_text()
    found = pod.collectives(program, mesh.size)
    assert found == [pod.Collective("all-reduce", 16 * 4 * 4, 2 * 256 * 7 / 8, 8, 1)]


def test_a_sharded_parameter_is_gathered_from_its_group() -> None:
    mesh = sharding.make_mesh(data=4, fsdp=2, batch_size=8)
    gather = jax.jit(
        lambda w: w,
        in_shardings=NamedSharding(mesh, PartitionSpec(None, "fsdp")),
        out_shardings=sharding.replicated(mesh),
    )
    found = pod.collectives(gather.lower(np.ones((16, 4), np.float32)).compile().as_text(), mesh.size)
    assert [(one.kind, one.bytes, one.sent, one.group) for one in found] == [("all-gather", 256, 128, 2)]


@pytest.mark.parametrize(
    "size, window", [((5, 6, 7), (3, 3, 3)), ((4, 4, 4), (3, 1, 3)), ((2, 2, 2), (3, 3, 3))]
)
def test_flops_leave_out_the_zeros_of_a_padding(size: tuple, window: tuple) -> None:
    def loss(w: jax.Array, x: jax.Array) -> jax.Array:
        y = jax.lax.conv_general_dilated(
            x, w, (1, 1, 1), "SAME", dimension_numbers=("NDHWC", "DHWIO", "NDHWC")
        )
        return jnp.einsum("bxyzi,ij->bj", y, jnp.ones((4, 3)), precision="highest")

    def both(w: jax.Array, x: jax.Array, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.vjp(loss, w, x)[1](dy)

    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((*window, 2, 4), (2, *size, 2), (2, 3))]
    lowered = jax.jit(both).lower(*shapes)
    products = compiled_step.matmul_flops(lowered.as_text())
    voxels = np.prod(
        [sum(min(n, o + k // 2 + 1) - max(0, o - k // 2) for o in range(n)) for n, k in zip(size, window)]
    )
    assert (
        products == 2 * (2 * voxels * 2 * 2 * 4) + 2 * 2 * 3 * 4
    )  # two gradients, and one product b j x i j


def test_counts_convolutions_by_their_spatial_axes() -> None:
    line = "%1 = stablehlo.convolution(%a, %b) dim_numbers = [b, {}, f]x[{}, i, o]->[b, {}, f], window"
    text = "\n".join(line.format(axes, axes, axes) for axes in ("0, 1, 2", "0, 1, 2", "0, 1"))
    assert compiled_step.convolutions(text) == {3: 2, 2: 1}


@pytest.mark.parametrize("sides, links", [((2, 2), 2), ((16, 16), 4), ((4, 16), 3), ((1, 8), 1)])
def test_prediction_follows_from_published_figures(sides: tuple, links: int) -> None:
    devices = int(np.prod(sides))
    exchanges = [
        pod.Collective("all-reduce", 10**8, 2e8, devices, 3),
        pod.Collective("all-reduce", 4, 0, 1, 1),
    ]
    found = pod.predict(pod.CHIPS["v5e"], sides, devices, 1.97e12, 16.38e9, exchanges)
    latency = 2e-6 * (sum(sides) - len(sides))
    exchange = 3 * (2e8 / (links * 50e9) + latency)
    assert found["compute_s"] == pytest.approx(0.01) and found["memory_s"] == pytest.approx(0.02)
    assert found["exchange_s"] == pytest.approx(exchange)
    assert found["efficiency_at_peak"] == pytest.approx(0.01 / (0.01 + exchange))
    assert found["efficiency_at_roofline"] == pytest.approx(0.02 / (0.02 + exchange))


def test_an_exchange_of_some_devices_uses_one_link() -> None:
    some = pod.Collective("all-gather", 10**8, 1e8, 8, 1, beside=True)
    found = pod.predict(pod.CHIPS["v5e"], (16, 16), 256, 1e12, 1e9, [some])
    assert found["beside_s"] == found["exchange_s"] and found["efficiency_overlapped"] == 1
    assert found["exchange_s"] == pytest.approx(1e8 / 50e9 + 14e-6)


def test_compiles_what_the_recipe_trains() -> None:
    config = swin_bob.get_config("pod")
    assert config.model.in_channels == compiled_step.CHANNELS and config.model.norm == compiled_step.NORM
    assert config.augment == pod.AUGMENT and config.loss.name == "dice_ce"
    assert {**config.optimizer, "steps": config.train.steps}.keys() == compiled_step.OPTIMIZER.keys()
    defaults = pod.parse([])
    assert (
        config.model.feature_size == defaults.feature_size and config.model.out_channels == defaults.classes
    )
    assert config.data.crop == (defaults.crop,) * 3 and config.model.dtype == defaults.dtype


@pytest.mark.parametrize("name", ["v9:2x2", "v5e", "v5e:2"])
def test_refuses_an_unknown_slice(name: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        pod.parse(["--topology", name])
    assert "chips: v5e, v5p, v6e, tpu7x" in capsys.readouterr().err


def test_two_devices_share_a_chip_of_7x() -> None:
    chip, share = pod.CHIPS["tpu7x"], pod.CHIPS["tpu7x"].of_device()
    assert (share.flops, share.memory, share.memory_rate) == (2307e12 / 2, 96 * 2**30, 7380e9 / 2)
    assert share.link_rate * 2 == chip.link_rate == 100e9 and pod.CHIPS["v6e"].of_device() == pod.CHIPS["v6e"]


@pytest.mark.parametrize(
    "name, devices", [("v6e:2x2", 4), ("v6e:16x16", 256), ("tpu7x:2x2x1", 8), ("tpu7x:4x4x4", 128)]
)
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
def test_newer_slices_have_their_devices(name: str, devices: int) -> None:
    program = (
        "import jax\njax.config.update('jax_platforms', 'cpu')\n"
        f"from tools import compile_for_pod as pod\nprint(len(pod.topology({name!r})[2]))"
    )
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert int(run.stdout) == devices


@pytest.mark.parametrize("method", ["voco", "fusion"])
def test_a_pretraining_is_that_of_its_recipe(method: str) -> None:
    args = pod.parse(["--method", method, "--feature_size", "12"])
    config, work = pretrain.get_config(method), compiled_step.pretraining(args, method)
    assert work.arrays["stored"].shape == (1, *config.data.crop)
    state = jax.eval_shape(work.init, jax.random.key(0))
    assert "decoder1" in state.params if method == "fusion" else set(state.params) == {"swin", "pretext"}
    assert work.rows == (2 if method == "fusion" else 1)


def test_a_step_on_one_device_has_more_flops_than_its_products() -> None:
    def step(state: dict, batch: dict, key: jax.Array) -> jax.Array:
        return jnp.tanh(batch["image"] @ state["w"] + 1)

    arrays = {"image": jax.ShapeDtypeStruct((8,), jnp.float32)}
    work = compiled_step.Work(step, lambda key: {"w": jnp.zeros((8, 3))}, arrays, rows=2)
    assert compiled_step.one_device_flops(work, samples=5) == 2 * 10 * 8 * 3 + 10 * 3


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
def test_a_small_step_compiles_for_four_chips(tmp_path: pathlib.Path) -> None:
    command = [sys.executable, "-m", pod.__name__, "--feature_size", "12", "--classes", "3", "--crop", "32"]
    out = tmp_path / "out.json"
    run = subprocess.run([*command, "--out", str(out)], capture_output=True, text=True, check=False, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    found = json.loads(out.read_text())
    assert found["mesh"] == {"data": 4, "fsdp": 1, "space": 1} and found["batch_size"] == 4
    assert found["convolutions_by_spatial_axes"].keys() == {"3"}  # the forms for CPU use two
    assert found["parameter_bytes"] == found["parameter_bytes_here"] == 4 * found["parameters"]
    # Gradients are summed once, those of kernels in bfloat16.
    assert (
        2 * found["parameters"]
        < found["collectives"]["all-reduce"]["bytes"]
        <= 4 * found["parameters"] + 1024
    )
    assert 0 < found["memory_share"] < 1 and found["flops_over_share"] > 1
    assert "efficiency" in run.stdout
