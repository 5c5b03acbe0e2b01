"""Where the maps of the shipped bundle fall on unseen scenes, whose objects have masks: the figures of the model card.

    PYTHONPATH=models python -m shapes.evaluate --singles 100 --pairs 100

Three figures a method, each over scenes that training never drew:

- energy: sum(map inside the object) / sum(map), over the object's share of the picture, which is chance;
- above 3: the share of maps whose energy is at least three times chance;
- own object: in scenes with two objects, the share of maps with a higher mean inside their own object than the other.
"""

import argparse
import dataclasses
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import ortcam
from ortcam.bundle.shipped import bundle_path
from ortcam.methods import METHODS, resolve_method
from ortcam.support.ranges import COUNT
from shapes.scenes import CLASSES, EMPTY, Scene, draw_scene

__all__ = ["Localisation", "accuracy", "localisation", "pair_scenes", "single_scenes"]

# Training takes its seeds from the other end; see train.py.
FIRST_UNSEEN_SEED = 50_000_000


@dataclasses.dataclass(frozen=True)
class Localisation:
    """What one method reached.

    Attributes:
        energy: float64 [n], energy inside the object over chance, one per map.
        own: bool [m], whether the map prefers its own object, one per map of a scene with two.
    """

    energy: NDArray[np.float64]
    own: NDArray[np.bool_]


def single_scenes(count: int) -> list[Scene]:
    """Unseen scenes with one object each, classes in turn."""
    return [draw_scene(FIRST_UNSEEN_SEED + i, labels=(i % EMPTY,)) for i in range(count)]


def pair_scenes(count: int) -> list[Scene]:
    """Unseen scenes with two objects of different classes each, all pairs in turn."""
    pairs = [(a, b) for a in range(EMPTY) for b in range(EMPTY) if a != b]
    return [draw_scene(FIRST_UNSEEN_SEED + 10_000 + i, labels=pairs[i * 7 % len(pairs)]) for i in range(count)]


def accuracy(explainer: ortcam.Explainer, count: int) -> float:
    """Top-1 accuracy on unseen scenes with one object or none, classes in turn."""
    hits = 0
    for i in range(count):
        label = i % len(CLASSES)
        scene = draw_scene(FIRST_UNSEEN_SEED + 20_000 + i, labels=() if label == EMPTY else (label,))
        hits += int(explainer.predict(scene.image).argmax() == label)
    return hits / count


def localisation(explainer: ortcam.Explainer, scenes: Iterable[Scene], method: str, **options: Any) -> Localisation:
    """Explain every object of every scene; both objects of a pair come from the same passes."""
    energy, own = [], []
    for scene in scenes:
        targets = [thing.label for thing in scene.objects]
        explanation = explainer.explain(scene.image, method=method, target=targets, **options)
        for index, thing in enumerate(scene.objects):
            saliency, _ = explanation.on_photograph(index)
            share = saliency[thing.mask].sum() / max(float(saliency.sum()), 1e-12)
            energy.append(share / thing.mask.mean())
            means = [saliency[other.mask].mean() for other in scene.objects]
            if len(means) > 1:
                own.append(means[index] == max(means) and min(means) < max(means))
    return Localisation(np.array(energy), np.array(own))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the model card's table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default=bundle_path())
    parser.add_argument("--singles", type=COUNT, default=60)
    parser.add_argument("--pairs", type=COUNT, default=60)
    parser.add_argument("--accuracy", type=COUNT, default=1400, help="scenes for the accuracy")
    parser.add_argument("--samples", type=COUNT, help="N of SS-CAM and IS-CAM (default: theirs)")
    options = parser.parse_args(arguments)
    explainer = ortcam.load(options.bundle)
    print(f"top-1 accuracy {accuracy(explainer, options.accuracy):.4f} (n = {options.accuracy})\n")
    print("| method | N | energy over chance, mean | min | share above 3 | maps | prefers its own object | maps |")
    print("|---|---|---|---|---|---|---|---|")
    scenes = single_scenes(options.singles) + pair_scenes(options.pairs)
    for method in METHODS:
        if not method.masks_image:
            continue
        sampled = any(option.name == "num_samples" for option in method.options)
        settings: dict[str, object] = {"num_samples": options.samples} if sampled and options.samples else {}
        watched = tqdm(scenes, desc=method.title, file=sys.stderr, disable=None)
        found = localisation(explainer, watched, method.name, **settings)
        plan = resolve_method(method.name, settings).plan
        assert plan is not None
        print(
            f"| {method.title} | {plan.samples} | {found.energy.mean():.2f} | {found.energy.min():.2f} "
            f"| {(found.energy >= 3).mean():.1%} | {found.energy.size} | {found.own.mean():.1%} | {found.own.size} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
