"""The parts of the runner of CPython's own asyncio tests; `run.py` beside it puts them together."""
