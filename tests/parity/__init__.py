"""The product against the formulas of its methods in float64, and against the libraries people know."""
