"""Scorers in float16 and int8, and what that does to maps."""
