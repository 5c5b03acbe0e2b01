"""The product against METHODS.md evaluated in float64, and against the libraries people know."""
