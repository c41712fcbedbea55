"""What both ends share: the codec from image to bits, the model bundle, settings and errors."""
