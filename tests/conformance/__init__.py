"""CPython's own asyncio tests, run on tokioloop."""
