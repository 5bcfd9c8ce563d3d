"""The stores of the data's tests, for objectives that learn from crops."""

from tests.data.conftest import store  # noqa: F401
