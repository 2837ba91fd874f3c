"""What the interop tests and the programs they start share: loop, servers, certificates."""
