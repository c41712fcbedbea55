"""From a trained network to a bundle in use everywhere: build, gate, canary, widen or roll back."""
