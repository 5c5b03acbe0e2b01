"""Graphs: building, running, analysing and cutting them."""
