"""The demo: all of headwater on this machine at once, and a report of it."""
