"""Ray for tests of batches: with a GPU that it is told of."""

from collections.abc import Iterator

import pytest
from tests.common.ray_here import ray_here as ray_in_this_process


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    with ray_in_this_process(gpus=1):
        yield
