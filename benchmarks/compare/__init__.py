"""One explanation by ortcam beside the same by torch-cam and pytorch-grad-cam: a study; see `__main__`."""
