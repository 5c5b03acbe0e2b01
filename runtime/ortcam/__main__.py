"""`python -m ortcam`, the same as `ortcam`."""

from ortcam.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
