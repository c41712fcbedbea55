"""What goes between the server's machine and its devices beside frames: offers, contents, replies, on disk."""
