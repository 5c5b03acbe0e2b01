"""TIFF: pictures that OpenCV decodes as Pillow does, and files of any number of bands at the depth of their samples."""
