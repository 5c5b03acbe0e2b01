"""The encoders of the hostile images: they write only what the bombs need, and can lie anywhere."""
