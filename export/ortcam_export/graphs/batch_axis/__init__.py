"""The batch dimension of a graph: every shape at two batch sizes, a fixed batch opened, shape arithmetic folded."""

from ortcam_export.graphs.batch_axis.extent import Extent, sides_for_one
from ortcam_export.graphs.batch_axis.reshapes import batch_axis_after_reshape
from ortcam_export.graphs.batch_axis.tracing import trace_batch

__all__ = ["Extent", "batch_axis_after_reshape", "sides_for_one", "trace_batch"]
