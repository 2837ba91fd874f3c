"""The programs of the stress suite: one race each, run as `python -m tests.stress.races.<name>`."""
