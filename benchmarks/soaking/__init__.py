"""The pieces of the soak: faults, the devices and servers that meet them, and the book of every frame."""
