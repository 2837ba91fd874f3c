"""The test suite: one package, so that `tests.support` is importable from every folder."""
