"""Results: explanations, their images and files, sheets, and the gallery page."""
