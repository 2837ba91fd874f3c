"""Streams: readers and writers that the loop feeds natively, and those that it does not."""
