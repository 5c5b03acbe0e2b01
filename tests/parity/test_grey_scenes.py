"""A classifier of one channel that was trained on drawn scenes in grey: it tells them apart, and its maps find them."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import ortcam
from ortcam_export import export
from shapes.scenes import CLASSES, EMPTY, Scene, draw_scene

pytestmark = pytest.mark.long

SIDE = 64
TRAINED, HELD_OUT = 0, 70_000_000  # first seeds
KINDS = (0, 4, EMPTY)  # a fish, a mug, and nothing


def scene(seed: int) -> tuple[Scene, int]:
    """A scene of one object or none, and its class by its place in `KINDS`."""
    place = seed % len(KINDS)
    return draw_scene(seed, labels=() if KINDS[place] == EMPTY else (KINDS[place],), size=SIDE), place


def in_grey(image: np.ndarray) -> torch.Tensor:
    """What a training script would do by OpenCV: [1,1,64,64]."""
    return torch.from_numpy(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)).float()[None, None] / 127.5 - 1


class GreyNet(nn.Module):
    """Image [N,1,64,64] -> features [N,48,8,8] -> logits [N,3]."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in ((1, 16), (16, 32), (32, 48)):
            layers += [nn.Conv2d(inputs, outputs, 5, 2, 2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(48, len(KINDS))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = self.features(image)
        logits: torch.Tensor = self.classifier(features.mean((2, 3)))
        return logits


def trained() -> nn.Module:
    pictures = [scene(TRAINED + seed) for seed in range(900)]
    images = torch.cat([in_grey(drawn.image) for drawn, _ in pictures])
    classes = torch.tensor([place for _, place in pictures])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module, epochs, batch = GreyNet(), 14, 50
        optimizer = torch.optim.AdamW(module.parameters(), 5e-3, weight_decay=0.02)
        steps = epochs * (len(images) // batch)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=steps)
        for epoch in range(epochs):
            shown = images.flip(3) if epoch % 2 else images
            for chosen in torch.randperm(len(images)).split(batch):
                optimizer.zero_grad()
                F.cross_entropy(module(shown[chosen]), classes[chosen]).backward()
                optimizer.step()
                schedule.step()
    return module.eval()


def test_a_classifier_of_grey_scenes_is_right_and_its_maps_lie_on_what_was_drawn(tmp_path: Path) -> None:
    module = trained()
    said: dict[str, Any] = {"channel_order": "grey-opencv", "mean": 0.5, "std": 0.5}
    labels = [CLASSES[kind] for kind in KINDS]
    bundle = export(module, tmp_path / "a.ortcam", layer="features", input_size=SIDE, labels=labels, **said)
    right, found, by_chance = [], [], []
    with ortcam.load(bundle.path) as explainer, torch.inference_mode():
        for seed in range(HELD_OUT, HELD_OUT + 60):
            drawn, place = scene(seed)
            probabilities = explainer.predict(drawn.image)
            np.testing.assert_allclose(probabilities, module(in_grey(drawn.image)).softmax(1)[0], atol=1e-4)
            right.append(int(probabilities.argmax()) == place)
            if drawn.objects and right[-1]:
                explanation = explainer.explain(drawn.image, method="grad-cam", target=place)
                mask = cv2.dilate(drawn.objects[0].mask.astype(np.uint8), np.ones((9, 9))).astype(bool)
                found.append(bool(mask.flat[explanation.maps[0].argmax()]))
                by_chance.append(mask.mean())
    # By chance a third is right, and the highest place of a map on the object as often as this is large.
    assert np.mean(right) > 0.7
    assert len(found) >= 20
    assert np.mean(found) > np.mean(by_chance) + 0.3
