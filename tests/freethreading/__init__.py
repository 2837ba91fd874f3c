"""What other threads may do, loops on many threads, and the GIL that stays off."""
