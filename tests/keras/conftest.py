"""What the tests of the class Adafactor share: Keras itself, which they are held against."""

import pytest

from peers import require


@pytest.fixture
def keras():
    return require("keras")
