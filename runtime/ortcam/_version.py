"""The version of the distribution, read by the build and by `ortcam --version`."""

__version__ = "0.2.0"
