"""What is interrupted: the commands that write results, what is there before, and what is there after."""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.helper as oh
import onnx_ir  # noqa: F401
import onnxruntime  # noqa: F401
import onnxscript  # noqa: F401

from ortcam import benchmarking as benchmark
from ortcam import bundle, cli
from ortcam.cli.commands import demo as demo_command
from ortcam.cli.common import Terminated
from ortcam.cli.main import orderly_termination
from ortcam.engine import batching as tuning
from ortcam.images.encoding import write_png

LABELS = ("cat", "dog", "sea snake")


def model(path: Path, seed: int) -> None:
    """A classifier of three classes: two convolutions and a linear head, image [N,3,32,48] -> logits [N,3]."""
    random = np.random.default_rng(seed)

    def weights(name: str, *shape: int) -> onnx.TensorProto:
        return onnx.numpy_helper.from_array(random.normal(0, 0.6, shape).astype(np.float32), name)

    nodes = [
        oh.make_node("Conv", ["image", "a"], ["x"], strides=[2, 2], pads=[1] * 4),
        oh.make_node("Relu", ["x"], ["y"]),
        oh.make_node("Conv", ["y", "b"], ["z"], strides=[2, 2], pads=[1] * 4),
        oh.make_node("Relu", ["z"], ["m"]),
        oh.make_node("GlobalAveragePool", ["m"], ["p"]),
        oh.make_node("Flatten", ["p"], ["f"]),
        oh.make_node("Gemm", ["f", "w"], ["logits"], transB=1),
    ]
    graph = oh.make_graph(
        nodes,
        "tiny",
        [oh.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["N", 3, 32, 48])],
        [oh.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["N", 3])],
        [weights("a", 16, 3, 3, 3), weights("b", 12, 16, 3, 3), weights("w", 3, 12)],
    )
    made = oh.make_model(graph, opset_imports=[oh.make_opsetid("", 18)])
    made.ir_version = 10
    onnx.save(made, path)


def export(folder: Path, which: str, name: str = "x.ortcam") -> list[str]:
    """The arguments of an export of the old or the new model; the labels tell which."""
    options = f"--labels {folder}/{which}.txt --channel-order rgb --scale 1 --mean .5 .5 .5 --std .2 .2 .2 --force"
    return ["export", f"{folder}/{which}.onnx", "-o", f"{folder}/out/{name}", *options.split()]


def run(arguments: Sequence[str]) -> int:
    """Run a command with nothing printed."""
    with (
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        return cli.main(arguments)


@dataclasses.dataclass(frozen=True)
class Scenario:
    """What is done to a folder.

    Attributes:
        before: what makes the old result.
        act: what is interrupted; returns an exit code.
        state: what is there: "old", "new", "none", or else what is wrong.
        rival: the same with the old result, for two runs at once.
    """

    before: Callable[[Path], None]
    act: Callable[[Path], int]
    state: Callable[[Path], str]
    rival: Callable[[Path], int] | None = None


def done(arguments: Sequence[str]) -> None:
    assert run(arguments) == 0, arguments


def state_of_bundle(folder: Path) -> str:
    if not (folder / "out/x.ortcam").exists():
        return "none"
    return bundle.read_bundle(folder / "out/x.ortcam").manifest.labels[0].split()[0]


def external_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """The tensors of a graph and of those inside it that lie in files."""
    yield from (tensor for tensor in graph.initializer if tensor.external_data)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from external_tensors(attribute.g)


def digest(path: Path) -> str:
    """A hash of a graph, but for the name of its weights, and of its weights."""
    model = onnx.load(path, load_external_data=False)
    names = set()
    for tensor in external_tensors(model.graph):
        for item in tensor.external_data:
            if item.key == "location":
                names.add(item.value)
                item.value = "weights"
    hashed = hashlib.sha256(model.SerializeToString(deterministic=True))
    for name in sorted(names):
        hashed.update((path.parent / name).read_bytes())
    return hashed.hexdigest()


def fuse(folder: Path, which: str, *more: str) -> list[str]:
    return ["fuse", f"{folder}/{which}.ortcam", "--no-verify", "--quiet", *more]


def fused(*more: str, file: str, target: Sequence[str], over_old: bool = True) -> Scenario:
    """A scenario of `ortcam fuse`, over the fused model of another bundle or over nothing."""

    def arguments(folder: Path, which: str) -> list[str]:
        force = ["--force"] if over_old else []
        return fuse(folder, which, *more, *force, *(text.format(folder) for text in target))

    def before(folder: Path) -> None:
        for which in ("new", "old") if over_old else ("new",):
            shutil.rmtree(folder / "out")
            (folder / "out").mkdir()
            done(arguments(folder, which))
            (folder / f"{which}.digest").write_text(digest(folder / "out" / file))
        if not over_old:
            shutil.rmtree(folder / "out")
            (folder / "out").mkdir()

    def state(folder: Path) -> str:
        path = folder / "out" / file
        if not path.exists():
            return "none"
        found = digest(path)
        known = {(folder / f"{name}.digest").read_text(): name for name in ("old", "new") if over_old or name == "new"}
        return known.get(found, "mixture")

    act, rival = (lambda folder, which=which: run(arguments(folder, which)) for which in ("new", "old"))
    return Scenario(before, act, state, rival)


def explain(folder: Path, colours: str) -> list[str]:
    options = f"-m scorecam --top-k 2 --colormap {colours} --force --batch-size 4 --threads 1 --quiet"
    return ["explain", f"{folder}/old.ortcam", f"{folder}/photo.png", "-o", f"{folder}/out", *options.split()]


def state_of_explanation(folder: Path) -> str:
    """By the manifest and by the files: each is that of its colours."""
    path = folder / "out/photo/scorecam"
    try:
        # This folder, should another take its place meanwhile.
        place = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return "none"

    def read(name: str) -> bytes:
        with open(name, "rb", opener=lambda path, flags: os.open(path, flags, dir_fd=place)) as file:
            return file.read()

    try:
        manifest = json.loads(read("manifest.json"))
        hashed = hashlib.sha256(b"".join(read(name) for name in sorted(manifest["files"]))).hexdigest()
    except FileNotFoundError:
        if os.path.samestat(os.fstat(place), path.stat()):
            return "none"
        return state_of_explanation(folder)  # it has been replaced, and is being removed
    finally:
        os.close(place)
    which = {"jet": "old", "viridis": "new"}[manifest["rendering"]["colormap"]]
    (known := folder / f"{which}.digest").exists() or known.write_text(hashed)
    return which if known.read_text() == hashed else "mixture"


def explained(folder: Path) -> None:
    for colours in ("viridis", "jet"):
        done(explain(folder, colours))
        state_of_explanation(folder)


def evaluate(folder: Path) -> int:
    options = f"-o {folder}/out -m scorecam --metrics confidence --batch-size 4 --threads 1 --quiet --resume"
    return run(["evaluate", f"{folder}/old.ortcam", f"{folder}/pictures", *options.split()])


def state_of_evaluation(folder: Path) -> str:
    """Every file is whole, and the journal has whole lines but for the last."""
    out = folder / "out"
    if not (out / "journal.jsonl").exists():
        return "none" if not [path for path in out.iterdir() if path.name[0] != "."] else "results without a journal"
    for line in (out / "journal.jsonl").read_bytes().split(b"\n")[:-1]:
        json.loads(line)
    if (out / "summary.json").exists():
        json.loads((out / "summary.json").read_text())
    if (out / "report.html").exists():
        assert (out / "report.html").read_text().rstrip().endswith("</html>")
    if (out / "results.parquet").exists():
        import pyarrow.parquet

        pyarrow.parquet.read_table(out / "results.parquet")
    return "new" if (out / "report.html").exists() else "old"


def batch(folder: Path, *more: str) -> int:
    """A part per image, without processes: what is interrupted is the one that writes."""
    from tests.common.batches import in_process

    from ortcam.batch.local import driver
    from ortcam.batch.output import parts

    parts.MOST_IMAGES, driver.run_local = 1, in_process
    options = f"-m scorecam --batch-size 4 --threads 1 --quiet --resume -o {folder}/out/maps"
    return run(["batch", f"{folder}/old.ortcam", f"{folder}/pictures", *options.split(), *more])


def state_of_batch(folder: Path) -> str:
    """Every part is whole, and no image is in two of them. New: all images are there, and none failed."""
    import pyarrow.parquet

    out = folder / "out/maps"
    found = [path for path in out.glob("*.parquet") if path.name[0] not in "._"]
    if not (out / "_batch.json").exists():
        return "parts without a record" if found else "none"
    json.loads((out / "_batch.json").read_text())
    rows = [row for path in found for row in pyarrow.parquet.read_table(path).to_pylist()]
    ids = [row["id"] for row in rows]
    if len(ids) != len(set(ids)):
        return "mixture"
    wanted = {path.name for path in (folder / "pictures").iterdir()}
    return "new" if set(ids) == wanted and not any(row["error"] for row in rows) else "old"


def batch_that_failed(folder: Path) -> None:
    """One image is none at first."""
    content = (folder / "pictures/a.png").read_bytes()
    (folder / "pictures/a.png").write_bytes(b"no image")
    assert batch(folder) == 0
    (folder / "pictures/a.png").write_bytes(content)


def plot(folder: Path) -> int:
    measured = benchmark_report(folder)
    path = folder / "out/plot.png"
    return _written(lambda: _draw(measured, path))


def _draw(measured: Any, path: Path) -> None:
    from ortcam.cli.latency.plot import draw as draw_timings

    draw_timings(measured, path)


def _written(write: Callable[[], object]) -> int:
    """The exit code of something that is no command, with signals treated as in one."""
    try:
        with orderly_termination():
            write()
    except Terminated:
        return 143
    except KeyboardInterrupt:
        return 130
    return 0


def benchmark_report(folder: Path) -> Any:
    rows = [
        benchmark.Row(
            **{
                field.name: {"method": "scorecam", "precision": "float32", "providers": ("CPU",), "overhead": None}.get(
                    field.name, 1
                )
                for field in dataclasses.fields(benchmark.Row)
            }
        )
    ]
    return type("Report", (), {"rows": rows, "runs": 1, "model": "x", "machine": {"processor": "y"}})()


def state_of_file(name: str) -> Callable[[Path], str]:
    def state(folder: Path) -> str:
        path = folder / "out" / name
        if not path.exists():
            return "none"
        return "old" if path.read_bytes() == b"old" else "new" if path.read_bytes()[-8:-4] == b"IEND" else "mixture"

    return state


def write_old(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "out" / name).write_bytes(b"old") and None


def remember(folder: Path) -> int:
    os.environ["ORTCAM_CACHE"] = f"{folder}/out/sizes.json"
    return _written(lambda: tuning.remember("new", 8))


def remembered(folder: Path) -> None:
    os.environ["ORTCAM_CACHE"] = f"{folder}/out/sizes.json"
    tuning.remember("old", 4)


def state_of_memory(folder: Path) -> str:
    found = json.loads((folder / "out/sizes.json").read_text())
    return {1: "old", 2: "new"}[len(found)] if found["old"] == 4 else "mixture"


def demo(folder: Path) -> int:
    """With few passes: what is written is the same."""
    few = {"budget": 2}
    demo_command.DEMO_OPTIONS = {"sscam": few | {"num_samples": 1}} | dict.fromkeys(
        ("scorecam", "scorecam++", "iscam"), few
    )
    return run(["demo", "-o", f"{folder}/out", "--force"])


def nothing(_: Path) -> None:
    """There is no old result."""


SCENARIOS = {
    "export": Scenario(nothing, lambda folder: run(export(folder, "new")), state_of_bundle),
    "export --force": Scenario(
        lambda folder: done(export(folder, "old")),
        lambda folder: run(export(folder, "new")),
        state_of_bundle,
        lambda folder: run(export(folder, "old")),
    ),
    "fuse": fused(file="x.onnx", target=("-o", "{}/out/x.onnx")),
    "fuse, first": fused(file="x.onnx", target=("-o", "{}/out/x.onnx"), over_old=False),
    "fuse --external, first": fused("--external", file="x.onnx", target=("-o", "{}/out/x.onnx"), over_old=False),
    "fuse --external": fused("--external", file="x.onnx", target=("-o", "{}/out/x.onnx")),
    "fuse --triton": fused(file="x/1/model.onnx", target=("--triton", "{}/out", "--name", "x")),
    "fuse --triton --external": fused(
        "--external", file="x/1/model.onnx", target=("--triton", "{}/out", "--name", "x")
    ),
    "explain --force": Scenario(explained, lambda folder: run(explain(folder, "viridis")), state_of_explanation),
    "evaluate": Scenario(nothing, evaluate, state_of_evaluation),
    "batch": Scenario(nothing, batch, state_of_batch),
    "batch --retry-failed": Scenario(batch_that_failed, lambda folder: batch(folder, "--retry-failed"), state_of_batch),
    "benchmark --plot": Scenario(write_old("plot.png"), plot, state_of_file("plot.png")),
    "demo": Scenario(nothing, demo, state_of_file("mug-umbrella.png")),
    "tuning": Scenario(remembered, remember, state_of_memory),
}


# What only they need, so that not every child imports it.
WARM = {
    "batch": ("ortcam.batch.running", "ortcam.batch.local.driver", "pyarrow.dataset"),
    "batch --retry-failed": ("ortcam.batch.running", "ortcam.batch.local.driver", "pyarrow.dataset"),
    "benchmark --plot": ("matplotlib.pyplot",),
    "evaluate": ("ortcam.evaluation.run", "ortcam.evaluation.report.page"),
}


def prepare(folder: Path) -> None:
    """Models, bundles and pictures, made once."""
    for which, seed in (("old", 1), ("new", 2)):
        model(folder / f"{which}.onnx", seed)
        (folder / f"{which}.txt").write_text("\n".join(f"{which} {label}" for label in LABELS))
        (folder / "out").mkdir(exist_ok=True)
        done(export(folder, which))
        (folder / "out/x.ortcam").rename(folder / f"{which}.ortcam")
    image = (np.mgrid[:3, :60, :80].sum(0) % 256).astype(np.uint8).transpose(1, 2, 0)
    write_png(folder / "photo.png", np.ascontiguousarray(image))
    (folder / "pictures").mkdir()
    for name in ("a", "b"):
        write_png(folder / f"pictures/{name}.png", np.ascontiguousarray(image[::-1]))
