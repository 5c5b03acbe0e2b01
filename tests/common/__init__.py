"""What tests of several rooms share: encoders of images, exports, tolerances, the tiny classifier."""
