"""Attention inside windows for NVIDIA's GPUs, whose scores never reach memory (Dao et al. 2022, FlashAttention).

Pallas kernels, compiled by Triton. A program holds `BLOCK` x `BLOCK` scores of one window and head at a time; the
backward pass computes them again from their logsumexp, once for each of dq, dk with dv, and the gradient of the bias, which
sums over windows.

Axes: `g` windows of all cases and heads, heads last; `t` tokens, padded to whole blocks; `d` width of a head, padded to a
power of two; `h` heads, `n` windows of a case. Padded keys have a bias that leaves them no share, and padded queries
get no gradient.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

BLOCK = 64  # tokens, queries and keys
MIN_WIDTH = 16  # of a head, for tensor cores
SPLITS = 8  # programs that share the windows over which a block of the bias's gradient is summed
WARPS, STAGES = 4, 2  # of a program
NOTHING = -1e30  # bias of padded keys


def forward(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    bias: jax.Array,
    regions: np.ndarray | None,
    masked: float,
    interpret: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """The result `b n t h d` and the logsumexp of the scores, `b n t h 1` float32.

    Args:
        q, k, v: `b n t h d`.
        bias: `h t t` (query, key), float32.
        regions: `n t` integers or None.
        masked: added to the score of tokens in different regions.
        interpret: run on any platform, slowly, for tests.
    """
    shape = v.shape
    inputs = (*map(_rows, (q, k, v)), _padded_bias(bias))
    g, t, d = inputs[0].shape
    heads, count = bias.shape[0], shape[1]
    out, logsumexp = _call(
        functools.partial(_forward_kernel, masked=masked),
        grid=(g, t // BLOCK),
        in_specs=[_some(d), _all(t, d), _all(t, d), _bias_rows(t, heads), *_ids_spec(regions, t, heads, count)],
        out_specs=[_some(d), _some()],
        out_shape=[jax.ShapeDtypeStruct((g, t, d), v.dtype), jax.ShapeDtypeStruct((g, t), jnp.float32)],
        name="window_attention",
        interpret=interpret,
    )(*inputs, *_ids(regions, t))  # fmt: skip
    return _unrows(out, shape), _unrows(logsumexp[..., None], (*shape[:-1], 1))


def backward(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    bias: jax.Array,
    out: jax.Array,
    logsumexp: jax.Array,
    dout: jax.Array,
    regions: np.ndarray | None,
    masked: float,
    interpret: bool = False,
) -> tuple[jax.Array, ...]:
    """Gradients of q, k, v and bias; arguments as of `forward`, its results, and the gradient of the first of them."""
    shape, types = v.shape, (q.dtype, k.dtype, v.dtype)
    heads, count = bias.shape[0], shape[1]
    along = (dout.astype(jnp.float32) * out.astype(jnp.float32)).sum(-1, keepdims=True)  # b n t h 1
    q, k, v, dout = map(_rows, (q, k, v, dout))
    g, t, d = q.shape
    logsumexp, along = (_rows(x, width=1)[..., 0] for x in (logsumexp, along))
    inputs = (q, k, v, _padded_bias(bias), dout, logsumexp, along, *_ids(regions, t))
    ids = _ids_spec(regions, t, heads, count)
    call = functools.partial(_call, interpret=interpret)
    dq = call(
        functools.partial(_dq_kernel, masked=masked),
        grid=(g, t // BLOCK),
        in_specs=[_some(d), _all(t, d), _all(t, d), _bias_rows(t, heads), _some(d), _some(), _some(), *ids],
        out_specs=_some(d),
        out_shape=jax.ShapeDtypeStruct((g, t, d), types[0]),
        name="window_attention_dq",
    )(*inputs)
    dk, dv = call(
        functools.partial(_dkv_kernel, masked=masked),
        grid=(g, t // BLOCK),
        in_specs=[
            _all(t, d), _some(d), _some(d), _bias_columns(t, heads), _all(t, d), _all(t), _all(t), *ids,
        ],
        out_specs=[_some(d), _some(d)],
        out_shape=[jax.ShapeDtypeStruct((g, t, d), kind) for kind in types[1:]],
        name="window_attention_dkv",
    )(*inputs)  # fmt: skip
    whole = [pl.BlockSpec(x.shape, functools.partial(_origin, x.ndim)) for x in inputs]
    blocks = t // BLOCK
    dbias = call(
        functools.partial(_dbias_kernel, masked=masked, heads=heads, count=count, blocks=blocks),
        grid=(heads, SPLITS, blocks * blocks),
        in_specs=whole,
        out_specs=pl.BlockSpec((None, None, BLOCK, BLOCK), lambda h, s, i: (h, s, i // blocks, i % blocks)),
        out_shape=jax.ShapeDtypeStruct((heads, SPLITS, t, t), jnp.float32),
        name="window_attention_dbias",
    )(*inputs).sum(1)
    tokens = shape[2]
    return (*(_unrows(x, shape) for x in (dq, dk, dv)), dbias[:, :tokens, :tokens].astype(bias.dtype))


def _forward_kernel(q_ref: Any, k_ref: Any, v_ref: Any, bias_ref: Any, *refs: Any, masked: float) -> None:
    *ids_ref, out_ref, logsumexp_ref = refs
    rows = pl.ds(pl.program_id(1) * BLOCK, BLOCK)
    q = q_ref[...]

    def step(j: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        total, top, out = carry
        keys = pl.ds(j * BLOCK, BLOCK)
        scores = _scores(q, k_ref[keys, :], bias_ref[:, keys], _of(ids_ref, rows, keys), masked)
        higher = jnp.maximum(top, scores.max(1))
        shrink, probs = jnp.exp(top - higher), jnp.exp(scores - higher[:, None])
        out = out * shrink[:, None] + _product(probs.astype(v_ref.dtype), v_ref[keys, :])
        return total * shrink + probs.sum(1), higher, out

    start = (
        jnp.zeros(BLOCK, jnp.float32),
        jnp.full(BLOCK, NOTHING, jnp.float32),
        jnp.zeros(q.shape, jnp.float32),
    )
    total, top, out = lax.fori_loop(0, k_ref.shape[0] // BLOCK, step, start)
    out_ref[...] = (out / total[:, None]).astype(out_ref.dtype)
    logsumexp_ref[...] = top + jnp.log(total)


def _dq_kernel(
    q_ref: Any, k_ref: Any, v_ref: Any, bias_ref: Any, dout_ref: Any, logsumexp_ref: Any, along_ref: Any,
    *refs: Any, masked: float,
) -> None:  # fmt: skip
    *ids_ref, dq_ref = refs
    rows = pl.ds(pl.program_id(1) * BLOCK, BLOCK)
    q, dout, logsumexp, along = q_ref[...], dout_ref[...], logsumexp_ref[...], along_ref[...]

    def step(j: jax.Array, dq: jax.Array) -> jax.Array:
        keys = pl.ds(j * BLOCK, BLOCK)
        k = k_ref[keys, :]
        scores = _scores(q, k, bias_ref[:, keys], _of(ids_ref, rows, keys), masked)
        _, dscores = _shares(scores, logsumexp, along, dout, v_ref[keys, :])
        return dq + _product(dscores.astype(k.dtype), k)

    zeros = jnp.zeros(q.shape, jnp.float32)
    dq_ref[...] = lax.fori_loop(0, k_ref.shape[0] // BLOCK, step, zeros).astype(dq_ref.dtype)


def _dkv_kernel(
    q_ref: Any, k_ref: Any, v_ref: Any, bias_ref: Any, dout_ref: Any, logsumexp_ref: Any, along_ref: Any,
    *refs: Any, masked: float,
) -> None:  # fmt: skip
    *ids_ref, dk_ref, dv_ref = refs
    keys = pl.ds(pl.program_id(1) * BLOCK, BLOCK)
    k, v = k_ref[...], v_ref[...]

    def step(i: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        dk, dv = carry
        rows = pl.ds(i * BLOCK, BLOCK)
        q, dout = q_ref[rows, :], dout_ref[rows, :]
        scores = _scores(q, k, bias_ref[rows, :], _of(ids_ref, rows, keys), masked)
        probs, dscores = _shares(scores, logsumexp_ref[rows], along_ref[rows], dout, v)
        return dk + _product(dscores.astype(q.dtype).T, q), dv + _product(probs.astype(dout.dtype).T, dout)

    zeros = jnp.zeros(k.shape, jnp.float32)
    dk, dv = lax.fori_loop(0, q_ref.shape[0] // BLOCK, step, (zeros, zeros))
    dk_ref[...], dv_ref[...] = dk.astype(dk_ref.dtype), dv.astype(dv_ref.dtype)


def _dbias_kernel(
    q_ref: Any, k_ref: Any, v_ref: Any, bias_ref: Any, dout_ref: Any, logsumexp_ref: Any, along_ref: Any,
    *refs: Any, masked: float, heads: int, count: int, blocks: int,
) -> None:  # fmt: skip
    """One block of one head's gradient, over every `SPLITS`-th window of all cases."""
    *ids_ref, dbias_ref = refs
    head, split, block = (pl.program_id(axis) for axis in range(3))
    rows, keys = (pl.ds(i * BLOCK, BLOCK) for i in (block // blocks, block % blocks))
    bias = bias_ref[head, rows, keys]
    windows = q_ref.shape[0] // heads

    def step(i: jax.Array, total: jax.Array) -> jax.Array:
        window = split + i * SPLITS
        g = window * heads + head
        ids = _of(ids_ref, (window % count, rows), (window % count, keys))
        scores = _scores(q_ref[g, rows, :], k_ref[g, keys, :], bias, ids, masked)
        of_rows = (logsumexp_ref[g, rows], along_ref[g, rows], dout_ref[g, rows, :])
        return total + _shares(scores, *of_rows, v_ref[g, keys, :])[1]

    own = (windows - split + SPLITS - 1) // SPLITS
    dbias_ref[...] = lax.fori_loop(0, own, step, jnp.zeros((BLOCK, BLOCK), jnp.float32))


def _of(ids_ref: list[Any], rows: Any, keys: Any) -> tuple[jax.Array, ...]:
    """Regions of queries and of keys, if there are regions."""
    return tuple(ref[some] for ref in ids_ref for some in (rows, keys))


def _scores(
    q: jax.Array, k: jax.Array, bias: jax.Array, ids: tuple[jax.Array, ...], masked: float
) -> jax.Array:
    scores = _product(q, k.T) + bias
    if not ids:
        return scores
    of_rows, of_keys = ids
    return jnp.where(of_rows[:, None] == of_keys[None, :], scores, scores + masked)


def _shares(
    scores: jax.Array, logsumexp: jax.Array, along: jax.Array, dout: jax.Array, v: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The softmax and the gradient of the scores, both query by key."""
    probs = jnp.exp(scores - logsumexp[:, None])
    return probs, probs * (_product(dout, v.T) - along[:, None])


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    precision = lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    return jnp.dot(a, b, precision=precision, preferred_element_type=jnp.float32)


def _call(kernel: Any, interpret: bool, **options: Any) -> Any:
    """`pl.pallas_call` with Triton as the compiler."""
    parameters = triton.CompilerParams(num_warps=WARPS, num_stages=STAGES)
    return pl.pallas_call(kernel, compiler_params=parameters, interpret=interpret, **options)


def _rows(x: jax.Array, width: int = 0) -> jax.Array:
    """`b n t h d` to `g t d`, padded with zeros; `width`: of the result, 0: a power of two."""
    b, n, t, h, d = x.shape
    width = width or max(MIN_WIDTH, 2 ** math.ceil(math.log2(d)))
    x = jnp.transpose(x, (0, 1, 3, 2, 4)).reshape(b * n * h, t, d)
    return jnp.pad(x, ((0, 0), (0, -t % BLOCK), (0, width - d)))


def _unrows(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """`g t d` back to `b n t h d`, what was padded dropped."""
    b, n, t, h, d = shape
    return jnp.transpose(x[:, :t, :d].reshape(b, n, h, t, d), (0, 1, 3, 2, 4))


def _padded_bias(bias: jax.Array) -> jax.Array:
    pad = -bias.shape[1] % BLOCK
    bias = jnp.pad(bias.astype(jnp.float32), ((0, 0), (0, pad), (0, 0)))
    return jnp.pad(bias, ((0, 0), (0, 0), (0, pad)), constant_values=NOTHING)


def _ids(regions: np.ndarray | None, t: int) -> list[jax.Array]:
    """Regions `n t` as an operand of the kernels, if there are any."""
    if regions is None:
        return []
    return [jnp.asarray(np.pad(regions, ((0, 0), (0, t - regions.shape[1]))), jnp.int32)]


def _ids_spec(regions: np.ndarray | None, t: int, heads: int, count: int) -> list[pl.BlockSpec]:
    if regions is None:
        return []
    return [pl.BlockSpec((None, t), lambda g, i: (g // heads % count, 0))]


def _some(*last: int) -> pl.BlockSpec:
    """A block of tokens of one window and head."""
    return pl.BlockSpec((None, BLOCK, *last), lambda g, i: (g, i) + (0,) * len(last))


def _all(*last: int) -> pl.BlockSpec:
    """All tokens of one window and head."""
    return pl.BlockSpec((None, *last), lambda g, i: (g,) + (0,) * len(last))


def _bias_rows(t: int, heads: int) -> pl.BlockSpec:
    return pl.BlockSpec((None, BLOCK, t), lambda g, i: (g % heads, i, 0))


def _bias_columns(t: int, heads: int) -> pl.BlockSpec:
    return pl.BlockSpec((None, t, BLOCK), lambda g, i: (g % heads, 0, i))


def _origin(ndim: int, *_: Any) -> tuple[int, ...]:
    return (0,) * ndim
