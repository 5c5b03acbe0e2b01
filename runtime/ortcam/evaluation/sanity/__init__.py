"""The randomised-weights check: weights are shuffled, and the maps must change with them."""
