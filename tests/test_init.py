import subprocess
import sys

import pytest

import ukbob_jax as bob


@pytest.mark.parametrize("name", [name for name in bob.__all__ if name != "__version__"])
def test_every_promised_name_is_there_and_is_its_own(name):
    found = getattr(bob, name)
    assert found is getattr(bob, name)  # the second time from the module itself
    assert found.__name__.rsplit(".", 1)[-1] == name


def test_the_listing_is_what_is_promised():
    assert dir(bob) == sorted(bob.__all__)


def test_an_unknown_name_is_an_error_that_lists_the_known():
    with pytest.raises(AttributeError, match=r"no attribute 'Segmentor'; it has .*Segmenter"):
        bob.Segmentor  # noqa: B018


def test_the_import_itself_loads_neither_jax_nor_numpy():
    code = "import sys, ukbob_jax; assert not {'jax', 'numpy', 'ukbob_jax.anatomy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
