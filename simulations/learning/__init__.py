"""Federated learning of thousands of virtual devices: the fleet's own apps, on Flower's engine, in simulated time.

run.simulate ──> the ServerApp of the fleet ──> VirtualGrid   who is awake, when each reply comes, in simulated time
                                                  │ Shelf     devices' states, replies and the clock, on disk
                                                  └ Crew      actors that run the ClientApp, a batch at a time
"""
