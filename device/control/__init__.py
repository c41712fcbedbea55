"""What to do with a picture: controllers, what they learn of device and link, and the rule that keeps the deadline."""
