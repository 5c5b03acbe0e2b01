"""Coverage-guided fuzzing of what strangers give: images, and the files of bundles (`make fuzz`)."""
