"""Attention inside windows, with a bias per head and pair of tokens; written so that a CPU keeps it in its cache.

With 7 x 7 x 7 windows the 343 x 343 scores of all windows are far larger than anything else in the network. On CPUs and
GPUs they are therefore never held together: a step computes one window (or a few small ones) of one head on a CPU, as many
windows as half the second level cache holds on a GPU, and the backward pass computes the scores again from their logsumexp
(as Dao et al. 2022, FlashAttention, do). On a TPU it is the plain product, softmax, product; XLA fuses these, and decides
whether the backward pass computes them again. `fused_attention.py` has kernels for NVIDIA's GPUs that never write a score.

Axes: `b` batch, `n` windows, `t` tokens of a window (`q` query, `k` key), `h` heads, `d` width of a head; inside a
step `c` windows at a time, in `m` steps.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name

# Added to the score of tokens in different regions. Not -inf: public weights were trained with this value.
MASKED = -100.0
# Scores of all windows and heads up to which they are computed at once on every platform.
MAX_DENSE_SCORES = 1_000_000
# Scores of one step on a CPU: with a few copies they stay in a core's second level cache.
SCORES_PER_CHUNK = 120_000
# Scores of one step on a GPU: 24 MB in float32, half of an H100's second level cache.
SCORES_PER_TILE = 6_000_000
KINDS = ("plain", "fused")  # of attention
ATTENDED = "attended"  # name of the result and the logsumexp, for policies of `jax.checkpoint`

Dropout = Callable[[jax.Array], jax.Array]


def attend(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    bias: jax.Array,
    regions: np.ndarray | None,
    dropout: Dropout | None = None,
    kind: str = "plain",
) -> jax.Array:
    """`softmax(q k' + bias + mask) v` inside each window and head; `q` is scaled already.

    Args:
        q, k, v: `b n t h d`, one float type.
        bias: `h t t` (query, key), float32, or float64 with float64 arithmetic.
        regions: `n t` integers, the same for the whole batch: tokens of a window see each other where these are
            equal. None: all do.
        dropout: applied to the softmax's output, `b n h t t`. With it the scores of all windows are held at once.
        kind: "fused" takes the kernels of `fused_attention.py` on an NVIDIA GPU; XLA does not split them over several.
    Returns:
        `b n t h d`, of the type of `v`. Scores and softmax are at least float32.
    """
    if dropout is not None:
        return _plain(q, k, v, bias, regions, dropout)[0]
    if q.size // q.shape[-1] * q.shape[2] <= MAX_DENSE_SCORES:
        return _plain(q, k, v, bias, regions)[0]

    @jax.custom_vjp
    def run(q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array) -> jax.Array:
        return run_forward(q, k, v, bias)[0]

    def run_forward(*inputs: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        out, logsumexp = lax.platform_dependent(
            *inputs,
            cpu=functools.partial(_forward_cpu, regions=regions),
            cuda=functools.partial(_forward_fused if kind == "fused" else _forward_tiled, regions=regions),
            default=functools.partial(_plain, regions=regions),
        )
        out, logsumexp = checkpoint_name((out, logsumexp), ATTENDED)
        return out, (*inputs, out, logsumexp)

    def run_backward(residuals: tuple[jax.Array, ...], dout: jax.Array) -> tuple[jax.Array, ...]:
        return lax.platform_dependent(
            *residuals,
            dout,
            cpu=functools.partial(_backward_cpu, regions=regions),
            cuda=functools.partial(_backward_fused if kind == "fused" else _backward_tiled, regions=regions),
            default=lambda q, k, v, bias, out, logsumexp, dout: jax.vjp(
                lambda q, k, v, bias: _plain(q, k, v, bias, regions)[0], q, k, v, bias
            )[1](dout),
        )

    run.defvjp(run_forward, run_backward)
    return run(q, k, v, bias)


def _scores(q: jax.Array, k: jax.Array, bias: jax.Array, regions: np.ndarray | jax.Array | None) -> jax.Array:
    """`b n h q k`, of the type of `bias`."""
    scores = jnp.einsum("bnqhd,bnkhd->bnhqk", q, k, preferred_element_type=bias.dtype)
    # Without the barrier the scores move 48 GB in place of 37 on a GPU (tools/compile_for_gpu.py, plain).
    scores = lax.optimization_barrier(scores) + bias[None, None]
    if regions is None:
        return scores
    ids = jnp.asarray(regions)
    masked = ids[:, None, :, None] != ids[:, None, None, :]  # n 1 q k
    return jnp.where(masked[None], scores + MASKED, scores)


def _plain(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    bias: jax.Array,
    regions: np.ndarray | jax.Array | None,
    dropout: Dropout = lambda probs: probs,
) -> tuple[jax.Array, jax.Array]:
    """The result and the logsumexp of the scores, `b n t h 1`."""
    scores = _scores(q, k, bias, regions)
    probs = dropout(jax.nn.softmax(scores, axis=-1).astype(v.dtype))
    logsumexp = jnp.moveaxis(jax.nn.logsumexp(scores, axis=-1, keepdims=True), 2, 3)
    return jnp.einsum("bnhqk,bnkhd->bnqhd", probs, v), logsumexp


def _forward_fused(
    q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array, regions: np.ndarray | None
) -> tuple[jax.Array, jax.Array]:
    """As `_plain`."""
    from ukbob_jax.models.kernels import fused_attention  # takes a second to import

    return fused_attention.forward(q, k, v, bias, regions, MASKED)


def _backward_fused(*arrays: Any, regions: np.ndarray | None) -> tuple[jax.Array, ...]:
    """As `_backward_cpu`."""
    from ukbob_jax.models.kernels import fused_attention

    return fused_attention.backward(*arrays, regions=regions, masked=MASKED)


def _forward_tiled(
    q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array, regions: np.ndarray | None
) -> tuple[jax.Array, jax.Array]:
    """As `_plain`."""
    tiles = tuple(map(_to_tiles, (q, k, v)))
    out, logsumexp = lax.map(
        lambda one: _plain(*one[0], bias=bias, regions=one[1]), (tiles, _region_tiles(regions, q))
    )
    return _from_tiles(out), _from_tiles(logsumexp)


def _backward_tiled(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    bias: jax.Array,
    out: jax.Array,
    logsumexp: jax.Array,
    dout: jax.Array,
    regions: np.ndarray | None,
) -> tuple[jax.Array, ...]:
    """As `_backward_cpu`. Products take the type of `v`, sums that of `bias`."""
    along = (dout.astype(bias.dtype) * out.astype(bias.dtype)).sum(-1, keepdims=True)  # b n t h 1

    def step(total: jax.Array, inputs: tuple) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        (q, k, v, dout, along, logsumexp), ids = inputs  # b c t h d
        probs = jnp.exp(_scores(q, k, bias, ids) - jnp.moveaxis(logsumexp, 3, 2))
        dprobs = jnp.einsum("bnqhd,bnkhd->bnhqk", dout, v, preferred_element_type=bias.dtype)
        dscores = (probs * (dprobs - jnp.moveaxis(along, 3, 2))).astype(v.dtype)
        # Without the barrier XLA keeps a float32 copy beside the narrower one.
        probs, dscores = lax.optimization_barrier((probs.astype(v.dtype), dscores))
        dq = jnp.einsum("bnhqk,bnkhd->bnqhd", dscores, k)
        dk = jnp.einsum("bnhqk,bnqhd->bnkhd", dscores, q)
        dv = jnp.einsum("bnhqk,bnqhd->bnkhd", probs, dout)
        return total + dscores.sum((0, 1), dtype=bias.dtype), (dq, dk, dv)

    tiles = tuple(map(_to_tiles, (q, k, v, dout, along, logsumexp)))
    dbias, gradients = lax.scan(step, jnp.zeros_like(bias), (tiles, _region_tiles(regions, q)))
    return (*map(_from_tiles, gradients), dbias)


def _windows_per_tile(shape: tuple[int, ...]) -> int:
    """The largest divisor of the windows whose scores fit a tile."""
    batch, count, tokens, heads = shape[:4]
    most = max(1, SCORES_PER_TILE // (batch * heads * tokens * tokens))
    return next(c for c in range(min(count, most), 0, -1) if count % c == 0)


def _to_tiles(x: jax.Array) -> jax.Array:
    """`b n t h d` to `m b c t h d`."""
    return jnp.moveaxis(x.reshape(x.shape[0], -1, _windows_per_tile(x.shape), *x.shape[2:]), 1, 0)


def _from_tiles(x: jax.Array) -> jax.Array:
    """`m b c t h d` back to `b n t h d`."""
    x = jnp.moveaxis(x, 0, 1)
    return x.reshape(x.shape[0], -1, *x.shape[3:])


def _region_tiles(regions: np.ndarray | None, x: jax.Array) -> jax.Array | None:
    """Regions `n t` as `m c t`, for windows of `x`."""
    if regions is None:
        return None
    return jnp.asarray(regions).reshape(-1, _windows_per_tile(x.shape), x.shape[2])


def _forward_cpu(
    q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array, regions: np.ndarray | None
) -> tuple[jax.Array, jax.Array]:
    """As `_plain`."""
    dtype, shape = v.dtype, v.shape
    q, k, v = (x.astype(bias.dtype) for x in (q, k, v))
    q, k = _with_mask(q, k, regions)

    def step(qkv: tuple[jax.Array, ...], bias: jax.Array) -> tuple[jax.Array, jax.Array]:
        q, k, v = qkv  # b c t d
        scores = jnp.einsum("bcqd,bckd->bcqk", q, k) + bias[None, None]
        top = scores.max(-1, keepdims=True)
        probs = jnp.exp(scores - top)
        total = probs.sum(-1, keepdims=True)
        return jnp.einsum("bcqk,bckd->bcqd", probs, v) / total, top + jnp.log(total)

    def head(inputs: tuple) -> tuple[jax.Array, jax.Array]:
        qkv, bias = inputs
        return lax.map(lambda one: step(one, bias), qkv)

    out, logsumexp = lax.map(head, (tuple(map(_to_steps, (q, k, v))), bias))
    return _from_steps(out, shape).astype(dtype), _from_steps(logsumexp, shape)


def _backward_cpu(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    bias: jax.Array,
    out: jax.Array,
    logsumexp: jax.Array,
    dout: jax.Array,
    regions: np.ndarray | None,
) -> tuple[jax.Array, ...]:
    """Gradients of q, k, v and bias. Scores are kept key by query, so that two of three products read them in order."""
    dtypes, shape = (q.dtype, k.dtype, v.dtype), v.shape
    width, batch = shape[-1], shape[0]
    q, k, v, out, dout = (x.astype(bias.dtype) for x in (q, k, v, out, dout))
    along = (dout * out).sum(-1, keepdims=True)  # b n t h 1
    q, k = _with_mask(q, k, regions)

    def step(total: jax.Array, inputs: tuple, bias: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        q, k, v, dout, along, logsumexp = inputs  # b c t d
        probs = jnp.einsum("bckd,bcqd->bckq", k, q) + bias[None, None] - jnp.swapaxes(logsumexp, 2, 3)
        probs = jnp.exp(probs)
        dscores = probs * (jnp.einsum("bckd,bcqd->bckq", v, dout) - jnp.swapaxes(along, 2, 3))
        dq = jnp.einsum("bckq,bckd->bcqd", dscores, k[..., :width])
        dk = jnp.einsum("bckq,bcqd->bckd", dscores, q[..., :width])
        dv = jnp.einsum("bckq,bcqd->bckd", probs, dout)
        return total + dscores.sum(1), (dq, dk, dv)

    def head(inputs: tuple) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        arrays, bias = inputs
        total = jnp.zeros(
            (batch, *bias.shape), bias.dtype
        )  # one sum per scan: nothing crosses devices in the loop
        total, gradients = lax.scan(lambda total, one: step(total, one, bias), total, arrays)
        return total.sum(0), gradients

    arrays = tuple(map(_to_steps, (q, k, v, dout, along, logsumexp)))
    dbias, gradients = lax.map(head, (arrays, jnp.swapaxes(bias, 1, 2)))
    gradients = (_from_steps(x, shape).astype(dtype) for x, dtype in zip(gradients, dtypes))
    return (*gradients, jnp.swapaxes(dbias, 1, 2))


def _with_mask(q: jax.Array, k: jax.Array, regions: np.ndarray | None) -> tuple[jax.Array, jax.Array]:
    """The mask as more channels of q and k: their product is exactly 0 in the same region and MASKED elsewhere."""
    if regions is None:
        return q, k
    local = np.stack([np.unique(row, return_inverse=True)[1] for row in regions])  # at most 8 per window
    member = np.eye(local.max() + 1)[local]  # n t r

    def widen(x: jax.Array, extra: np.ndarray) -> jax.Array:
        added = jnp.asarray(extra, x.dtype)[None, :, :, None, :]
        return jnp.concatenate((x, jnp.broadcast_to(added, (*x.shape[:-1], added.shape[-1]))), -1)

    return widen(q, MASKED * member), widen(k, 1 - member)


def _windows_per_step(shape: tuple[int, ...]) -> int:
    batch, count, tokens = shape[:3]
    return min(count, max(1, SCORES_PER_CHUNK // (batch * tokens * tokens)))


def _to_steps(x: jax.Array) -> jax.Array:
    """`b n t h d` to `h m b c t d`, windows of zeros appended."""
    batch, count, tokens, heads, width = x.shape
    c = _windows_per_step(x.shape)
    x = jnp.pad(x, ((0, 0), (0, -count % c), (0, 0), (0, 0), (0, 0)))
    return jnp.transpose(x.reshape(batch, -1, c, tokens, heads, width), (4, 1, 0, 2, 3, 5))


def _from_steps(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """`h m b c t d` back to `b n t h d`, the appended windows dropped."""
    batch, count, tokens, heads, _ = shape
    x = jnp.transpose(x, (2, 1, 3, 4, 0, 5)).reshape(batch, -1, tokens, heads, x.shape[-1])
    return x[:, :count]
