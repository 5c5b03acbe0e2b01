"""Scoring: masked forward passes, the weights of the channels that they give, and the maps that come of the weights."""

from ortcam.scoring.limits import Completion, Limits
from ortcam.scoring.maps import FUSED_SLOPE, LEAST_RANGE, finish, relu_min_max
from ortcam.scoring.masks import ZERO_AT_ZERO, Masks, prepare_masks
from ortcam.scoring.noise import FACTORS, SHIFTS, UNIFORM_BITS, draw_noise, noise_key
from ortcam.scoring.prediction.links import ROUNDING
from ortcam.scoring.scores import Scores
from ortcam.scoring.similarity import correlation, pearson, ranks
from ortcam.scoring.upsampling import bilinear_matrix, extreme_rows, upsample, upsampled_range

__all__ = [
    "FACTORS",
    "FUSED_SLOPE",
    "LEAST_RANGE",
    "ROUNDING",
    "SHIFTS",
    "UNIFORM_BITS",
    "ZERO_AT_ZERO",
    "Completion",
    "Limits",
    "Masks",
    "Scores",
    "bilinear_matrix",
    "correlation",
    "draw_noise",
    "extreme_rows",
    "finish",
    "noise_key",
    "pearson",
    "prepare_masks",
    "ranks",
    "relu_min_max",
    "upsample",
    "upsampled_range",
]
