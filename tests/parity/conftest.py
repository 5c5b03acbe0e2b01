"""Classifiers that the comparisons share; exporting one takes seconds."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from numpy.typing import NDArray

from tests.parity.cases import BranchNet, Case, SmallNet, randomize, real_case, small_case, small_image


@pytest.fixture(scope="session")
def squeezenet(data: Path, shared: Path) -> Case:
    """Real weights, 512 channels of 13 x 13."""
    return real_case("squeezenet1_1", data, shared / "squeezenet")


@pytest.fixture(scope="session")
def squeezenet_96(data: Path, shared: Path) -> Case:
    """The same weights on images of 96 x 96, at a fifth of the time."""
    return real_case("squeezenet1_1", data, shared / "squeezenet_96", size=96)


@pytest.fixture(scope="session")
def small(shared: Path) -> Case:
    """64 x 64; of the 8 channels the first is 0 everywhere and the second 0.7 everywhere."""
    return small_case(SmallNet(flat=(0.0, 0.7)), shared / "small", size=(64, 64))


@pytest.fixture(scope="session")
def small_signed(shared: Path) -> Case:
    """48 x 80, features of either sign; the first channel is -0.7 everywhere."""
    return small_case(SmallNet(signed=True, flat=(-0.7,)), shared / "signed", size=(48, 80), layer="last")


@pytest.fixture(scope="session")
def small_transformer(shared: Path) -> Case:
    """32 x 32, a class token and 4 x 4 patches."""
    module = torchvision.models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=12, mlp_dim=24, num_classes=5
    )
    randomize(module, 0.3)
    return small_case(module, shared / "transformer", size=(32, 32), layer=None)


@pytest.fixture(scope="session")
def small_branch(shared: Path) -> Case:
    """64 x 64, cut at a layer that a skip connection goes around; features of either sign."""
    return small_case(BranchNet(), shared / "branch", size=(64, 64), layer="inner")


@pytest.fixture(scope="session")
def small_multilabel(shared: Path) -> Case:
    """64 x 64, five classes that do not exclude each other; the first of the 8 channels is 0.7 everywhere."""
    return small_case(SmallNet(flat=(0.7,)), shared / "multilabel", size=(64, 64), activation="sigmoid")


@pytest.fixture(scope="session")
def small_binary(shared: Path) -> Case:
    """64 x 64, one logit."""
    return small_case(SmallNet(classes=1), shared / "binary", size=(64, 64), labels="a", activation="sigmoid")


@pytest.fixture(scope="session")
def small_picture() -> NDArray[np.uint8]:
    return small_image(64, 64)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """PyTorch on one thread: on images this small, threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
