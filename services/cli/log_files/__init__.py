"""Sessions in files: their format, what is taken out and renumbered, and the corpus of frames."""
