"""`headwater train`: from labelled images to a model bundle."""
