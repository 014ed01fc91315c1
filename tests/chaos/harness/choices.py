"""Every choice of a run follows from its seed and from who chooses, not from who comes first."""

import random


def chooser(seed: int, *names: object) -> random.Random:
    """The choices of one chooser: the same for the same seed and names, whatever others do."""
    return random.Random(":".join(map(str, (seed, *names))))
