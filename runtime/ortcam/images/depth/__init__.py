"""Samples at the depth of their file or array, for models that take more than 8-bit colour: .npy, .npz, TIFF of bands."""
