"""An `.onnx` file as it was read, and what it computes for images."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ortcam.bundle import FixedInput
from ortcam.parity import PARITY_TOLERANCE
from ortcam_export.errors import ExportError, first_line
from ortcam_export.graphs.dataflow import TO_NHWC
from ortcam_export.graphs.endings import Ending
from ortcam_export.graphs.running import quiet_session
from ortcam_export.sources.onnx_files.arithmetic import PIXELS, Coarse
from ortcam_export.sources.types import InputLayout

__all__ = ["OnnxFile", "describe"]


@dataclasses.dataclass(frozen=True)
class OnnxFile:
    """An `.onnx` file, read and looked at; nothing in its graph has been changed but the activation at its end.

    Attributes:
        path: of the file.
        model: the graph, with its one output of logits.
        activated: the graph with its activation still at the end; None where it has none.
        image: name of the image input.
        layout: of the image: "nchw" or "nhwc".
        dtype: of the image's elements.
        size: (H, W), each None where the graph leaves it open.
        batch: the batch size, None where it is open.
        ending: what the graph ended in.
        coarse: arithmetic that the export does in float32 instead: "float16", "bfloat16", those of `REDUCED`, or
            "dynamic int8", whose scale is that of a whole batch; None for none.
        quantized: whether it computes with 8-bit integers of fixed scales, and goes on doing so.
        batched: whether its image has a dimension for the batch; [C,H,W] and [H,W,C] have none.
        metadata: what the file says of itself.
        class_names: those of a ZipMap at its end.
        all_inputs: its inputs, in words.
        all_outputs: its outputs, in words.
        fixed: further inputs, which have become constants in the graph.
        raw: whether its output holds values, in any shape.
        channels: of its image, None where the graph leaves them open.
        layout_guessed: whether its image could have the other layout, too, and nobody said which.
    """

    path: Path
    model: ir.Model
    activated: ir.Model | None
    image: str
    layout: InputLayout
    dtype: ir.DataType
    size: tuple[int | None, int | None]
    batch: int | None
    ending: Ending
    coarse: Coarse | None
    quantized: bool
    batched: bool
    metadata: dict[str, str] = dataclasses.field(default_factory=dict)
    class_names: tuple[str, ...] | None = None
    all_inputs: tuple[str, ...] = ()
    all_outputs: tuple[str, ...] = ()
    fixed: Mapping[str, FixedInput] = dataclasses.field(default_factory=dict)
    raw: bool = False
    channels: int | None = None
    layout_guessed: bool = False

    def logits(self, images: NDArray[np.float32], *, together: bool) -> NDArray[np.float32]:
        """What the file gives for images, one at a time.

        Args:
            images: float32 [N,C,H,W].
            together: whether to see that an image's logits do not change with the images beside it.

        Returns:
            float32 [N,classes].

        Raises:
            ExportError: ONNX Runtime does not run it; or an image's logits change from run to run, or with the batch.
        """
        run = self._runner(self.model)
        logits = np.concatenate([run(image[None]) for image in images])
        found = {"again": run(images[:1])}
        if together:
            found["with another beside it"] = run(images)
        for how, rows in found.items():
            difference = np.abs(rows - logits[: len(rows)]).max() / max(float(np.abs(logits).max()), 1e-12)
            if difference > PARITY_TOLERANCE:
                raise ExportError(
                    f"{self.path}: its logits for a picture differ by {difference:.1e} relative when it is run {how}; "
                    "accepted is a graph that treats each image on its own and always alike, not one in training mode"
                )
        return logits

    def outputs(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the file gives with its ending, one image at a time: float32 [N,classes].

        Raises:
            ExportError: ONNX Runtime does not run it.
        """
        run = self._runner(self.model if self.activated is None else self.activated)
        return np.concatenate([run(image[None]) for image in images])

    def _runner(self, model: ir.Model) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
        """Images, float32 [N,C,H,W] -> output, float32 [N,...], in ONNX Runtime on the CPU."""
        try:
            session = quiet_session(model, weights_folder=self.path.parent)  # external data stays where it is
        except Exception as error:  # noqa: BLE001 - ONNX Runtime raises its own types
            raise ExportError(f"{self.path}: ONNX Runtime does not load it: {first_line(error)}") from None

        of_one: tuple[int, ...] = ()

        def run(images: NDArray[np.float32]) -> NDArray[np.float32]:
            nonlocal of_one
            laid_out = images if self.layout == "nchw" else images.transpose(TO_NHWC)
            if self.dtype in PIXELS:
                laid_out = np.rint(laid_out)
            feed = np.ascontiguousarray(laid_out.astype(self.dtype.numpy()))
            try:
                (output,) = session.run(None, {self.image: feed if self.batched else feed[0]})
                output = np.asarray(output)
                of_one = output.shape if len(images) == 1 else of_one
                rows: NDArray[np.float32] = _rows(output, len(images), of_one).astype(np.float32)
            except Exception as error:  # noqa: BLE001 - ONNX Runtime raises its own types
                raise ExportError(f"{self.path}: ONNX Runtime does not run it: {first_line(error)}") from None
            return rows

        return run


def _rows(output: NDArray[Any], count: int, of_one: tuple[int, ...]) -> NDArray[Any]:
    """An output of some images as [N,...], also where the images lie behind its steps: [T,N,C].

    Args:
        output: of the images.
        count: of the images.
        of_one: the shape that one image has.
    """
    sides = enumerate(zip(of_one, output.shape, strict=False))
    axis = next((index for index, pair in sides if count > 1 and pair == (1, count)), 0)
    return np.moveaxis(output, axis, 0).reshape(count, -1) if output.ndim else output.reshape(count, -1)


def describe(value: ir.Value) -> str:
    """A tensor's name, type and shape, for an error."""
    sides = ",".join(str(side) for side in value.shape) if value.shape is not None else "?"
    kind = value.dtype.name.lower() if value.dtype is not None else str(value.type)
    return f"{value.name!r} {kind} [{sides}]"
