"""What the interop tests and the programs they start share: the loop under test, servers, certificates."""
