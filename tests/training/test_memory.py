"""What recomputed activations save on a CPU, by the compiled program's own account; compiled, not run."""

import json
import os
import subprocess
import sys

import jax
import pytest

from ukbob_jax.devices import SCHEDULER

PROGRAM = """
import json, sys
from ukbob_jax import devices

devices.tune_cpu()
import jax, jax.numpy as jnp, optax
from ukbob_jax.models.swin_unetr.network import SwinUNETR
from ukbob_jax.training.losses import dice_ce

remat = sys.argv[1] == "recomputed"
model, tx = SwinUNETR(in_channels=1, out_channels=73, feature_size=12, remat=remat), optax.adamw(1e-4)
image = jax.ShapeDtypeStruct((1, 64, 64, 64, 1), jnp.float32)
label = jax.ShapeDtypeStruct((1, 64, 64, 64), jnp.int32)
params = jax.eval_shape(lambda key: model.init(key, jnp.zeros((1, 32, 32, 32, 1)))["params"], jax.random.key(0))

def step(params, opt_state, image, label):
    grads = jax.grad(lambda p: dice_ce(model.apply({"params": p}, image), label))(params)
    updates, opt_state = tx.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state

args = params, jax.eval_shape(tx.init, params), image, label
compiled = jax.jit(step, donate_argnums=(0, 1)).lower(*args).compile()
print(json.dumps(compiled.memory_analysis().temp_size_in_bytes / 1e9))
"""


@pytest.mark.slow
@pytest.mark.skipif(jax.__version_info__[:2] != (0, 10), reason="the account is that of jax 0.10")
@pytest.mark.parametrize(
    "activations, concurrency, gigabytes",
    [("saved", "true", 0.863), ("saved", "false", 0.355), ("recomputed", "false", 0.377)],
)
def test_a_step_takes_the_memory_it_took(activations, concurrency, gigabytes):
    """Temporaries of a training step, 64 cubed, width 12, 73 classes."""
    flags = {**os.environ, "XLA_FLAGS": f"--{SCHEDULER}={concurrency}"}
    words = [sys.executable, "-c", PROGRAM, activations]
    done = subprocess.run(words, env=flags, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == pytest.approx(gigabytes, rel=0.05)
