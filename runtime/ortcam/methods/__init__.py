"""The methods: what each masks with, how it weighs, and what it sums. `register` adds one."""

from ortcam.methods.attention import ATTENTION_METHODS
from ortcam.methods.augmentation import Augmentation
from ortcam.methods.auto import AUTO, AUTO_METHOD, AutoRow
from ortcam.methods.common import COMMON_OPTIONS
from ortcam.methods.derivative import Derivative, Features, Layer, one_hot
from ortcam.methods.fitting import check_fits, fits, fitting_methods
from ortcam.methods.gradient import GRADIENT_METHODS
from ortcam.methods.head import LINEAR_TOLERANCE, Head, HeadInputs, HeadScores, LinearHead
from ortcam.methods.head_only import HEAD_METHODS, active_channels
from ortcam.methods.masked import MASKED_METHODS
from ortcam.methods.method import MASKED_ONLY, Method, Noise, Option, Plan, Settings
from ortcam.methods.registry import METHODS, register, resolve_method, unregister

__all__ = [
    "ATTENTION_METHODS",
    "AUTO",
    "AUTO_METHOD",
    "COMMON_OPTIONS",
    "GRADIENT_METHODS",
    "HEAD_METHODS",
    "LINEAR_TOLERANCE",
    "MASKED_METHODS",
    "MASKED_ONLY",
    "METHODS",
    "Augmentation",
    "AutoRow",
    "Derivative",
    "Features",
    "Head",
    "HeadInputs",
    "HeadScores",
    "Layer",
    "LinearHead",
    "Method",
    "Noise",
    "Option",
    "Plan",
    "Settings",
    "active_channels",
    "check_fits",
    "fits",
    "fitting_methods",
    "one_hot",
    "register",
    "resolve_method",
    "unregister",
]
