"""The engine: graphs run through ONNX Runtime, on the providers that were asked for, in batches that fit.

`base` has the protocols; `session` implements them with ONNX Runtime; `model` is a bundle's classifier, run by an
engine.
"""

from ortcam.engine.base import BoundSession, Engine, Session
from ortcam.engine.batching import BatchSize, BatchSizer, Progress
from ortcam.engine.features import CleanPass
from ortcam.engine.model import Model
from ortcam.engine.opening import SessionOptions
from ortcam.engine.providers import Provider, resolve_providers
from ortcam.engine.runtime import runtime_version
from ortcam.engine.session import OnnxEngine, OnnxSession, open_session

__all__ = [
    "BatchSize",
    "BatchSizer",
    "BoundSession",
    "CleanPass",
    "Engine",
    "Model",
    "OnnxEngine",
    "OnnxSession",
    "Progress",
    "Provider",
    "Session",
    "SessionOptions",
    "open_session",
    "resolve_providers",
    "runtime_version",
]
