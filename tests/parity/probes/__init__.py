"""The probes, one file per area. A probe drives the public API and records what it sees."""
