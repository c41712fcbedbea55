"""Model updates as few bytes: what devices send up in a federated round, and what comes down."""
