"""Work: what runs beside the event loop, in which order, on how many cores, and how it is stopped."""
