"""What a warm start saves: frames of a pan over a photograph, each explained like a single image and after the last.

The frames of a pan are explained exactly once: that takes long, and `--frames FOLDER` keeps what it gives. Then budgets
and tolerances are tried on what was scored, at no further passes. The error is the largest |difference| from the exact
map in [0,1]. Results go to benchmarks/results/stream.md and .json. Run as `python -m benchmarks.frontier.stream`; needs
scikit-image, and $ORTCAM_TEST_DATA for all models but shapes. Several hours on a small machine.
"""

import argparse
import dataclasses
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from benchmarks.common.arguments import add_output, add_threads, say, whole_number
from benchmarks.common.figures import Figure, table
from benchmarks.common.machine import describe_run, run_in_words
from benchmarks.common.results import write_results, write_text
from benchmarks.common.subjects import SUBJECTS, bundle_path

MODELS: Final = ("shapes", "squeezenet1_1", "mobilenet_v2", "resnet18")
PHOTOGRAPHS: Final = ("coffee", "chelsea")  # of scikit-image, both CC0
BUDGETS: Final = (0.06, 0.12, 0.25)
TOLERANCES: Final = (0.02, 0.05)
SIDE: Final = 224
STEP: Final = 3.0  # pixels per frame
NOISE: Final = 2.0  # of a camera: standard deviation, of 255
BATCH_SIZE: Final = 8

REPORT: Final = """\
# Streams: what a warm start saves

A window pans over a photograph by {step:g} pixels of {side} per frame, with camera noise (standard deviation {noise:g}
of 255) and light that rises and falls by 3 %. scorecam, for the class of the first frame. Each frame is explained cold,
like a single image, and warm, after the frame before it (`explain_stream`). The error is the largest |difference| from
the exact map in [0,1], over all frames but the first; "within" is the share of frames whose error is at most the
estimate, or the tolerance.

{found}

{budgets}

{tolerances}

{run}
- {kept}
"""


@dataclasses.dataclass(frozen=True)
class Frame:
    """One frame, explained exactly.

    Attributes:
        features: float32 [C,h,w].
        weights: float64 [1,C], from a pass for every channel.
        target: class index.
    """

    features: np.ndarray
    weights: np.ndarray
    target: int


@dataclasses.dataclass(frozen=True)
class Found:
    """What some limit gave for a frame."""

    share: float  # of the passes of the exact map
    error: float
    estimate: float


Settings = tuple[str, float, bool]  # "budget" or "tolerance", its value, warm


def pan(photograph: str, frames: int, *, side: int = SIDE, step: float = STEP) -> Iterator[np.ndarray]:
    """The frames of a pan: uint8 RGB [side,side,3], back and forth, and a little up and down."""
    import cv2
    import skimage.data

    pixels = getattr(skimage.data, photograph)()[..., :3]
    factor = side / (0.75 * min(pixels.shape[:2]))
    pixels = cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    height, width = pixels.shape[:2]
    room, generator = width - side - 2, np.random.default_rng(0)
    for index in range(frames):
        x = (index * step) % (2 * room)
        x = x if x <= room else 2 * room - x
        y = (height - side) / 2 + (height - side) / 4 * np.sin(index * step / 40)
        frame = cv2.getRectSubPix(pixels, (side, side), (x + side / 2, y + side / 2))
        frame = frame * (1 + 0.03 * np.sin(index / 5)) + generator.normal(0, NOISE, frame.shape)
        yield np.clip(frame, 0, 255).astype(np.uint8)


def exact_frames(model: str, photograph: str, settings: argparse.Namespace, folder: Path) -> list[Frame]:
    """Every frame with all passes, from the folder where it has them."""
    import ortcam
    from ortcam.engine import OnnxEngine, SessionOptions, resolve_providers
    from ortcam.engine.model import Model

    found: list[Frame] = []
    explainer: Any = None
    for index, pixels in enumerate(pan(photograph, settings.count)):
        path = folder / f"{model}_{photograph}_{STEP:g}_{index:03d}.npz"
        if not path.is_file():
            if explainer is None:
                bundle = ortcam.read_bundle(_bundle(model, folder))
                options = SessionOptions(resolve_providers(["cpu"]), settings.threads)
                explainer = ortcam.load(bundle, providers=["cpu"], threads=settings.threads)
                graphs = Model(bundle, OnnxEngine(bundle, options))
            clean = graphs.clean_pass(explainer.read(pixels).model_input)
            target = found[0].target if found else int(np.argmax(clean.logits))
            start = time.perf_counter()
            e = explainer.explain(pixels, method="scorecam", target=target, batch_size=BATCH_SIZE)
            say(f"{model}, {photograph}, frame {index}: {e.stats.passes} passes, {time.perf_counter() - start:.0f} s")
            np.savez(path, feat=clean.maps, w=e.weights, t=[target])
        with np.load(path) as kept:
            found.append(Frame(kept["feat"], kept["w"][:1].astype(np.float64), int(kept["t"][0])))
    return found


def _bundle(model: str, folder: Path) -> Path:
    """The bundle of a model, exported into the folder unless it is there."""
    from ortcam.bundle.shipped import bundle_path as shipped

    if model == "shapes":
        return shipped()
    path = bundle_path(folder, model)
    return path if path.is_dir() else SUBJECTS[model].export(folder)


class _Scored:
    """A scorer that answers from what was scored."""

    fixed_shape = False
    on_gpu = False
    providers: tuple[tuple[str, dict[str, str]], ...] = (("CPUExecutionProvider", {}),)

    def __init__(self, weights: np.ndarray) -> None:
        self._weights = weights.astype(np.float32)
        self._channels = np.zeros(0, np.int64)

    def put(self, name: str, value: np.ndarray) -> None:
        if name == "channels":
            self._channels = value

    def run(self) -> tuple[np.ndarray, ...]:
        probabilities = self._weights[:, self._channels].T
        return probabilities, np.zeros_like(probabilities)


def replay(frames: Sequence[Frame], setting: Settings) -> list[Found]:
    """What a limit gives for all frames but the first."""
    from ortcam.engine.batching import BatchSizer
    from ortcam.methods import resolve_method
    from ortcam.scoring.budget import score
    from ortcam.scoring.limits import Limits
    from ortcam.scoring.loop import Scoring
    from ortcam.scoring.maps import finish, raw_maps
    from ortcam.scoring.masks import prepare_masks
    from ortcam.scoring.prediction.memory import Memory

    limit, value, warm = setting
    plan, memory, found = resolve_method("scorecam", {}).plan, Memory() if warm else None, []
    assert plan is not None  # of a method that masks the image
    for frame in frames:
        masks = prepare_masks(frame.features, plan, height=SIDE, width=SIDE)
        scorer: Any = _Scored(frame.weights)
        scoring = Scoring(
            scorer,
            image=np.zeros((1, 3, SIDE, SIDE), np.float32),
            masks=masks,
            plan=plan,
            targets=np.array([frame.target]),
            baseline=np.zeros(1, np.float32),
            sizer=BatchSizer((BATCH_SIZE,), fixed_shape=False),
        )
        limits = Limits(budget=value) if limit == "budget" else Limits(tolerance=value)
        *_, scores = score(scoring, limits, started=time.perf_counter(), memory=memory)
        raw = np.tensordot(frame.weights, masks.features.astype(np.float64), axes=1)
        exact, maps = finish(raw, SIDE, SIDE)[0], finish(raw_maps(masks, plan, scores), SIDE, SIDE)[0]
        assert scores.error is not None  # weights are predicted
        error = float(np.abs(maps - exact).max())
        found.append(Found(scores.passes / len(masks.order), error, float(scores.error[0])))
    return found[1:]


def measure(frames: Sequence[Frame]) -> dict[Settings, list[Found]]:
    """Every limit, cold and warm."""
    limits = [("budget", value) for value in BUDGETS] + [("tolerance", value) for value in TOLERANCES]
    return {(*limit, warm): replay(frames, (*limit, warm)) for limit in limits for warm in (False, True)}


def _within(found: Sequence[Found], tolerance: float | None) -> str:
    good = [item.error <= (item.estimate if tolerance is None else tolerance) for item in found]
    return f"{np.mean(good):.0%}"


def report(results: Mapping[str, Mapping[Settings, Sequence[Found]]], run: Mapping[str, Any], kept: str) -> str:
    """The results as Markdown."""
    budgets, tolerances, words = [], [], []
    for name, by_setting in results.items():
        for value in BUDGETS:
            row = [name, f"{value:.0%}"]
            for warm in (False, True):
                errors = [item.error for item in by_setting["budget", value, warm]]
                row += [f"{np.median(errors):.4f}", f"{np.percentile(errors, 90):.4f}"]
                row += [_within(by_setting["budget", value, warm], None)]
            budgets.append(row)
        for value in TOLERANCES:
            row = [name, f"{value:g}"]
            for warm in (False, True):
                found = by_setting["tolerance", value, warm]
                row += [f"{np.median([item.share for item in found]):.1%}", _within(found, value)]
                row += [f"{np.median([item.error for item in found]):.4f}"]
            tolerances.append(row)
        words.append(f"- {name}: {_saved(by_setting)}")
    head = "model, photograph, frames"
    figures = [
        f"{start}: {what}" for start in ("cold", "warm") for what in ("median error", "90th percentile", "within")
    ]
    passes = [f"{start}: {what}" for start in ("cold", "warm") for what in ("passes", "within", "median error")]
    settings = f"float32, CPU, batch size {BATCH_SIZE}"
    return REPORT.format(
        step=STEP,
        side=SIDE,
        noise=NOISE,
        found="\n".join(words),
        budgets=table([head, "budget", *figures], budgets),
        tolerances=table([head, "tolerance", *passes], tolerances),
        run=run_in_words(run, settings),
        kept=kept,
    )


def _saved(by_setting: Mapping[Settings, Sequence[Found]]) -> str:
    """How many passes a warm start saves at the same tolerance, in words, and how much smaller errors are."""
    ratios = []
    for value in TOLERANCES:
        cold, warm = (np.mean([item.share for item in by_setting["tolerance", value, w]]) for w in (False, True))
        ratios.append(f"{1 - warm / cold:.0%} at {value:g}")
    factors = []
    for value in BUDGETS:
        cold, warm = (np.median([item.error for item in by_setting["budget", value, w]]) for w in (False, True))
        factors.append(f"{cold / warm:.1f} at {value:.0%}")
    return f"a tolerance takes fewer passes by {', '.join(ratios)}; a budget's error is smaller by {', '.join(factors)}"


def _figures(results: Mapping[str, Mapping[Settings, Sequence[Found]]]) -> Iterator[Figure]:
    for name, by_setting in results.items():
        for (limit, value, warm), found in by_setting.items():
            label = f"{name} / {limit} {value:g} / {'warm' if warm else 'cold'}"
            yield Figure(f"{label} / error", "map", tuple(item.error for item in found))
            yield Figure(f"{label} / passes", "share", tuple(item.share for item in found))


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the arguments, measure, write the results."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog="python -m benchmarks.frontier.stream", description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS, help="default: all")
    parser.add_argument("--photographs", nargs="+", choices=PHOTOGRAPHS, default=PHOTOGRAPHS, help="default: both")
    parser.add_argument("--count", type=whole_number, default=24, help="frames per pan (default %(default)s)")
    parser.add_argument("--frames", type=Path, help="folder that keeps bundles and frames (default: a temporary one)")
    add_threads(parser)
    add_output(parser, "stream")
    settings = parser.parse_args(arguments)
    run = describe_run("benchmarks.frontier.stream", arguments)
    results: dict[str, dict[Settings, list[Found]]] = {}
    with tempfile.TemporaryDirectory(prefix="ortcam-stream-") as temporary:
        folder = settings.frames or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for model in settings.models:
            for photograph in settings.photographs:
                frames = exact_frames(model, photograph, settings, folder)
                results[f"{model}, {photograph}, {len(frames)}"] = measure(frames)
                say(f"{model}, {photograph}: {_saved(results[f'{model}, {photograph}, {len(frames)}'])}")
    kept = "Exact frames: from an earlier run where `--frames` had them, else computed in this run"
    write_text(settings.output.with_suffix(".md"), report(results, run, kept))
    raw = {
        name: {" ".join(map(str, key)): [dataclasses.astuple(item) for item in found] for key, found in item.items()}
        for name, item in results.items()
    }
    write_results(settings.output, run=run, raw={"results": raw}, figures=_figures(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
