"""Real servers and clients, run on the loop under test."""
