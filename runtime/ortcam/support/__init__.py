"""What every part may use: whole files and locks, text for terminals, ranges of numbers, what to install."""
