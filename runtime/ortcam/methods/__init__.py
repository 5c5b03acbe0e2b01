"""The methods: what each masks with, how it weighs, and what it sums. `register` adds one."""

from ortcam.methods.head import LINEAR_TOLERANCE, Head, HeadInputs, HeadScores, LinearHead
from ortcam.methods.head_only import HEAD_METHODS, active_channels
from ortcam.methods.masked import MASKED_METHODS
from ortcam.methods.method import Method, Noise, Option, Plan, Settings
from ortcam.methods.registry import METHODS, register, resolve_method, unregister

__all__ = [
    "HEAD_METHODS",
    "LINEAR_TOLERANCE",
    "MASKED_METHODS",
    "METHODS",
    "Head",
    "HeadInputs",
    "HeadScores",
    "LinearHead",
    "Method",
    "Noise",
    "Option",
    "Plan",
    "Settings",
    "active_channels",
    "register",
    "resolve_method",
    "unregister",
]
