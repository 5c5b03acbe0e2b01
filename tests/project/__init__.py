"""What a release has to pass: the packages built and checked, known advisories."""
