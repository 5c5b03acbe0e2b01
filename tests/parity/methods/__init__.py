"""The methods against plain loops in float64."""
