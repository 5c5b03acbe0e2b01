"""Image formats: headers that are walked before anything is decoded, one module per format."""
