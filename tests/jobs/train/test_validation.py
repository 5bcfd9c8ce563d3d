"""What training looks at: organs that nobody looked for in a subject are not counted against the network."""

from types import SimpleNamespace

import ml_collections
import numpy as np
import pytest

from ukbob_jax.jobs.train import validation
from ukbob_jax.models.swin_unetr.network import SwinUNETR
from ukbob_jax.regions import brats
from ukbob_jax.store.reader import Store
from ukbob_jax.store.writer import StoreWriter

TRUE = np.repeat(np.arange(4, dtype=np.uint8), 16).reshape(4, 4, 4)  # a plane of each class


@pytest.fixture
def validated(tmp_path, monkeypatch):
    """The numbers for a network that finds classes 1 to 3 everywhere right, on subjects annotated as told."""

    def run(annotated, regions=None, organs=()):
        with StoreWriter(tmp_path / "store") as writer:
            for subject, known in annotated.items():
                label = TRUE if known is None else np.where(np.isin(TRUE, known), TRUE, 0)
                image = np.zeros((4, 4, 4, 1), np.int16)
                writer.write(
                    subject, image, np.eye(4), {"manual": label.astype(np.uint8)}, source="", annotated=known
                )
        monkeypatch.setattr(validation, "segment", lambda *args, **kwargs: SimpleNamespace(labels=TRUE))
        monkeypatch.setattr(validation.sharding, "local_copy", lambda tree, mesh: tree)
        config = ml_collections.ConfigDict(
            {"organs": organs, "inference": dict(overlap=0, blend="", batch=1)}
        )
        config.data = dict(organs=(), val_label="manual", normalize="zscore", crop=(4, 4, 4))
        store, names = Store.open(tmp_path / "store"), dict(enumerate(("background", "a", "b", "c")))
        evaluate = validation.validator(
            config, store, store.subjects, SwinUNETR(1, 4), None, names, ("0",), regions
        )
        return evaluate(SimpleNamespace(inference_params={}, model_state={}))[0]

    return run


def test_an_organ_that_was_not_looked_for_is_not_scored(validated):
    found = validated({"s0": None, "s1": [1, 3]})
    assert found == {"val/dice": 1.0, "val/dice/a": 1.0, "val/dice/b": 1.0, "val/dice/c": 1.0}
    only = validated({"s0": [1, 3], "s1": [1, 3]})
    assert only["val/dice"] == 1.0 and np.isnan(only["val/dice/b"])


def test_a_region_counts_where_all_its_values_were_looked_for(validated):
    regions = brats("decathlon")
    found = validated({"s0": [1, 2, 3], "s1": [2, 3]}, regions)
    assert all(found[f"val/dice/{name}"] == 1.0 for name in regions.names)
    known = np.zeros(256, bool)
    known[[2, 3]] = True
    assert dict(zip(regions.names, regions.annotated(known))) == {"WT": False, "TC": True, "ET": True}
