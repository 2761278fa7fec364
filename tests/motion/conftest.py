import pytest

from champ.body.free import load_free_body


@pytest.fixture(scope="session")
def body():
    return load_free_body()
