"""The report of an evaluation: the verdict, the page, and what a terminal shows."""
