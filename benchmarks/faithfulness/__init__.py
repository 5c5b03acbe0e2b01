"""Which method's maps are faithful: a study; see `__main__`."""
