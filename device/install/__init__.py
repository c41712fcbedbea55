"""``headwater device install`` and ``uninstall``: the agent as a service of systemd, with a user of its own."""
