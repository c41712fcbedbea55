"""Bundles on the device: whose are believed, which one is in use, and how another takes its place."""
