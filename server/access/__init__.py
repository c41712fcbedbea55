"""Who may talk to the server: its certificate authority, enrolment tokens, and the register of devices."""
