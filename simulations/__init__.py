"""A fleet on one machine: trace-driven links, the demo, and simulated fleets."""
