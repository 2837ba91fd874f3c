"""Tests of the benchmark suite in `perf/`: its arithmetic, its files, its servers."""
