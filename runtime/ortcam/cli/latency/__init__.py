"""What `ortcam benchmark` makes of its timings: a table, and a plot."""
