"""Break a running system by a seed, and prove that no character was lost, doubled or spliced."""
