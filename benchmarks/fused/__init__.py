"""Fused files against the runtime, and on a small device: a study; see `__main__` and `edge`."""
