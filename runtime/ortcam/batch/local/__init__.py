"""The local engine: scoring processes on this machine, and the driver that gives them items and writes parts."""
