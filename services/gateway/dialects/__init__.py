"""One folder per dialect: ``wire`` translates (pure), the other modules are its routes and sockets.

``base`` says what a dialect is, ``registry`` lists them all; a dialect imports no other.
"""
