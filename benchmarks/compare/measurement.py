"""What is compared, and the numbers of one model: settings, measurements, and the figures that are committed."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Final

from benchmarks.common.figures import Figure, median

OURS: Final = "ortcam"
AUTO: Final = "ortcam-auto"
GATED: Final = "ortcam-scorecam++"
FORWARD: Final = "onnxruntime-forward"
TITLES: Final = {
    OURS: "ortcam",
    AUTO: "ortcam, automatic batch",
    GATED: "ortcam, ScoreCAM++",
    "torch-cam": "torch-cam",
    "torch-cam-best": "torch-cam, best settings",
    "pytorch-grad-cam": "pytorch-grad-cam",
    "pytorch-grad-cam-best": "pytorch-grad-cam, best settings",
}
LIBRARIES: Final = {
    "scorecam": tuple(TITLES),
    "sscam": (OURS, AUTO, "torch-cam", "torch-cam-best"),
    "iscam": (OURS, AUTO, "torch-cam", "torch-cam-best"),
}
FORWARD_BATCH_SIZES: Final = (1, 2, 4, 8, 16, 32)

# torch-cam normalises maps before it upsamples them and weighs by a softmax of logits; with the same choices ortcam has
# to give the same map. pytorch-grad-cam upsamples with aligned corners, which ortcam does not: its map is only close.
SEMANTICS: Final = {
    "torch-cam": {"weighting": "logit-softmax", "normalize": "before-upsampling"},
    "pytorch-grad-cam": {"weighting": "logit-softmax", "normalize": "after-upsampling"},
}
SAME: Final = 0.999


@dataclasses.dataclass(frozen=True)
class Settings:
    """What holds for all libraries.

    Attributes:
        method: of `common.subjects.METHODS`.
        libraries: that are measured.
        photograph: file under images/.
        target: class index that is explained.
        label: its name.
        repeats: timed runs a library.
        repeats_large: the same for models whose explanations take a peer minutes.
        cold_starts: fresh processes a library; one for large models.
        batch_size: masked images a forward pass.
        threads: inside an operator.
    """

    method: str
    libraries: tuple[str, ...]
    photograph: str
    target: int
    label: str
    repeats: int
    repeats_large: int
    cold_starts: int
    batch_size: int
    threads: int

    def __str__(self) -> str:
        return (
            f"photograph {self.photograph} (class {self.target}, {self.label}), {self.threads} threads, float32, CPU, "
            f"{self.repeats} timed runs ({self.repeats_large} of large models), interleaved, after one to warm up, "
            f"{self.cold_starts} cold starts (large models 1), one process a library, progress bars off"
        )


@dataclasses.dataclass(frozen=True)
class Measurement:
    """The raw numbers of one model; lists in the order of the runs, a dict has one list a library.

    Attributes:
        layer: module path of the maps.
        random: whether the weights are random.
        channels: C, the channels that the peers score.
        passes: what ortcam makes: it leaves out channels that are the same everywhere.
        seconds: of every run.
        stages: of ortcam's runs, a dict of seconds a stage each.
        batch_sizes: that a library ran with.
        ten_seconds: of ortcam's runs for ten classes.
        forward_seconds: an image, of bare passes in ONNX Runtime, by batch size.
        torch_forward_seconds: an image, in PyTorch at best settings, by batch size; one value each.
        cold_start_seconds: from the start of a process to its first heatmap.
        peak_bytes: resident memory at most.
        agreement: Pearson correlation of a peer's map with ortcam's when that makes the peer's choices.
        date: when it was measured.
    """

    layer: str
    random: bool
    channels: int
    passes: int
    seconds: dict[str, list[float]]
    stages: list[dict[str, float]]
    batch_sizes: dict[str, int]
    ten_seconds: list[float]
    forward_seconds: dict[str, list[float]]
    torch_forward_seconds: dict[str, float]
    cold_start_seconds: dict[str, list[float]]
    peak_bytes: dict[str, list[int]]
    agreement: dict[str, float]
    date: str = ""

    @property
    def bare_seconds(self) -> float:
        """What the bare passes of an explanation take at the best batch size."""
        return self.passes * min(median(values) for values in self.forward_seconds.values())

    def overhead(self, library: str) -> float:
        """The time of an explanation by its bare passes."""
        return median(self.seconds[library]) / self.bare_seconds


def figures(measurements: Mapping[str, Measurement]) -> Iterable[Figure]:
    """What is compared between commits."""
    for model, result in measurements.items():
        for library in result.seconds:
            name = f"{model} / {library}"
            yield Figure(f"{name} / latency", "s", tuple(result.seconds[library]))
            yield Figure(f"{name} / peak memory", "B", tuple(result.peak_bytes[library]))
            if library in result.cold_start_seconds:
                yield Figure(f"{name} / cold start", "s", tuple(result.cold_start_seconds[library]))
        for size, seconds in result.forward_seconds.items():
            yield Figure(f"{model} / bare passes in batches of {size} / an image", "s", tuple(seconds))
        if result.ten_seconds:
            yield Figure(f"{model} / {OURS} / ten classes", "s", tuple(result.ten_seconds))
