"""Layers: where a classifier can be cut, how each layer holds maps of the image, and which one to choose."""

from ortcam_export.graphs.layers.arithmetic import count_macs
from ortcam_export.graphs.layers.choosing import choose_layer, choose_layers
from ortcam_export.graphs.layers.finding import find_branch_layers, find_layers
from ortcam_export.graphs.layers.layer import Layer, cut_open

__all__ = ["Layer", "choose_layer", "choose_layers", "count_macs", "cut_open", "find_branch_layers", "find_layers"]
