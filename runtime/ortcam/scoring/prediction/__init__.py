"""Prediction: the weights of channels that were not scored, from those that were and from the frame before."""
