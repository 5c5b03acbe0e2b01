"""Load on `ortcam serve`: what a server adds to explanations, and what it answers while they run."""
