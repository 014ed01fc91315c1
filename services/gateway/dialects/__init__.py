"""One folder per dialect: ``wire`` translates (pure), the other modules are its routes and sockets.

A dialect imports no other dialect; ``app`` and ``replay`` import them all.
"""
