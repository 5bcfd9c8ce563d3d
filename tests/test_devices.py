import argparse
import os
import socket
import subprocess
import sys

import jax
import ml_collections
import pytest

from ukbob_jax import devices
from ukbob_jax.errors import ConfigError

ALONE = argparse.Namespace(coordinator="", processes=1, process=0)


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    for name in ("SLURM_JOB_ID", "SLURM_STEP_NODELIST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(devices, "PROBE_SECONDS", 0.2)
    monkeypatch.setattr(devices.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(jax.distributed, "initialize", lambda *a, **k: pytest.fail("joined a cluster"))


@pytest.fixture
def kept():
    """The settings of JAX that the functions change, put back afterwards."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_the_cache_is_where_the_variable_says_or_off(monkeypatch, tmp_path):
    monkeypatch.setenv("UKBOB_CACHE", str(tmp_path))
    assert devices.cache_folder() == str(tmp_path)
    monkeypatch.setenv("UKBOB_CACHE", "off")
    assert devices.cache_folder() == ""
    monkeypatch.delenv("UKBOB_CACHE")
    assert devices.cache_folder().endswith(".cache/ukbob_jax")


def test_the_cache_folder_is_made_and_nothing_is_left_in_it(monkeypatch, tmp_path, kept):
    monkeypatch.setenv("UKBOB_CACHE", str(tmp_path / "deep" / "cache"))
    devices.use_compile_cache()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "deep" / "cache")
    assert list((tmp_path / "deep" / "cache").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_told(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("UKBOB_CACHE", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match=r"UKBOB_CACHE: the compile cache .*file cannot be written"):
        devices.use_compile_cache()


def test_the_first_program_is_announced_and_later_ones_are_not(monkeypatch, tmp_path, kept, capsys):
    monkeypatch.setenv("UKBOB_CACHE", str(tmp_path))
    monkeypatch.setenv("UKBOB_CACHE_GB", "0.5")
    devices.use_compile_cache()
    assert capsys.readouterr().err == f"compiled programs are kept in {tmp_path}, at most 0.5 GB\n"
    (tmp_path / "jit_step-cache").write_bytes(b"program")
    devices.use_compile_cache()
    assert capsys.readouterr().err == ""


def test_programs_not_used_for_longest_go_where_the_cache_is_full(tmp_path):
    for age, name in enumerate(("new", "used", "old", "oldest")):
        path = tmp_path / f"{name}-cache"
        path.write_bytes(bytes(100))
        os.utime(path, (2000.0 - age, 1000.0))
    os.utime(tmp_path / "used-cache", (3000.0, 0.0))  # written first, read last
    (tmp_path / "notes.txt").write_bytes(bytes(1000))  # not ours
    devices.trim_cache(tmp_path, 400)
    assert len(list(tmp_path.glob("*-cache"))) == 4
    devices.trim_cache(tmp_path, 250)
    assert {path.name for path in tmp_path.iterdir()} == {"new-cache", "used-cache", "notes.txt"}


@pytest.mark.parametrize("value", ["0", "-1", "much", "inf", "nan"])
def test_a_limit_that_is_no_size_is_told(monkeypatch, value):
    monkeypatch.setenv("UKBOB_CACHE_GB", value)
    with pytest.raises(ConfigError, match=f"UKBOB_CACHE_GB={value}: expected a positive number of GB"):
        devices.use_compile_cache()


def test_a_platform_that_is_not_there_is_told(monkeypatch):
    monkeypatch.setenv("UKBOB_CACHE", "off")
    devices.start(ml_collections.ConfigDict({"platform": "cpu"}), ALONE)
    devices.start(ml_collections.ConfigDict({}), ALONE)
    with pytest.raises(ConfigError, match=r"config\.platform is 'tpu' but JAX sees only cpu"):
        devices.start(ml_collections.ConfigDict({"platform": "tpu"}), ALONE)


@pytest.mark.parametrize(
    "plugin, version, given, flags",
    [
        ("jax_cuda12_plugin", (0, 10, 2), "", "--xla_gpu_force_conv_nhwc=true"),
        ("jax_cuda13_plugin", (0, 12, 0), "--xla_a=b", "--xla_a=b --xla_gpu_force_conv_nhwc=true"),
        (
            "jax_cuda12_plugin",
            (0, 12, 0),
            "--xla_gpu_force_conv_nhwc=false",
            "--xla_gpu_force_conv_nhwc=false",
        ),
        ("jax_cuda12_plugin", (0, 13, 0), "", ""),
        (None, (0, 10, 2), "", ""),
    ],
)
def test_convolutions_keep_channels_last_where_jax_may_meet_a_gpu(monkeypatch, plugin, version, given, flags):
    monkeypatch.setenv("XLA_FLAGS", given)
    monkeypatch.setattr(devices.importlib.util, "find_spec", lambda name: name == plugin)
    monkeypatch.setattr(jax, "__version_info__", version)
    devices.convolve_channels_last()
    assert os.environ["XLA_FLAGS"] == flags


def test_jax_knows_the_flag_it_is_given():
    if jax.__version_info__ >= (0, 13):
        pytest.skip("never set from jax 0.13 on")
    # An unknown flag ends the process, so that a new one tries it.
    environment = {**os.environ, "XLA_FLAGS": f"--{devices.CHANNELS_LAST}=true", "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", "import jax; jax.devices()"], env=environment, check=True)


@pytest.mark.parametrize("address", ["node1", ":12", "node1:", "node1:port"])
def test_an_address_without_host_and_port_is_refused(address):
    with pytest.raises(ConfigError, match="expected HOST:PORT"):
        devices.join(address, 2, 1)


def test_a_coordinator_that_answers_is_joined_and_a_silent_one_is_told(monkeypatch):
    joined = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *args, **kwargs: joined.append((args, kwargs)))
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert devices.reachable("127.0.0.1", server.getsockname()[1])
        devices.join(address, 2, 1)
    assert joined == [((address,), {"num_processes": 2, "process_id": 1})]
    with pytest.raises(ConfigError, match=f"{address}: no answer within"):
        devices.join(address, 2, 1)


def test_a_batch_script_without_srun_and_no_cluster_are_told(monkeypatch):
    def none(*args):
        raise ValueError("coordinator_address should be defined.\nmore")

    monkeypatch.setattr(jax.distributed, "initialize", none)
    with pytest.raises(ConfigError, match=r"no cluster found \(coordinator_address should be defined\.\)"):
        devices.join("auto", 1, 0)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with pytest.raises(ConfigError, match="not started by srun"):
        devices.join("auto", 1, 0)


CPU_FLAGS = f"--{devices.SCHEDULER}=false --{devices.LIBRARY}=-individual_convolution"


def test_programs_for_a_cpu_are_tuned_from_the_start(monkeypatch):
    monkeypatch.setenv("UKBOB_CACHE", "off")
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr(jax, "__version_info__", (0, 10, 2))
    monkeypatch.setattr(devices, "has_cuda_plugin", lambda: False)
    devices.start(ml_collections.ConfigDict(), ALONE)
    assert os.environ["XLA_FLAGS"] == CPU_FLAGS


def test_this_jax_knows_the_flags_for_a_cpu():
    if jax.__version_info__ != (0, 10, 2):
        pytest.skip("the flags are those of jax 0.10.2")
    environment = {**os.environ, "XLA_FLAGS": CPU_FLAGS, "JAX_PLATFORMS": "cpu"}
    words = [sys.executable, "-c", "import jax; print(jax.jit(lambda x: x + 1)(1))"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "2"


def test_what_the_user_chose_for_a_cpu_stays(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=x")
    monkeypatch.setattr(jax, "__version_info__", (0, 10, 2))
    devices.tune_cpu()
    devices.tune_cpu()
    assert os.environ["XLA_FLAGS"] == f"--xla_dump_to=x {CPU_FLAGS}"
    chosen = f"--{devices.SCHEDULER}=true --{devices.LIBRARY}=dot"
    monkeypatch.setenv("XLA_FLAGS", chosen)
    devices.tune_cpu()
    assert os.environ["XLA_FLAGS"] == chosen
    monkeypatch.delenv("XLA_FLAGS")
    monkeypatch.setattr(jax, "__version_info__", (0, 12, 0))
    devices.tune_cpu()
    assert "XLA_FLAGS" not in os.environ
