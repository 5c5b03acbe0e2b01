"""Train the `shapes` model: torchvision's ShuffleNet V2 x0.5 from scratch, on scenes drawn by `scenes.py`.

    PYTHONPATH=models python -m shapes.train -o shapes.pth

The pictures are drawn once and varied at every epoch. The variations are those a CAM method inflicts on its input:
soft masks, noise and gain, all on the normalised picture. The target follows what is still visible: an object hidden
by a mask becomes `empty`, two visible objects share the probability.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from ortcam.support.ranges import COUNT
from shapes.scenes import CLASSES, EMPTY, draw_scene

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
COARSE = 28
"""Side of the object masks in training; they only say how much of an object is visible."""

HELD_OUT_SEED = 10_000_000
"""First seed of the pictures the model never trains on; training takes the seeds from 0."""


@dataclass(frozen=True)
class Pictures:
    """Drawn scenes as tensors.

    Attributes:
        images: uint8 [N, 3, 224, 224].
        labels: int64 [N, 2], `EMPTY` where there is no object.
        masks: float32 [N, 2, COARSE, COARSE], the share of each cell an object covers.
    """

    images: Tensor
    labels: Tensor
    masks: Tensor


def draw_pictures(first_seed: int, count: int) -> Pictures:
    """Draw the scenes of `count` seeds from `first_seed` on."""
    images = torch.empty(count, 3, 224, 224, dtype=torch.uint8)
    labels = torch.full((count, 2), EMPTY)
    masks = torch.zeros(count, 2, COARSE, COARSE)
    for i in range(count):
        scene = draw_scene(first_seed + i)
        images[i] = torch.from_numpy(scene.image).permute(2, 0, 1)
        for j, thing in enumerate(scene.objects):
            labels[i, j] = thing.label
            cells = cv2.resize(thing.mask.astype(np.float32), (COARSE, COARSE), interpolation=cv2.INTER_AREA)
            masks[i, j] = torch.from_numpy(cells)
    return Pictures(images, labels, masks)


def normalise(images: Tensor) -> Tensor:
    """uint8 [N, 3, H, W] to float32, by the mean and standard deviation the model expects."""
    scaled = images.float() / 255
    return (scaled - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def random_masks(masks: Tensor) -> Tensor:
    """Soft masks like an upsampled 7 x 7 activation map: two random blobs, one of them often near an object.

    Args:
        masks: float32 [N, 2, COARSE, COARSE], the objects.

    Returns:
        float32 [N, 1, 7, 7] with minimum 0 and maximum 1.
    """
    n = len(masks)
    axis = torch.arange(7.0)
    near = F.adaptive_avg_pool2d(masks, 7)[torch.arange(n), torch.randint(2, (n,))].flatten(1)
    anywhere = torch.full_like(near, 1 / 49)
    fields = torch.zeros(n, 7, 7)
    for weights in (near + 1e-6, anywhere):
        cell = torch.multinomial(weights, 1).squeeze(1)
        y, x = cell // 7 + torch.randn(n) * 0.5, cell % 7 + torch.randn(n) * 0.5
        width = torch.empty(n).uniform_(0.6, 2.2)
        distance = (axis.view(1, 7, 1) - y.view(n, 1, 1)) ** 2 + (axis.view(1, 1, 7) - x.view(n, 1, 1)) ** 2
        fields += torch.rand(n, 1, 1) * torch.exp(-distance / (2 * width.view(n, 1, 1) ** 2))
    fields += 0.1 * torch.rand(n, 1, 1) * torch.rand(n, 7, 7)
    inverted = torch.rand(n, 1, 1) < 0.25
    fields = torch.where(inverted, -fields, fields)
    low, high = fields.amin((1, 2), keepdim=True), fields.amax((1, 2), keepdim=True)
    return ((fields - low) / (high - low)).unsqueeze(1)


def vary(images: Tensor, labels: Tensor, masks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Flip, recolour, mask, amplify and add noise at random.

    Args:
        images: uint8 [N, 3, 224, 224].
        labels: int64 [N, 2].
        masks: float32 [N, 2, COARSE, COARSE].

    Returns:
        The model's input float32 [N, 3, 224, 224], the target distribution float32 [N, classes], and what is visible
        of the objects, float32 [N, 1, COARSE, COARSE].
    """
    n = len(images)
    if torch.rand(()) < 0.5:
        images, masks = images.flip(3), masks.flip(3)
    x = normalise(images[:, torch.randperm(3)])

    kept = torch.where(torch.rand(n, 1, 1, 1) < 0.6, random_masks(masks), torch.ones(()))
    x = x * F.interpolate(kept, size=224, mode="bilinear")
    visible = masks * F.interpolate(kept, size=COARSE, mode="bilinear")

    gain = torch.exp(torch.empty(n, 1, 1, 1).uniform_(np.log(0.1), np.log(5.5)))
    x = x * torch.where(torch.rand(n, 1, 1, 1) < 0.3, gain, torch.ones(()))
    noise = torch.exp(torch.empty(n, 1, 1, 1).uniform_(np.log(0.1), np.log(1.5)))
    x = x + torch.where(torch.rand(n, 1, 1, 1) < 0.3, noise, torch.zeros(())) * torch.randn_like(x)

    share = visible.sum((2, 3)) / masks.sum((2, 3)).clamp_min(1e-6)
    presence = ((share - 0.2) / 0.4).clamp(0, 1)
    most = presence.amax(1, keepdim=True)
    each = most * presence / presence.sum(1, keepdim=True).clamp_min(1e-6)
    target = torch.zeros(n, len(CLASSES)).scatter_add_(1, labels, each)
    target[:, EMPTY] += 1 - most.squeeze(1)
    return x, target, visible.sum(1, keepdim=True)


def train(pictures: Pictures, *, epochs: int, batch: int = 64, rate: float = 4e-3, sparsity: float = 1.0) -> nn.Module:
    """Train from scratch with AdamW on a one-cycle schedule and print the loss of every epoch.

    The loss is the cross-entropy with the target distribution, plus the mean activation of the last spatial features
    away from the visible objects (the leak), whose weight grows linearly from 0 to `sparsity` over the training, so
    that features are learnt before they are confined.
    """
    model: nn.Module = torchvision.models.shufflenet_v2_x0_5(num_classes=len(CLASSES))
    model.to(memory_format=torch.channels_last)
    *layers, fc = model.children()
    features = nn.Sequential(*layers)
    count = len(pictures.images)
    steps = count // batch
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=epochs * steps, pct_start=0.2)
    for epoch in range(epochs):
        start, total, leaked = time.perf_counter(), 0.0, 0.0
        for index in torch.randperm(count)[: steps * batch].view(steps, batch):
            x, target, visible = vary(pictures.images[index], pictures.labels[index], pictures.masks[index])
            A = features(x.contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(fc(A.mean((2, 3))), target)
            leak = (A * (1 - F.adaptive_max_pool2d(visible, 7))).mean()
            optimiser.zero_grad()
            (loss + sparsity * schedule.last_epoch / schedule.total_steps * leak).backward()
            optimiser.step()
            schedule.step()
            total += loss.item()
            leaked += leak.item()
        seconds = time.perf_counter() - start
        means = f"loss {total / steps:.4f}  leak {leaked / steps:.4f}"
        print(f"epoch {epoch + 1:2d}/{epochs}  {means}  {seconds:.0f} s", flush=True)
    return model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, first_seed: int, count: int) -> float:
    """Share of correct top-1 answers on `count` unseen pictures, the object classes and `empty` in turn."""
    correct = 0
    for i in range(count):
        label = i % len(CLASSES)
        scene = draw_scene(first_seed + i, labels=() if label == EMPTY else (label,))
        x = normalise(torch.from_numpy(scene.image).permute(2, 0, 1)[None])
        correct += int(model(x).argmax() == label)
    return correct / count


def main() -> None:
    """Draw, train, save the state dict, and print the accuracy on held-out pictures."""
    parser = argparse.ArgumentParser(description="Train the shapes model.")
    parser.add_argument("-o", "--output", type=Path, default=Path("shapes.pth"), help="checkpoint to write")
    parser.add_argument("--epochs", type=COUNT, default=12)
    parser.add_argument("--seed", type=COUNT, default=0, help="of the initial weights and the variations")
    parser.add_argument("--threads", type=COUNT, default=1, help="CPU threads; their number changes the rounding")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    torch.manual_seed(args.seed)

    model = train(draw_pictures(0, 8000), epochs=args.epochs)
    torch.save(model.state_dict(), args.output)
    print(f"held-out top-1 accuracy {accuracy(model, HELD_OUT_SEED, 1400):.4f} (n = 1400)")


if __name__ == "__main__":
    main()
