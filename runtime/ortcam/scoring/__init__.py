"""Scoring: masked forward passes, their weights, and the map that they give."""
