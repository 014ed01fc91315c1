"""A conversation as a file: JSON that can be imported again, and text, Markdown and PDF to read."""
