"""From a photograph's size and range to the model's: where the crop lies, resampling, grey, and what is shown."""
