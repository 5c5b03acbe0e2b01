"""What the page remembers from one frame to the next is what Python remembers, on the same masks and weights."""

import json

import cv2
import numpy as np
import pytest

from ortcam.scoring.gaussian_process import MaskModel
from ortcam.scoring.prediction.memory import CUT, Memory

CHANNELS, SIZE = 90, (7, 8)
TARGET = 3
# Frames are explained as `Run` does it: look back, condition on what was scored, then on what was found out about
# earlier frames; keep what is known.
BODY = """
  const memory = new own.Memory();
  const out = {};
  for (const [i, frame] of FRAMES.entries()) {
    const count = frame.order.length;
    const model = new own.MaskModel({ data: given[`masks${i}`], count, height: 7, width: 8 }, SIGNED);
    const seen = { order: frame.order, features: model.features, unit: model.unit };
    const before = memory.before(frame.target, seen);
    const first = model.condition(frame.scored, given[`weights${i}`], before);
    const prediction = model.condition(frame.scored, given[`weights${i}`], before, first.recalls);
    const summands = { data: given[`masks${i}`], count, height: 7, width: 8 };
    out[`warm${i}`] = [Number(before !== null)];
    out[`recalls${i}`] = [Number(prediction.recalls)];
    out[`error${i}`] = [model.mapError(prediction, summands, given.normals)];
    for (const name of ["weights", "deviation"]) out[`${name}${i}`] = prediction[name];
    for (const name of ["y", "age", "open"]) out[`${name}${i}`] = prediction.known[name];
    memory.keep(frame.target, CHANNELS, seen, prediction.known);
  }
  return out;
"""
Frame = tuple[int, np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # class, active channels, masks, weights, scored


def smooth(rng, channels=CHANNELS):
    """Masks of all channels: float32 [C,7,8] in [0, 1]."""
    masks = cv2.GaussianBlur(rng.random((channels * SIZE[0], SIZE[1])), (0, 0), 1).reshape(channels, *SIZE)
    return ((masks - masks.min()) / np.ptp(masks)).astype(np.float32)


def frames_of(rng, *, signed):
    """Three frames of a slow pan, one of another class, and one after a cut; in each, other channels are flat."""
    masks, direction = smooth(rng), rng.standard_normal(SIZE)
    frames = []
    for number, target in enumerate([TARGET, TARGET, TARGET, 5, TARGET, TARGET]):
        masks = smooth(rng) if number == 5 else masks + 0.02 * smooth(rng)
        order = np.sort(rng.choice(CHANNELS, CHANNELS - 6, replace=False))
        active = masks[order].astype(np.float32)
        slope = (active * direction).sum(axis=(1, 2))
        weights = slope if signed else np.exp(4 * slope / np.abs(slope).max() - 4)
        scored = np.sort(rng.choice(len(order), 24 - 4 * number % 12, replace=False))
        frames.append((target, order, active, weights, scored))
    return frames


def compare(call, frames: list[Frame], channels: int, *, signed: bool) -> tuple[list[bool], list[bool | None]]:
    """Explain frames on the page and in Python; returns which were warm, and in which earlier frames counted."""
    normals = np.random.default_rng(0).standard_normal((96, 49))
    arrays = {f"masks{i}": masks for i, (_, _, masks, _, _) in enumerate(frames)}
    arrays |= {f"weights{i}": weights for i, (_, _, _, weights, _) in enumerate(frames)}
    told = [
        {"target": target, "order": order.tolist(), "scored": scored.tolist()} for target, order, _, _, scored in frames
    ]
    body = BODY.replace("FRAMES", json.dumps(told)).replace("SIGNED", json.dumps(signed))
    found = call("memory gaussian_process", body.replace("CHANNELS", str(channels)), normals=normals, **arrays)
    memory, warm, recalls = Memory(), [], []
    for i, (target, order, masks, weights, scored) in enumerate(frames):
        model = MaskModel(masks)
        before = memory.before([target], order, model.features, model.unit)
        warm.append(before is not None)
        prediction = model.condition(scored, weights[scored, None], signed=signed, before=before)
        recalls.append(prediction.posterior.recalls)
        error = model.map_error(prediction, masks, np.zeros(1))
        # Python's distances and kernels are float32; what a frame remembers of the frames before adds up.
        top = np.abs(weights).max()
        np.testing.assert_allclose(found[f"weights{i}"], prediction.weights[:, 0], rtol=2e-3, atol=3e-4 * top)
        np.testing.assert_allclose(found[f"deviation{i}"], prediction.deviation[:, 0], rtol=1e-2, atol=2e-3 * top)
        known = prediction.known(before)
        np.testing.assert_allclose(found[f"y{i}"], known.y[:, 0], rtol=2e-3, atol=1e-3)
        np.testing.assert_allclose(found[f"age{i}"], known.age, rtol=1e-3)
        np.testing.assert_allclose(found[f"open{i}"], known.open[:, 0], rtol=1e-2, atol=2e-3)
        assert found[f"error{i}"] == pytest.approx(error, rel=0.03)
        memory.keep([target], channels, order, model.features, known)
    assert [bool(found[f"warm{i}"][0]) for i in range(len(frames))] == warm
    assert [bool(found[f"recalls{i}"][0]) for i in range(len(frames))] == [bool(one) for one in recalls]
    return warm, recalls


@pytest.mark.parametrize("signed", [False, True], ids=["probabilities", "values"])
def test_frames_teach_the_page_what_they_teach_python(call, signed):
    warm, recalls = compare(call, frames_of(np.random.default_rng(0), signed=signed), CHANNELS, signed=signed)
    assert warm == [False, True, True, False, True, False]
    assert [bool(one) for one in recalls] == warm


@pytest.mark.slow
@pytest.mark.parametrize("signed", [False, True], ids=["probabilities", "values"])
def test_what_the_page_recalls_of_many_channels_and_what_it_forgets_is_pythons(call, signed):
    """More were scored than others are predicted from; then weights change wholly, and the masks alone tell them."""
    rng, channels = np.random.default_rng(2), 700
    masks, order = smooth(rng, channels), np.arange(channels)
    shown = masks[:, 2:5, 1:4].mean(axis=(1, 2)).astype(np.float64) ** 2
    rough = rng.uniform(0.1, 1, channels) ** 4
    frames = []
    for count, weights in ((560, rough), (24, rough), (40, shown), (24, shown)):
        scored = np.sort(rng.choice(channels, count, replace=False))
        frames.append((TARGET, order, masks, weights - 0.1 if signed else weights, scored))
    warm, recalls = compare(call, frames, channels, signed=signed)
    assert warm == [False, True, True, True]
    assert [bool(one) for one in recalls[:3]] == [False, True, False]


@pytest.mark.parametrize(("moved", "remembered"), [(0.9 * CUT, True), (1.1 * CUT, False)], ids=["pan", "cut"])
def test_a_cut_is_where_masks_have_moved_as_far_as_they_are_apart(call, moved, remembered):
    rng = np.random.default_rng(1)
    features = rng.standard_normal((12, 5))
    step = np.zeros(5)
    step[0] = np.sqrt(moved)
    body = """
      const seen = (data) => ({ order: [...Array(12).keys()], features: { data, rows: 12, columns: 5 }, unit: 1 });
      const memory = new own.Memory();
      const known = { y: new Float64Array(12), age: new Float64Array(12), open: new Float64Array(12), change: 0 };
      memory.keep(7, 12, seen(given.before), known);
      const again = memory.before(7, seen(given.now)) !== null;
      return { found: [Number(again), Number(memory.empty), Number(memory.before(6, seen(given.now)) !== null)] };
    """
    found = call("memory", body, before=features, now=features + step)["found"]
    assert list(found) == [remembered, not remembered, False]
