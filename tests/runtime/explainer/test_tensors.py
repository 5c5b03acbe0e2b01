"""PyTorch's tensors where the runtime takes images, the model's input, classes and numbers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import ortcam
from ortcam.bundle.shipped import bundle_path, sample_images
from ortcam.errors import TargetError
from ortcam.images.reading import read_image
from ortcam.request import as_targets, as_top_k

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def explainer() -> ortcam.Explainer:
    return ortcam.load(bundle_path(), threads=1)


@pytest.fixture(scope="module")
def sample() -> Path:
    return sample_images()[0]


def channels_first(pixels: NDArray[np.uint8]) -> Any:
    """The pixels as a tensor uint8 [3,H,W]."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


IMAGES: dict[str, Callable[[NDArray[np.uint8]], Any]] = {
    "a tensor": channels_first,
    "a tensor of floats that needs gradients": lambda pixels: (channels_first(pixels) / 255).requires_grad_(),
    "a parameter": lambda pixels: torch.nn.Parameter(torch.from_numpy(pixels) / 255),
    "a tensor that is a view": lambda pixels: channels_first(pixels).permute(1, 2, 0),
    "half precision": lambda pixels: (channels_first(pixels) / 255).half(),
}


@pytest.mark.sample(every=2)
@pytest.mark.whole
@pytest.mark.parametrize("name", IMAGES)
def test_a_tensor_gives_the_map_of_its_file(name: str, explainer: ortcam.Explainer, sample: Path) -> None:
    of_file = explainer.explain(sample, method="recipro-cam")
    explanation = explainer.explain(IMAGES[name](read_image(sample)), method="recipro-cam")
    np.testing.assert_array_equal(explanation.image, of_file.image)
    np.testing.assert_array_equal(explanation.maps, of_file.maps)
    assert (
        explanation.provenance["image"]["pixels_sha256"]
        == explainer.explain(of_file.image, method="recipro-cam").provenance["image"]["pixels_sha256"]
    )


def test_bfloat16_gives_the_levels_that_it_holds() -> None:
    exact = torch.tensor([[0, 0.25], [0.5, 1]], dtype=torch.bfloat16)
    np.testing.assert_array_equal(read_image(exact)[..., 0], [[0, 64], [128, 255]])


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (torch.zeros(1, 3, 9, 9), r"float32 \[1, 3, 9, 9\] is a batch"),
        (torch.zeros(3, 9, 9, dtype=torch.int64), r"int64 \[3, 9, 9\] is not an image"),
        (torch.zeros(3, 9, 9).to_sparse(), "torch.Tensor gives no array"),
        (torch.zeros(3, 9, 9, device="meta"), "torch.Tensor gives no array"),
        (torch.zeros(1, 1, 1, dtype=torch.bfloat16).expand(3, 10**6, 10**6), "more than the limit"),
    ],
)
def test_a_tensor_that_is_no_image_is_refused_in_one_sentence(tensor: Any, said: str) -> None:
    with pytest.raises(ortcam.ImageError, match=said) as raised:
        read_image(tensor)
    assert "\n" not in str(raised.value)


def test_a_tensor_that_changes_afterwards_changes_nothing(explainer: ortcam.Explainer) -> None:
    tensor = torch.zeros(64, 64, 3, dtype=torch.uint8)
    read = explainer.read(tensor)
    tensor[:] = 255
    assert read.pixels.max() == 0


def test_a_tensor_is_not_taken_for_many_images(explainer: ortcam.Explainer) -> None:
    with pytest.raises(ortcam.ImageError, match="is one image, and this takes several"):
        explainer.explain_many(torch.zeros(3, 9, 9))


def test_a_preprocessed_tensor_gives_the_map_of_its_image(explainer: ortcam.Explainer, sample: Path) -> None:
    read = explainer.read(sample)
    given = torch.from_numpy(read.model_input).requires_grad_()
    of_file = explainer.explain(read, method="recipro-cam")
    np.testing.assert_array_equal(explainer.explain(preprocessed=given, method="recipro-cam").maps, of_file.maps)
    np.testing.assert_array_equal(explainer.predict(preprocessed=given), explainer.predict(read))
    *_, last = explainer.explain_iter(preprocessed=given, budget=8)
    assert last.maps.shape == of_file.maps.shape


def test_integers_in_tensors_are_classes_and_numbers() -> None:
    for target in (torch.tensor(2), torch.tensor([2], dtype=torch.int32), [torch.tensor(2)]):
        assert as_targets(target) == (2,)
        assert type(as_targets(target)[0]) is int
    assert as_targets(torch.tensor([3, 3, 2])) == (3, 3, 2)
    assert as_top_k(torch.tensor(2), 3) == 2


def test_a_truth_value_or_nothing_in_a_tensor_is_no_class() -> None:
    with pytest.raises(TargetError, match="accepted is a class index or a label, or several of them"):
        as_targets(torch.tensor(True))
    with pytest.raises(TargetError, match="target is empty"):
        as_targets(torch.tensor([], dtype=torch.int64))
