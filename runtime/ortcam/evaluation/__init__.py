"""Evaluation of explanations: metrics of faithfulness and localisation, statistics, and a report."""
