"""Looking at loops: figures, reports, consoles and profiles.

Nothing in this package is imported before somebody asks for it, and a loop
that nobody looks at pays for none of it.
"""
