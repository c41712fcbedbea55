"""Who the device is: enrolment, keys and certificates, and their renewal."""
