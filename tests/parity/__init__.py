"""Side by side with asyncio: each probe runs on both loops, and a program must see no difference."""
