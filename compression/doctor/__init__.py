"""`headwater doctor`: what is wrong with a device or a server, and what to do about it."""
