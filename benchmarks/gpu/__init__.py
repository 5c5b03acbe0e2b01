"""ortcam on one NVIDIA GPU: a study; see `__main__`."""
