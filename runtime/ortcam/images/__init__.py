"""Images: decoding, preprocessing to the model's input, and rendering of maps."""
