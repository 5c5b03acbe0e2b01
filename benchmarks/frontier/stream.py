"""What a warm start saves: frames of a pan over a photograph, each explained like a single image and after the last.

The frames of a pan are explained exactly once: that takes long, and `--frames FOLDER` keeps what it gives. Then budgets
and tolerances are tried on what was scored, at no further passes. The same is done for a still scene that a second
thing enters. The error is the largest |difference| from the exact map in [0,1]. Results go to
benchmarks/results/stream.md and .json. Run as `python -m benchmarks.frontier.stream`; needs scikit-image, and
$ORTCAM_TEST_DATA for all models but shapes. Several hours on a small machine.
"""

import argparse
import dataclasses
import itertools
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from benchmarks.common.arguments import add_output, add_threads, say, whole_number
from benchmarks.common.machine import describe_run, run_in_words
from benchmarks.common.results import write_results, write_text
from benchmarks.common.subjects import SUBJECTS, bundle_path
from benchmarks.frontier.scenes import SIDE, STEP, STILL, pan, thing_enters
from benchmarks.frontier.stream_report import (
    BUDGETS,
    PREAMBLE,
    TOLERANCES,
    Found,
    Settings,
    figures,
    saved,
    study,
)

MODELS: Final = ("shapes", "squeezenet1_1", "mobilenet_v2", "resnet18")
PHOTOGRAPHS: Final = ("coffee", "chelsea")  # of scikit-image, both CC0
COUNT: Final = 24
SMALL: Final = (8, 16)  # channels, of a still scene
BATCH_SIZE: Final = 8

REPORT: Final = """\
# Streams: what a warm start saves

{preamble}

{study}
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


def exact_frames(model: str, name: str, scene: Iterable[np.ndarray], folder: Path, threads: int) -> list[Frame]:
    """Every frame with all passes, from the folder where it has them.

    Args:
        model: its name.
        name: of the scene, unique among scenes.
        scene: its frames, uint8 RGB [side,side,3].
        folder: of bundles and frames.
        threads: for an operator.
    """
    import ortcam
    from ortcam.engine import OnnxEngine, SessionOptions, resolve_providers
    from ortcam.engine.model import Model

    found: list[Frame] = []
    explainer: Any = None
    for index, pixels in enumerate(scene):
        path = folder / f"{model}_{name}_{index:03d}.npz"
        if not path.is_file():
            if explainer is None:
                bundle = ortcam.read_bundle(bundle_of(model, folder))
                options = SessionOptions(resolve_providers(["cpu"]), threads)
                explainer = ortcam.load(bundle, providers=["cpu"], threads=threads)
                graphs = Model(bundle, OnnxEngine(bundle, options))
            clean = graphs.clean_pass(explainer.read(pixels).model_input)
            target = found[0].target if found else int(np.argmax(clean.logits))
            start = time.perf_counter()
            e = explainer.explain(pixels, method="scorecam", target=target, batch_size=BATCH_SIZE)
            say(f"{model}, {name}, frame {index}: {e.stats.passes} passes, {time.perf_counter() - start:.0f} s")
            np.savez(path, feat=clean.maps, w=e.weights, t=[target])
        with np.load(path) as kept:
            found.append(Frame(kept["feat"], kept["w"][:1].astype(np.float64), int(kept["t"][0])))
    return found


def bundle_of(model: str, folder: Path) -> Path:
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
        limits = Limits(budget=value if value < 1 else int(value)) if limit == "budget" else Limits(tolerance=value)
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


def measure_scene(frames: Sequence[Frame]) -> dict[Settings, list[Found]]:
    """Small budgets, cold and warm, for a still scene that a thing enters."""
    still = [frames[0]] * STILL + [frames[1]] * STILL
    return {
        ("budget", value, warm): replay(still, ("budget", value, warm)) for value in SMALL for warm in (False, True)
    }


@dataclasses.dataclass(frozen=True)
class Pan:
    """A model, a photograph that the window pans over, and how many frames."""

    model: str
    photograph: str
    count: int

    @classmethod
    def of(cls, text: str) -> "Pan":
        """From MODEL:PHOTOGRAPH:FRAMES."""
        model, _, rest = text.partition(":")
        photograph, _, count = rest.partition(":")
        if model not in MODELS or photograph not in PHOTOGRAPHS:
            accepted = f"MODEL:PHOTOGRAPH:FRAMES, of {', '.join(MODELS)} and {', '.join(PHOTOGRAPHS)}"
            raise argparse.ArgumentTypeError(f"{text[:60]!r}: accepted is {accepted}")
        return cls(model, photograph, whole_number(count))

    @property
    def name(self) -> str:
        """In tables."""
        return f"{self.model}, {self.photograph}, {self.count}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the arguments, measure, write the results."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog="python -m benchmarks.frontier.stream", description=__doc__)
    every = [Pan(model, photograph, COUNT) for model, photograph in itertools.product(MODELS, PHOTOGRAPHS)]
    help_ = f"as squeezenet1_1:coffee:24, which is frames (default: all models and photographs, {COUNT} frames)"
    parser.add_argument("--pans", nargs="+", type=Pan.of, default=every, metavar="MODEL:PHOTOGRAPH:FRAMES", help=help_)
    help_ = "models whose still scene a thing enters, over the first photograph (default: all)"
    parser.add_argument("--scenes", nargs="*", choices=MODELS, default=MODELS, help=help_)
    parser.add_argument("--frames", type=Path, help="folder that keeps bundles and frames (default: a temporary one)")
    add_threads(parser)
    add_output(parser, "stream")
    settings = parser.parse_args(arguments)
    run = describe_run("benchmarks.frontier.stream", arguments)
    with tempfile.TemporaryDirectory(prefix="ortcam-stream-") as temporary:
        folder = settings.frames or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        pans, scenes = _replayed(settings, folder)
    text = REPORT.format(
        preamble=PREAMBLE,
        study=study(pans, scenes),
        run=run_in_words(run, f"float32, CPU, batch size {BATCH_SIZE} for exact maps, {settings.threads} threads"),
        kept="Exact frames: from an earlier run where `--frames` had them, else computed in this run",
    )
    write_text(settings.output.with_suffix(".md"), text)
    raw = {"pans": _raw(pans), "scenes": _raw(scenes)}
    series = itertools.chain(figures(pans), figures(scenes))
    write_results(settings.output, run=run, raw=raw, figures=series)
    return 0


def _replayed(
    settings: argparse.Namespace, folder: Path
) -> tuple[dict[str, dict[Settings, list[Found]]], dict[str, dict[Settings, list[Found]]]]:
    """Pans and still scenes, by name."""
    pans, scenes = {}, {}
    for item in settings.pans:
        moving = pan(item.photograph, item.count)
        frames = exact_frames(item.model, f"{item.photograph}_{STEP:g}", moving, folder, settings.threads)
        pans[item.name] = measure(frames)
        say(f"{item.name}: saves {saved(pans[item.name], 0.05)} at 0.05")
    for model in settings.scenes:
        photograph = PHOTOGRAPHS[0]
        frames = exact_frames(model, f"{photograph}_enters", thing_enters(photograph), folder, settings.threads)
        scenes[f"{model}, {photograph}"] = measure_scene(frames)
    return pans, scenes


def _raw(results: Mapping[str, Mapping[Settings, Sequence[Found]]]) -> dict[str, Any]:
    return {
        name: {" ".join(map(str, key)): [dataclasses.astuple(item) for item in found] for key, found in item.items()}
        for name, item in results.items()
    }


if __name__ == "__main__":
    sys.exit(main())
