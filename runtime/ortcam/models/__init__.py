"""MODEL, as users name it: the bundle that it is, or the one that it is exported to once."""
