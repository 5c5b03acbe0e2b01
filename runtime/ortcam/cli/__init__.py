"""The command line of ortcam: one module a command."""

from ortcam.cli.main import main

__all__ = ["main"]
