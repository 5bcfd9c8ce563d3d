"""The command writes what the recipe writes, and answers mistakes in one line with its own options."""

import pathlib
import subprocess
import sys

from configs import export2d as recipe
from tests import tiny_sentinel
from ukbob_jax import cli, settings
from ukbob_jax.jobs import export2d


def call(capsys, *argv):
    code = cli.main(["export2d", *map(str, argv)])
    told = capsys.readouterr()
    return code, told.out, told.err


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_command_writes_what_the_recipe_writes(capsys, tmp_path):
    store, out = tmp_path / "store", tmp_path / "out"
    tiny_sentinel.write_store(store, subjects=1, held_out=1, shape=(24, 20, 32))
    options = [
        "--label",
        "manual",
        "--axes",
        "z",
        "--contrasts",
        "fat",
        "water",
        "--workers",
        "1",
        "--min-area",
        "0.01",
    ]
    code, told, err = call(capsys, store, out, *options)
    assert code == 0 and told.endswith("masks of 2 subjects\n"), err
    fields = {
        "store": str(store), "label": "manual", "workers": 1, "export2d.axes": ("z",), "export2d.min_area": 0.01,
        "export2d.contrasts": ("fat", "water"),
    }  # fmt: skip
    config = settings.resolve(settings.with_fields(recipe.get_config(), fields), pathlib.Path(tmp_path))
    export2d.run(config, str(tmp_path))
    assert contents(out) == contents(tmp_path / "export2d")
    code, _, err = call(capsys, store, out, *options[:-1], "0.02")
    assert code == 2 and "was exported with min_area=0.01, now 0.02" in err and "Traceback" not in err
    code, _, err = call(capsys, store, tmp_path / "b", *options, "--classes", "soul")
    assert code == 2 and "--classes: label set 'manual' has no class 'soul'" in err and err.count("\n") == 1
    code, _, err = call(capsys, tmp_path, tmp_path / "b")
    assert code == 3 and err.endswith("no store; STORE is the folder that an ingest job has written.\n")
    code, _, err = call(capsys, store, tmp_path / "b", "--label", "none")
    assert code == 2 and "Choose one of manual." in err and not (tmp_path / "b").exists()


def test_help_needs_no_store():
    command = [
        sys.executable,
        "-c",
        "import sys; from ukbob_jax import cli; cli.main(['export2d', '--help'])",
    ]
    told = subprocess.run([*command], capture_output=True, text=True, check=True).stdout
    assert "--merge-pixels" in told and "(default raw)" in told
