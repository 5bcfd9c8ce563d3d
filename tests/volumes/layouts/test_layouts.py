import pytest

from ukbob_jax.errors import ConfigError
from ukbob_jax.volumes import layouts


def test_the_layouts_are_the_modules_of_the_folder():
    assert layouts.names() == ["bids", "brats", "btcv", "decathlon", "folders", "nnunet", "organ_masks"]


def test_an_unknown_layout_or_option_is_named(tmp_path):
    with pytest.raises(ConfigError, match="'msd' is not known; expected one of bids, brats, btcv, decathlon"):
        layouts.list_cases("msd", tmp_path)
    with pytest.raises(ConfigError, match="'decathlon' takes root, modality, fold: missing"):
        layouts.list_cases("decathlon", images=tmp_path)


def test_selectors_are_what_layouts_take_beside_their_paths():
    assert layouts.selectors().keys() >= {"desc", "space", "pipeline", "modality", "fold"}
    assert not layouts.selectors().keys() & {"root", "images", "labels"} and not any(
        layouts.selectors().values()
    )
