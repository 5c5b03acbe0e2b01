"""Inputs that stay on a session's device, and those that a graph wants in fixed shapes."""

from ortcam.engine.binding.bound import POOL_SIZE, OnnxBoundSession, Opened, Pool
from ortcam.engine.binding.fixed import FixedBoundSession, FixedShapes

__all__ = ["POOL_SIZE", "FixedBoundSession", "FixedShapes", "OnnxBoundSession", "Opened", "Pool"]
