"""Test suites and plugin settings for pytest runs that the interop tests start themselves."""
