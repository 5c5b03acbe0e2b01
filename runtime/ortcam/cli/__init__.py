"""The command line of ortcam: one module per command."""

from ortcam.cli.main import main

__all__ = ["main"]
