"""The page of a gallery: what is in it, and its look."""
