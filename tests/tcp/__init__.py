"""Transports, servers and streams over TCP."""
