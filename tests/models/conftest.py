import functools

import pytest

from tests.models.cases import Case


@pytest.fixture(scope="session")
def case(reference):
    """`case("A")`: one reference configuration, computed once per session."""
    return functools.cache(functools.partial(Case, reference))
