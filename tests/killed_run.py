"""`python -m tests.killed_run --config=... --workdir=...`: a run whose job is killed, as by a machine that is taken away."""

import os
import signal
import sys
import types

os.environ["JAX_PLATFORMS"] = "cpu"

from ukbob_jax import jobs, main

if __name__ == "__main__":
    killed = types.SimpleNamespace(run=lambda config, workdir: os.kill(os.getpid(), signal.SIGKILL))
    jobs.find = lambda name: killed
    main.main(sys.argv[1:])
