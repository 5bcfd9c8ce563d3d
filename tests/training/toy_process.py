"""One process of several that train the toy together.

python -m tests.training.toy_process WORKDIR STEPS FSDP SECONDS_PER_BATCH PROCESSES PROCESS HOST:PORT|auto
"""

import os
import sys
import time

DEVICES = 4  # of all processes together


def main(workdir, steps, fsdp, seconds, processes, process, coordinator):
    processes, process = int(processes), int(process)
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={DEVICES // processes}"

    from tests.training import toy
    from ukbob_jax import devices
    from ukbob_jax.errors import Preempted
    from ukbob_jax.training import sharding

    if processes > 1:
        devices.join(coordinator, processes, process)
    mesh = sharding.make_mesh(fsdp=int(fsdp), batch_size=8)
    mine = slice(process * 8 // processes, (process + 1) * 8 // processes)

    def stream(start_step):
        for batch in toy.batches(start_step):
            time.sleep(float(seconds))
            yield {name: rows[mine] for name, rows in batch.items()}

    def evaluate(state):
        return toy.evaluation(state.replace(params=sharding.local_copy(state.params, mesh)))

    try:
        toy.fit(workdir, int(steps), stream, evaluate=evaluate, mesh=mesh, log_every=4)
    except Preempted as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main(*sys.argv[1:])
