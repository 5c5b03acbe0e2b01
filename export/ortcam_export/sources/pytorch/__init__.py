"""Classifiers from PyTorch: names, callables, checkpoints and programs."""
