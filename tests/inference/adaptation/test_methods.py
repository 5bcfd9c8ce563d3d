"""How a method is written down, and which network it runs on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ukbob_jax.errors import ConfigError
from ukbob_jax.inference.adaptation import methods
from ukbob_jax.inference.adaptation.methods import Method
from ukbob_jax.inference.adaptation.options import Adaptation, Tent


@pytest.mark.parametrize(
    "given, expected",
    [
        (False, Method("off")),
        (True, Method("etta", Adaptation())),
        ("tta", Method("tta")),
        ({"steps": 2}, Method("etta", Adaptation(steps=2))),
        ({"method": "tent", "learning_rate": 0.1}, Method("tent", Tent(learning_rate=0.1))),
    ],
)
def test_forms_of_a_method(given, expected):
    assert Method.parse(given) == expected == Method.parse(expected)
    assert Method.parse(expected.to_json()) == expected
    assert expected.adapts == (expected.name in methods.OPTIONS)


@pytest.mark.parametrize(
    "given, message",
    [
        ("magic", "method 'magic' is not one of off, etta, tent, bn, tta"),
        ({"method": "off", "steps": 1}, "'off' takes no options; got steps"),
        ({"exclude": (1,)}, "method 'etta': unknown option 'exclude'; there are overlap, batch, steps"),
        ({"method": "bn", "fraction": 2}, "bn: fraction 2 is outside 0 to 1"),
    ],
)
def test_wrong_methods_are_named(given, message):
    with pytest.raises(ConfigError, match=message):
        Method.parse(given)


def test_the_network_says_how_its_logits_are_read(networks):
    model = networks[0]()
    params = model.init(jax.random.key(1), jnp.zeros((1, 4, 4, 4, 2)))["params"]
    x = np.random.default_rng(0).normal(size=(4, 4, 4, 2)).astype(np.float32)
    network = (model, params, {})
    assert Method.parse("off").run(network, x, (4, 4, 4), "softmax", ()) is None
    plain, without = (Method.parse(True).run(network, x, (4, 4, 4), "softmax", e) for e in ((), (1,)))
    assert plain.class_fractions_before[1] > 0 == without.class_fractions_before[1]
