import contextlib
import json
import logging
import pathlib
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.training import toy
from ukbob_jax.errors import ConfigError, FileError, MismatchError
from ukbob_jax.training import sharding
from ukbob_jax.training.checkpoints import Checkpoints, restore_params

META = {"architecture": 1, "roi": [4, 4, 4]}


def accept(meta):
    assert meta["architecture"] == 1


@pytest.fixture(scope="module")
def init():
    return jax.jit(toy.parts(toy.Net(batch_norm=True))[0])


@pytest.fixture(scope="module")
def state(init):
    return init(jax.random.key(0))


def at(state, step, value=0.0):
    """The state as it would be at a step, its parameters shifted so that steps can be told apart."""
    return state.replace(step=jnp.int32(step), params=jax.tree.map(lambda p: p + value, state.params))


def shapes(state, mesh=None):
    mesh = sharding.make_mesh(data=1, batch_size=8) if mesh is None else mesh
    with_sharding = lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)  # noqa: E731
    return jax.tree.map(with_sharding, state, sharding.state_sharding(state, mesh))


def save(folder, state, steps, scores=(), **options):
    checkpoints = Checkpoints(folder, **options)
    for number, step in enumerate(steps):
        score = scores[number] if scores else None
        checkpoints.save(at(state, step, step), META, ranked=score is not None)
        if score is not None:
            checkpoints.rank(step, score)
    checkpoints.close()


def restore(folder, state, mesh=None):
    with contextlib.closing(Checkpoints(folder)) as checkpoints:
        return checkpoints.restore(shapes(state, mesh), accept)


def steps_in(folder):
    return sorted(int(path.name.split("_")[1]) for path in pathlib.Path(folder).glob("step_*"))


def test_what_is_restored_is_what_was_saved(tmp_path, state):
    save(tmp_path, state, [7])
    found, meta = restore(tmp_path, state)
    jax.tree.map(np.testing.assert_array_equal, found, at(state, 7, 7))
    assert jax.tree.structure(found) == jax.tree.structure(state)
    assert meta["step"] == 7 and meta["roi"] == [4, 4, 4]


def test_training_may_go_on_in_the_same_memory_while_a_save_is_under_way(tmp_path, init):
    big = init(jax.random.key(0)).replace(
        params={"kernel": jax.random.normal(jax.random.key(0), (2000, 2000))}
    )
    expected = np.array(big.params["kernel"])
    advance = jax.jit(lambda s: s.replace(params=jax.tree.map(lambda p: p + 1, s.params)), donate_argnums=0)
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
        checkpoints.save(big, META)
        for _ in range(3):
            big = advance(big)
    np.testing.assert_array_equal(restore_params(tmp_path)[0]["kernel"], expected)


def test_an_empty_folder_means_a_fresh_start(tmp_path, state):
    assert restore(tmp_path / "new", state) is None


@pytest.mark.parametrize("data, fsdp", [(8, 1), (4, 2), (2, 4)])
def test_a_state_moves_to_another_mesh(tmp_path, state, data, fsdp):
    save(tmp_path, state, [1])
    mesh = sharding.make_mesh(data=data, fsdp=fsdp, batch_size=8)
    found, _ = restore(tmp_path, state, mesh)
    jax.tree.map(np.testing.assert_array_equal, found, at(state, 1, 1))
    assert found.params["inner"]["kernel"].sharding.mesh.shape["fsdp"] == fsdp


def test_the_latest_and_the_best_are_kept(tmp_path, state):
    save(tmp_path, state, [1, 2, 3, 4, 5, 6], [0.1, 0.9, 0.3, 0.2, 0.5, 0.4])
    assert steps_in(tmp_path) == [2, 5, 6]
    assert restore_params(tmp_path)[2]["step"] == 2
    assert restore_params(tmp_path, "latest")[2]["step"] == 6


def test_steps_without_a_score_are_never_the_best(tmp_path, state):
    save(tmp_path, state, [1, 2, 3, 4, 5], [None, 0.1, None, None, None])
    assert steps_in(tmp_path) == [2, 4, 5]
    assert restore_params(tmp_path)[2]["step"] == 2


def test_a_step_whose_evaluation_is_pending_says_so_until_it_has_a_score(tmp_path, state):
    save(tmp_path, state, [1], [0.5])
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
        checkpoints.save(at(state, 2, 2), META, ranked=True)
    assert restore(tmp_path, state)[1]["evaluation_pending"] is True
    assert restore_params(tmp_path)[2]["step"] == 1
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
        checkpoints.rank(2, None)  # evaluated, but the number is not finite
    found, meta = restore(tmp_path, state)
    assert meta["evaluation_pending"] is False and restore_params(tmp_path)[2]["step"] == 1
    jax.tree.map(np.testing.assert_array_equal, found, at(state, 2, 2))
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
        checkpoints.rank(2, 0.9)
        checkpoints.rank(3, 0.95)  # its save failed: there is nothing to rank
    assert restore_params(tmp_path)[2]["step"] == 2 and steps_in(tmp_path) == [1, 2]


def test_a_score_that_cannot_be_written_leaves_the_checkpoint_complete(tmp_path, state):
    save(tmp_path, state, [1], [0.5])
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(at(state, 2, 2), META, ranked=True)
    checkpoints.wait()
    (tmp_path / "step_00000002" / "metrics" / "metrics.tmp").mkdir()  # in the way
    with pytest.raises(FileError, match=r"metrics: cannot be written: .*resume"):
        checkpoints.rank(2, 0.9)
    checkpoints.close()
    assert restore(tmp_path, state)[1]["evaluation_pending"] is True


def test_without_any_score_the_best_is_the_latest(tmp_path, state):
    save(tmp_path, state, [1, 2])
    params, model_state, meta = restore_params(tmp_path)
    assert meta["step"] == 2
    jax.tree.map(np.testing.assert_array_equal, params, at(state, 2, 2).params)
    jax.tree.map(np.testing.assert_array_equal, model_state, state.model_state)


def test_a_flipped_bit_is_noticed_and_the_checkpoint_before_taken(tmp_path, state, capfd):
    save(tmp_path, state, [10, 20])
    toy.flip_a_bit(tmp_path / "step_00000020")
    checkpoints = Checkpoints(tmp_path)
    found, meta = checkpoints.restore(shapes(state), accept)
    assert meta["step"] == found.step == 10
    message = capfd.readouterr().err
    assert "step 20 is damaged" in message and message.count("\n") == 1
    assert (tmp_path / "damaged_step_00000020").is_dir()
    checkpoints.save(at(state, 20, 20), META)  # training comes past that step again
    checkpoints.close()
    assert steps_in(tmp_path) == [10, 20]


def test_a_reader_refuses_a_damaged_checkpoint(tmp_path, state):
    save(tmp_path, state, [20])
    toy.flip_a_bit(tmp_path / "step_00000020" / "model")
    with pytest.raises(FileError, match="step 20 is damaged"):
        restore_params(tmp_path)


@pytest.mark.parametrize("missing", ["meta/metadata", "training", "model/d"])
def test_a_missing_part_is_damage_too(tmp_path, state, missing, capfd):
    save(tmp_path, state, [10, 20])
    (tmp_path / "step_00000020" / missing).rename(tmp_path / "moved")
    (tmp_path / "moved").rename(tmp_path.with_name(tmp_path.name + "_moved"))
    _, meta = restore(tmp_path, state)
    assert meta["step"] == 10 and "step 20 is damaged" in capfd.readouterr().err


def test_a_meta_without_its_table_of_arrays_counts_as_damaged(tmp_path, state, capsys):
    save(tmp_path, state, [1, 2])
    path = tmp_path / "step_00000002" / "meta" / "metadata"
    path.write_text(json.dumps({**json.loads(path.read_text()), "arrays": []}))
    assert restore(tmp_path, state)[1]["step"] == 1
    assert "step 2 is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b'{"sco', b"\0" * 14])
def test_a_score_that_cannot_be_read_is_none(tmp_path, state, content, capfd):
    save(tmp_path, state, [10, 20], [0.1, 0.2])
    (tmp_path / "step_00000020" / "metrics" / "metrics").write_bytes(content)
    assert restore_params(tmp_path)[2]["step"] == 10
    assert restore_params(tmp_path, "latest")[2]["step"] == 20
    assert restore(tmp_path, state)[1]["step"] == 20
    assert capfd.readouterr().err.count("the score of step 20 cannot be read") == 1


def test_nothing_sound_left_is_refused_rather_than_started_again(tmp_path, state):
    save(tmp_path, state, [20])
    toy.flip_a_bit(tmp_path / "step_00000020")
    with pytest.raises(FileError, match="all 1 checkpoints are damaged"):
        restore(tmp_path, state)
    with pytest.raises(ConfigError, match=r"not empty \(damaged_step_00000020\)"):
        restore(tmp_path, state)


def test_foreign_content_is_refused(tmp_path, state):
    (tmp_path / "20").mkdir()
    with pytest.raises(ConfigError, match="not empty"):
        restore(tmp_path, state)


def test_averages_are_what_readers_get_and_a_resume_gets_both(tmp_path):
    state = toy.parts(ema=0.9)[0](jax.random.key(0))
    state = state.replace(step=jnp.int32(5), ema=jax.tree.map(lambda p: p + 1, state.params))
    save(tmp_path, state, [5])
    found, _ = restore(tmp_path, state)
    saved = at(state, 5, 5)
    jax.tree.map(np.testing.assert_array_equal, found, saved)
    assert jax.tree.structure(found) == jax.tree.structure(saved)
    jax.tree.map(np.testing.assert_array_equal, restore_params(tmp_path)[0], saved.ema)


def test_another_model_is_refused_by_name_of_each_array(tmp_path, state):
    save(tmp_path, state, [1])
    with pytest.raises(MismatchError, match=r"missing: .*norm1/bias.*extra: .*batch_norm"):
        restore(tmp_path, toy.parts()[0](jax.random.key(0)))
    wider = state.replace(
        params={**state.params, "head": {"kernel": jnp.zeros((8, 5)), "bias": jnp.zeros(5)}}
    )
    with pytest.raises(MismatchError, match=r"model/params/head/kernel \['float32', \[8, 4\]\] instead of"):
        restore(tmp_path, wider)


def test_readers_name_what_is_missing(tmp_path):
    with pytest.raises(FileError, match="no such folder"):
        restore_params(tmp_path / "nowhere")
    with pytest.raises(FileError, match="no complete checkpoint"):
        restore_params(tmp_path)
    with pytest.raises(ConfigError, match="'first' is unknown"):
        restore_params(tmp_path, "first")


FULL_DISK = """
    import gc, json, os, resource, signal, sys
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax, jax.numpy as jnp
    from tests.training import toy
    from tests.training.test_checkpoints import META, at
    from ukbob_jax.errors import FileError
    from ukbob_jax.training.checkpoints import Checkpoints, restore_params
    folder = sys.argv[1]
    state = toy.parts()[0](jax.random.key(0))
    big = state.replace(params={**state.params, "big": jax.random.normal(jax.random.key(1), (100_000,))})
    checkpoints = Checkpoints(folder)
    checkpoints.save(at(big, 1), META); checkpoints.wait()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))  # no file may grow beyond
    checkpoints.save(at(big, 2), META); checkpoints.wait()
    print(sorted(os.listdir(folder)))
    try:
        checkpoints.save(at(big, 3), META); checkpoints.wait()
    except FileError as error:
        print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(sorted(os.listdir(folder)), restore_params(folder)[2]["step"])
    checkpoints.save(at(big, 4), META); checkpoints.close()
    print(restore_params(folder)[2]["step"])
    gc.collect()  # tasks that were given up complain when they are collected
"""


def test_a_full_disk_keeps_what_was_saved_and_stops_at_the_second_failure(tmp_path):
    pytest.importorskip("resource")
    out = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FULL_DISK), str(tmp_path / "checkpoints")],
        capture_output=True, text=True, cwd=pathlib.Path(__file__).parents[2],
    )  # fmt: skip
    first, error, after, last = out.stdout.strip().splitlines()
    assert first == "['step_00000001']" and after == "['step_00000001'] 1" and last == "4"
    assert error.endswith(
        "File too large; step 1 still loads. Free space, then run the same command to resume."
    )
    warning = [line for line in out.stderr.splitlines() if "warning" in line]
    assert len(warning) == 1 and "saving step 2 failed: File too large" in warning[0]
    assert "Traceback" not in out.stderr


def test_only_complaints_about_tasks_of_orbax_are_kept_off_the_terminal(tmp_path, caplog):
    Checkpoints(tmp_path).close()
    for path in ("site-packages/orbax/checkpoint/_src/serialization.py:126", "mine.py:1"):
        logging.getLogger("asyncio").error(
            "Task exception was never retrieved\nfuture: <Task coro=<write() defined at %s>>", path
        )
    assert [record.args for record in caplog.records if record.name == "asyncio"] == [("mine.py:1",)]


def test_meta_is_plain_json(tmp_path, state):
    save(tmp_path, state, [3])
    meta = json.loads((tmp_path / "step_00000003" / "meta" / "metadata").read_text())
    assert meta["arrays"]["model/params/head/kernel"][:2] == ["float32", [8, 4]]
