"""Looking at loops: figures, reports, consoles, dumps and profiles."""
