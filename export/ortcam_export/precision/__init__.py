"""Scorers in float16, int8 and QNN's integers, and what that does to maps."""
