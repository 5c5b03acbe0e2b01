"""The operators that execution providers take, as the documents of ONNX Runtime list them.

The lists for NNAPI and CoreML come with ONNX Runtime's wheel, so they are those of the installed version. Those for QNN
and XNNPACK are in documents alone; they were read on 2026-11-27:

- QNN: `docs/execution_providers/QNN-ExecutionProvider.md` of github.com/onnxruntime/onnxruntime-qnn at 0131740f, which
  is of version 2.3.
- XNNPACK: `docs/execution-providers/Xnnpack-ExecutionProvider.md` of github.com/microsoft/onnxruntime at 19d9fff0.
"""

import dataclasses
import importlib.util
from pathlib import Path
from typing import Final

import onnxruntime as ort

from ortcam.errors import OptionError
from ortcam.support.suggestions import did_you_mean
from ortcam_export.errors import ExportError

__all__ = ["NAMES", "Documented", "documented"]

_SUFFIX: Final = "executionprovider"


@dataclasses.dataclass(frozen=True)
class Documented:
    """What the documents say of a provider.

    Attributes:
        name: as ONNX Runtime spells it.
        source: the document.
        operators: "Conv", or "com.microsoft:Gelu" -> the conditions, in words; "" where there are none.
        static: whether a node with a dynamic shape is refused.
        most_axes: of a tensor; None where no limit is documented.
        integers: whether tensors of int64 and bool are taken; elsewhere they are shapes, axes and indices alone.
    """

    name: str
    source: str
    operators: dict[str, str]
    static: bool
    most_axes: int | None = None
    integers: bool = False


_QNN: Final = """
Abs Add And ArgMax ArgMin Asin Atan AveragePool BatchNormalization Cast Ceil Clip Concat Conv ConvTranspose Cos CumSum
DepthToSpace DequantizeLinear Div Einsum Elu Equal Exp Expand Flatten Floor Gather GatherElements GatherND Gelu Gemm
GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization HardSigmoid HardSwish Identity
InstanceNormalization Inverse IsNaN LRN LSTM LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax
LpNormalization MatMul Max MaxPool Mean Min Mod Mul Neg NonZero Not Or PRelu Pad Pow QuantizeLinear RandomNormalLike
RandomUniformLike Reciprocal ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum Relu RMSNormalization Reshape
Resize RoiAlign Round RotaryEmbedding STFT ScatterElements ScatterND Sigmoid Sign Sin Slice Softmax Softplus
SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK Transpose Unsqueeze Upsample Where
com.microsoft:DequantizeLinear com.microsoft:FusedMatMul com.microsoft:Gelu com.microsoft:MatMulNBits
com.microsoft:QuantizeLinear com.microsoft:QuickGelu com.microsoft:RotaryEmbedding
com.microsoft:SimplifiedLayerNormalization
"""
_QNN_CONDITIONS: Final = {"Gather": "indices are not negative", "LpNormalization": "p is 2"}
_XNNPACK: Final = {
    "AveragePool": "2D",
    "Conv": "2D; weights and bias constant",
    "ConvTranspose": "2D; weights and bias constant",
    "Gemm": "2D",
    "MatMul": "2D",
    "MaxPool": "2D",
    "QLinearConv": "2D; weights, bias, scales and zero points constant",
    "Resize": "bilinear, of 2 or 4 axes",
    "Softmax": "along the last axis from opset 13 on",
    "com.microsoft:QLinearAveragePool": "2D; scales and zero points constant",
    "com.microsoft:QLinearConvTranspose": "scales and zero points constant",
    "com.microsoft:QLinearSoftmax": "scales and zero points constant",
}
# Short names, and how ONNX Runtime spells them. CoreML has two formats; "coreml" is the newer one.
NAMES: Final = {
    "qnn": "QNNExecutionProvider",
    "nnapi": "NnapiExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
}


def documented(provider: str) -> Documented:
    """What the documents say of a provider.

    Args:
        provider: short and in any case, or as ONNX Runtime spells it.

    Raises:
        OptionError: no list of it is known.
        ExportError: this ONNX Runtime lacks the list.
    """
    short = provider.strip().lower().removesuffix(_SUFFIX)
    if short == "qnn":
        operators = {name: _QNN_CONDITIONS.get(name, "") for name in _QNN.split()}
        return Documented(NAMES[short], "the documents of onnxruntime-qnn 2.3", operators, static=True, integers=True)
    if short == "xnnpack":
        return Documented(NAMES[short], "the documents of ONNX Runtime, 2026-11", dict(_XNNPACK), static=False)
    version = f"ONNX Runtime {ort.__version__}"
    if short == "nnapi":
        operators, source = _of_wheel("nnapi_supported_ops.md"), f"{version}, nnapi_supported_ops.md"
        return Documented(NAMES[short], source, operators, static=True, most_axes=4)
    if short == "coreml":
        file = "coreml_supported_mlprogram_ops.md"
        return Documented(NAMES[short], f"{version}, {file}", _of_wheel(file), static=False, most_axes=5)
    hint = did_you_mean(short, [*NAMES])
    raise OptionError(f"provider {provider!r}: no list of its operators is known; accepted is {', '.join(NAMES)}{hint}")


def _of_wheel(file: str) -> dict[str, str]:
    """Operators and conditions in a table of ONNX Runtime's tools.

    Raises:
        ExportError: the table is not in this wheel.
    """
    spec = importlib.util.find_spec("onnxruntime.tools.mobile_helpers")
    path = None if spec is None or spec.origin is None else Path(spec.origin).parent / file
    if path is None or not path.is_file():
        raise ExportError(f"ONNX Runtime {ort.__version__} has no list {file}; its wheel for the CPU has")
    found = {}
    for line in path.read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        domain, colon, name = cells[1].partition(":") if len(cells) == 4 else ("", "", "")
        if colon:
            found[name if domain == "ai.onnx" else f"{domain}:{name}"] = cells[2].replace("<br/>", " ")
    return found
