"""Fidelity to the exact map against time: a study; see `__main__`."""
