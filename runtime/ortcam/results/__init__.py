"""Results: explanations, their pictures and files, sheets, and the gallery page."""
