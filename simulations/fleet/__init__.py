"""A fleet's traffic as a discrete-event twin: devices, links, servers, day and night, on no clock but its own."""
