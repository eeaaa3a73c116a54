"""Random changes of training images. Needs torch; imported by name."""
