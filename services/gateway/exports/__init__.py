"""A conversation as a file: JSON that comes back, and text, Markdown and PDF to be read."""
