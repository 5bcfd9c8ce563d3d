"""The ahead-of-time compile for an H100: how it reads programs, and (slow) what the training step may cost there."""

import json
import pathlib
import subprocess
import sys

import pytest

from tools import compile_for_gpu as gpu
from ukbob_jax import devices

ROOT = pathlib.Path(gpu.__file__).parents[1]

# A map of 2 x 50 cubed x 4 turned and cut, a product of 2 x 10^6 x 4 x 200 FLOPs, a loop of three turns, and a convolution.
PROGRAM = """\
HloModule jit_train_step

%turn (a: f32[2,50,50,50,4]) -> f32[2,4,50,50,50] {
  %a = f32[2,50,50,50,4]{4,3,2,1,0} parameter(0)
  ROOT %t = f32[2,4,50,50,50]{4,3,2,1,0} transpose(%a), dimensions={0,4,1,2,3}
}

%cut (b: f32[8,100], i: s32[]) -> f32[1,100] {
  %b = f32[8,100]{1,0} parameter(0)
  %i = s32[] parameter(1)
  ROOT %c = f32[1,100]{1,0} dynamic-slice(%b, %i, %i), dynamic_slice_sizes={1,100}
}

%put (d: f32[8,100], e: f32[1,100], j: s32[]) -> f32[8,100] {
  %d = f32[8,100]{1,0} parameter(0)
  %e = f32[1,100]{1,0} parameter(1)
  %j = s32[] parameter(2)
  ROOT %u = f32[8,100]{1,0} dynamic-update-slice(%d, %e, %j, %j)
}

%body (s: (s32[], f32[8,100])) -> (s32[], f32[8,100]) {
  %s = (s32[], f32[8,100]{1,0}) parameter(0)
  %n = s32[] get-tuple-element(%s), index=0
  %x = f32[8,100]{1,0} get-tuple-element(%s), index=1
  %row = f32[1,100]{1,0} fusion(%x, %n), kind=kLoop, calls=%cut
  %all = f32[8,100]{1,0} fusion(%x, %row, %n), kind=kLoop, calls=%put
  ROOT %next = (s32[], f32[8,100]{1,0}) tuple(%n, %all)
}

ENTRY %main (p: f32[2,50,50,50,4], q: f32[4,200], r: f32[8,100], w: bf16[4,4,3,3,3]) -> f32[250000,200] {
  %p = f32[2,50,50,50,4]{4,3,2,1,0} parameter(0)
  %q = f32[4,200]{1,0} parameter(1)
  %r = f32[8,100]{1,0} parameter(2)
  %w = bf16[4,4,3,3,3]{4,3,2,1,0} parameter(3)
  %turned = f32[2,4,50,50,50]{4,3,2,1,0} fusion(%p), kind=kInput, calls=%turn, metadata={op_name="jit(train_step)/jvp(SwinUNETR)/encoder1/norm1/mul"}
  %conv = (f32[2,4,50,50,50]{4,3,2,1,0}, u8[64]{0}) custom-call(%turned, %w), custom_call_target="__cudnn$convForward"
  %flat = f32[250000,4]{1,0} bitcast(%p)
  %long = (f32[250000,200]{1,0}, s8[4096]{0}) custom-call(%flat, %q), custom_call_target="__cublas$lt$matmul", backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"],"rhs_contracting_dimensions":["0"]}}}
  %zero = s32[] constant(0)
  %start = (s32[], f32[8,100]{1,0}) tuple(%zero, %r)
  %turns = (s32[], f32[8,100]{1,0}) while(%start), condition=%less, body=%body, backend_config={"known_trip_count":{"n":"3"}}
  ROOT %out = f32[250000,200]{1,0} get-tuple-element(%long), index=0
}
"""  # noqa: E501

LIVE = """\
  Live ranges at 2 (peak):
    turned{}: 4000000 bytes (cumulative: 4000000 bytes)
    long{0}: 200000000 bytes (cumulative: 204000000 bytes)
  Stack trace breakdown for peak usage: 204 000 000 bytes
"""
STEP = gpu.Step(voxels=250_000, classes=7, tokens=(343, 216))


def test_counts_what_kernels_read_and_write() -> None:
    moved = {kernel.one.name: (kernel.times, kernel.moved) for kernel in gpu.kernels(PROGRAM)}
    map_bytes, row = 4_000_000, 400
    assert moved == {
        "turned": (1, 2 * map_bytes),
        "conv": (1, 2 * map_bytes + 2 * 4 * 4 * 27),  # without its workspace
        "long": (1, map_bytes + 4 * 800 + 4 * 250_000 * 200),
        "row": (3, row + 4 + row),  # the loop's three turns, of the array only the row
        "all": (3, row + 4 + row),
    }


def test_summary_of_a_program_written_by_hand() -> None:
    dumps = {
        "optimizations": PROGRAM,
        "live-range": LIVE,
        "memory-usage-report": "Memory Space: default (color=0)\nTotal bytes: 300000000 (286MiB)\n",
        "stablehlo": "",
    }
    found = gpu.summary(dumps, STEP)
    given = 4_000_000 + 4 * 800 + 4 * 800 + 2 * 4 * 4 * 27
    assert found["memory"] == {"arguments": given, "temporary": 300_000_000 - given}
    assert found["kernels"] == 3 + 2 * 3 and found["other_convolutions"] == 0
    assert found["cudnn_convolutions"] == {"Forward f32 x bf16": 1}
    assert found["relayouts"] == {"kernels": 1, "maps": 4_000_000, "bytes": 8_000_000}
    assert [one["flops"] for one in found["float32_products"]] == []  # 0.4 G
    assert found["bytes_by_part"]["norms and leaky ReLU"] == 8_000_000
    assert found["bytes_by_part"]["convolutions"] == 8_000_000 + 2 * 4 * 4 * 27
    assert found["bytes"] == sum(found["bytes_by_part"].values())
    assert [one["bytes"] for one in found["alive_at_peak"]] == [200_000_000, 4_000_000]
    assert "0.008 GB norms and leaky ReLU" in gpu.show({**found, "compile_s": 1.0, "versions": {}})


def test_finds_long_products_of_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "LONG_PRODUCT", 1e8)
    assert [flops for flops, _ in gpu.float32_products(PROGRAM)] == [2.0 * 250_000 * 200 * 4]
    assert not gpu.float32_products(PROGRAM.replace("f32", "bf16"))


@pytest.mark.parametrize(
    "line, part",
    [
        ("%x = f32[6,343,343] fusion(%a), kind=kLoop", "attention scores"),
        ("%x = f32[250000,7] fusion(%a), kind=kLoop", "head and loss"),
        ('%x = bf16[9] fusion(%a), metadata={op_name="jit(f)/jvp(SwinUNETR)/head/add"}', "head and loss"),
        ('%x = (bf16[9], u8[0]) custom-call(%a), custom_call_target="__cudnn$convForward"', "convolutions"),
        (
            '%x = f32[9] fusion(%a), metadata={op_name="jit(f)/SwinUNETR/swin/stage1_block0/mlp/mul"}',
            "GELU",
        ),
        ('%x = f32[9] fusion(%a), metadata={op_name="jit(f)/SwinUNETR/encoder2/norm2/mul"}', "norms and leaky ReLU"),
        ('%x = f32[9] fusion(%a), metadata={op_name="jit(f)/SwinUNETR/decoder1/conv_block/conv3/dot"}', "1 x 1 convolution"),
        ('%x = f32[9] fusion(%a), metadata={op_name="jit(f)/SwinUNETR/swin/norm/mul"}', "rest"),
        ('%x = f32[9] fusion(%a), metadata={op_name="jit(train_step)/mul"}', "optimizer and finite guard"),
    ],
)  # fmt: skip
def test_tells_the_parts_of_the_step(line: str, part: str) -> None:
    one = next(gpu.instructions("ENTRY %main (a: f32[9]) -> f32[9] {\n  " + line + "\n}"))
    assert gpu.part_of(gpu.Kernel(one, (), ("f32[9]",), 1, 0), STEP) == part


def test_says_that_the_compiler_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu.devices, "has_cuda_plugin", lambda: False)
    with pytest.raises(SystemExit, match=r"not installed: pip install 'ukbob-jax\[cuda\]'"):
        gpu.main([])


@pytest.mark.slow
@pytest.mark.skipif(not devices.has_cuda_plugin(), reason="JAX's plugin for CUDA is not installed")
@pytest.mark.parametrize("attention, moved", [("plain", 87e9), ("fused", 49e9)])
def test_the_step_stays_within_its_bounds(attention: str, moved: float, tmp_path: pathlib.Path) -> None:
    """96 cubed, width 48, 73 classes, batch 2, bfloat16; docs/benchmarks.md has the numbers."""
    out = tmp_path / "out.json"
    command = [sys.executable, "-m", gpu.__name__, "--attention", attention, "--out", str(out)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    found = json.loads(out.read_text())
    assert found["relayouts"]["kernels"] == 0 and found["float32_products"] == []
    assert found["other_convolutions"] == 0
    assert all("f32" not in name for name in found["cudnn_convolutions"])
    assert sum(found["memory"].values()) < 3.9e9 and found["bytes"] < moved
