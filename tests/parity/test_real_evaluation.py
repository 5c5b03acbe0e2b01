"""Evaluation on real weights and photographs: torch-cam's metrics of the same maps, boxes as torchvision has them."""

import functools
import lzma
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
import torchvision
from torchcam.metrics import ClassificationMetric, DeletionInsertionMetric
from torchvision import transforms

import ortcam
from ortcam.evaluation.dataset import inside_boxes, read_dataset
from ortcam.evaluation.run import evaluate
from ortcam.images.preprocessing import Preprocessing
from ortcam.request import class_index
from tests.common.stand_ins import GivenExtractor
from tests.parity.test_real_models import export_real


@pytest.mark.long
def test_an_evaluation_of_real_photographs_agrees_with_torch_cams_metrics(
    data: Path, shared: Path, tmp_path: Path
) -> None:
    bundle = export_real("squeezenet1_1", data, shared)
    report = evaluate(
        bundle,
        data / "images.csv",
        tmp_path / "out",
        methods=["eigen-cam"],
        metrics=["average-drop", "insertion-zero", "deletion-zero"],
        limit=1,
    )
    explainer = ortcam.load(bundle, providers=["cpu"])
    model = torchvision.models.squeezenet1_1()
    with lzma.open(data / "weights" / "squeezenet1_1.pth.xz") as file:
        state = torch.load(file, weights_only=True)
    model.load_state_dict({key: value.float() for key, value in state.items()})
    model.eval()
    for index, name in enumerate(report.results.images):
        explanation = explainer.explain(data / "images" / name, method="eigen-cam")
        image = torch.from_numpy(explainer.preprocess(data / "images" / name))
        extractor = GivenExtractor(model, explanation.maps[0])
        drop = ClassificationMetric(extractor, functools.partial(torch.softmax, dim=-1))
        drop.update(image)
        curves = DeletionInsertionMetric(extractor, functools.partial(torch.softmax, dim=-1), steps=100)
        curves.update(image)
        theirs = curves.summary()
        ours = report.results.values["eigen-cam"]
        assert ours["average-drop"][index] / 100 == pytest.approx(drop.summary()["avg_drop"], abs=1e-5)
        assert ours["insertion-zero"][index] / 100 == pytest.approx(theirs["insertion_auc"], abs=1e-5)
        assert ours["deletion-zero"][index] / 100 == pytest.approx(theirs["deletion_auc"], abs=1e-5)


def test_boxes_lie_in_the_models_input_where_torchvision_would_put_them(data: Path) -> None:
    examples = read_dataset(data / "images.csv", lambda target: class_index(target, ("",) * 1000), limit=40)
    preprocessing = Preprocessing(height=224, width=224, resize=256, mean=(0.5,) * 3, std=(0.5,) * 3)
    transform = transforms.Compose(
        [transforms.Resize(256, transforms.InterpolationMode.NEAREST_EXACT), transforms.CenterCrop(224)]
    )
    for example in examples:
        width, height = example.size or (0, 0)
        y, x = np.mgrid[:height, :width] + 0.5
        mask = np.zeros((height, width), np.uint8)
        for x0, y0, x1, y1 in example.boxes:
            mask[(x >= x0) & (x < x1) & (y >= y0) & (y < y1)] = 255
        expected = np.asarray(transform(PIL.Image.fromarray(mask))) > 0
        found = inside_boxes(example, preprocessing, height, width)
        assert (found != expected).mean() < 0.01, example.name
