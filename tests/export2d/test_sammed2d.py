"""SAM-Med2D's own loader trains an epoch on an export in its layout.

Its code has no package: UKBOB_SAM_MED2D names a clone, UKBOB_SAM_MED2D_PYTHON a Python that has torch, opencv and
albumentations (extra `sammed2d`), if this one does not.
"""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from configs import export2d as recipe
from tests import tiny_sentinel
from ukbob_jax import files, settings
from ukbob_jax.jobs import export2d


@pytest.fixture
def loader() -> tuple[str, str]:
    repository = os.environ.get("UKBOB_SAM_MED2D", "")
    if not (pathlib.Path(repository) / "DataLoader.py").is_file() or not repository:
        pytest.skip("no clone of SAM-Med2D here; set UKBOB_SAM_MED2D to its path")
    python = os.environ.get("UKBOB_SAM_MED2D_PYTHON", sys.executable)
    if subprocess.run([python, "-c", "import torch, cv2, albumentations"], capture_output=True).returncode:
        pytest.skip(
            "SAM-Med2D's loader needs torch, opencv and albumentations; pip install ukbob-jax[sammed2d]"
        )
    return python, os.path.abspath(repository)


def test_an_epoch_of_the_authors_loader(loader, tmp_path):
    python, repository = loader
    tiny_sentinel.write_store(tmp_path / "store", subjects=2, held_out=1, shape=(32, 24, 40))
    fields = {
        "store": str(tmp_path / "store"), "label": "manual", "workers": 1, "export2d.test_split": "val",
        "export2d.contrasts": ("water",), "export2d.axes": ("z",),
    }  # fmt: skip
    config = settings.resolve(settings.with_fields(recipe.get_config("demo"), fields), tmp_path)
    export2d.run(config, str(tmp_path))
    program = pathlib.Path(__file__).with_name("sammed2d_epoch.py")
    told = subprocess.run(
        [python, program, repository, "export2d"], cwd=tmp_path, capture_output=True, text=True
    )
    assert not told.returncode, told.stderr[-2000:]
    found = json.loads(told.stdout.splitlines()[-1])
    train, test = (
        files.read_json(tmp_path / "export2d" / name)
        for name in ("image2label_train.json", "label2image_test.json")
    )
    assert found["images"] == found["seen"] == len(train) > 20
    assert found["values"] == [0.0, 1.0] and found["tested"] == len(test) > 20
    assert all(loss < 5 for loss in found["losses"])
