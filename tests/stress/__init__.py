"""Races between threads and loops, each in a process of its own."""
