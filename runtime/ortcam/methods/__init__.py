"""The methods: what each masks with, how it weighs, and what it sums."""

from ortcam.methods.registry import (
    HEAD_METHODS,
    MASKED_METHODS,
    METHODS,
    HeadPlan,
    Kernel,
    Method,
    Noise,
    Option,
    Plan,
    Score,
    Settings,
    resolve_method,
)

__all__ = [
    "HEAD_METHODS",
    "MASKED_METHODS",
    "METHODS",
    "HeadPlan",
    "Kernel",
    "Method",
    "Noise",
    "Option",
    "Plan",
    "Score",
    "Settings",
    "resolve_method",
]
