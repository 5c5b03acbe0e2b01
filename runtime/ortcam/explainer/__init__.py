"""The explainer: what users hold. `load` opens one."""

from ortcam.explainer.explainer import Explainer
from ortcam.explainer.loading import load, load_with

__all__ = ["Explainer", "load", "load_with"]
