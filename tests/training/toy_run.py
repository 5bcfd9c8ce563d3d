"""Train the toy: `python -m tests.training.toy_run WORKDIR STEPS [SECONDS_PER_BATCH]`; slow enough to be killed."""

import os
import sys
import time

os.environ["JAX_PLATFORMS"] = "cpu"

from tests.training import toy
from ukbob_jax.errors import Preempted


def main(workdir, steps, seconds="0.01"):
    def stream(start_step):
        for batch in toy.batches(start_step):
            time.sleep(float(seconds))
            yield batch

    try:
        toy.fit(workdir, int(steps), stream, every=10)
    except Preempted as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main(*sys.argv[1:])
