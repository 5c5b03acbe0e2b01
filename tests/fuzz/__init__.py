"""Coverage-guided fuzzing of what strangers give: pictures, and the files of bundles (`make fuzz`)."""
