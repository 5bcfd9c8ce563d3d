"""What a recipe sets reaches every prediction, and defaults are those of the options."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from tests.inference.networks import CARD, Bands, scan
from ukbob_jax import settings
from ukbob_jax.errors import ConfigError
from ukbob_jax.inference.adaptation.methods import Method
from ukbob_jax.inference.adaptation.options import Adaptation, BatchNorm, Tent
from ukbob_jax.inference.options import PredictOptions, from_config
from ukbob_jax.inference.segmenter import Segmenter
from ukbob_jax.inference.windows import averaging, slabs
from ukbob_jax.inference.windows.window import Window


def recipe(*words):
    """The base recipe with overrides as on the command line."""
    return settings.read_recipe(["--config=configs/finetune.py", *words], "").copy_and_resolve_references()


def test_a_recipe_without_changes_has_the_default_options():
    found = from_config(common.base().copy_and_resolve_references())
    assert found == PredictOptions(accept_unusual=True)  # subjects of a store are not refused
    for name, default in (("etta", Adaptation()), ("tent", Tent()), ("bn", BatchNorm())):
        assert from_config(recipe(), name).adaptation == Method(name, default)


def test_every_option_of_a_method_can_be_set_on_the_command_line():
    words = {
        "steps": 3, "learning_rate": 0.01, "select": "norm1", "optimizer": "sgd", "background_weight": 0.5,
        "ceiling": 0.9, "skip_nonfinite": False, "must_fall": False, "max_drift": 0.2, "windows": 2, "seed": 7,
        "overlap": 0.25, "batch": 2,
    }  # fmt: skip
    config = recipe(*(f"--config.etta.{name}={value}" for name, value in words.items()))
    assert from_config(config, "etta").adaptation.options == Adaptation(**words)
    unlimited = from_config(recipe("--config.etta.max_drift=inf"), "etta").adaptation.options
    assert unlimited == Adaptation(max_drift=np.inf)
    config = recipe("--config.bn.fraction=1", "--config.tent.select=norm")
    assert from_config(config, "bn").adaptation.options == BatchNorm(fraction=1.0)
    assert from_config(config, "tent").adaptation.options == Tent(select="norm")


def test_inference_settings_reach_the_options():
    words = ("overlap=0.25", "blend=constant", "batch=2", "mirror=True", "gate=True")
    found = from_config(recipe(*(f"--config.inference.{word}" for word in words)), "tta")
    assert (found.overlap, found.blend, found.batch, found.gate) == (0.25, "constant", 2, True)
    assert found.views == averaging.MIRRORED and found.averaged_views == averaging.AUGMENTED
    assert dataclasses.replace(found, method="off").averaged_views == averaging.MIRRORED
    assert found.window([4, 5, 6]) == Window((4, 5, 6), 0.25, "constant", 2)
    with pytest.raises(ConfigError, match=r"config\.predict\.method: method 'magic' is not one of off, etta"):
        from_config(recipe(), "magic", "predict.method")
    with pytest.raises(ConfigError, match="etta: steps -1 is negative"):
        from_config(recipe("--config.etta.steps=-1"), "etta")


def test_options_are_told_apart_by_what_decides_about_labels():
    assert PredictOptions().to_json() == PredictOptions(limits=None, attributes={"sex": "F"}).to_json()
    changes = ({"blend": "constant"}, {"views": averaging.MIRRORED}, {"gate": True}, {"method": {"steps": 2}})
    told = [str(PredictOptions(**change).to_json()) for change in ({}, *changes)]
    assert len(set(told)) == 5


def test_blend_reaches_the_sliding_window(monkeypatch):
    model = Bands()
    params = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 8, 1)))["params"]
    windows, segment = [], slabs.segment

    def record(apply, variables, volume, window, **options):
        windows.append(window)
        return segment(apply, variables, volume, window, **options)

    monkeypatch.setattr(slabs, "segment", record)
    segmenter = Segmenter(model, params, CARD)
    segmenter.predict(scan(), blend="constant", overlap=0.25)
    assert windows == [Window((8, 8, 8), 0.25, "constant", 4)]
    with pytest.raises(ConfigError, match="predict: unknown option 'blnd'; there are overlap, blend, batch"):
        segmenter.predict(scan(), blnd="constant")
