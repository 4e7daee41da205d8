"""The objects we make, one module per object, each a plain function of a snapshot. Nothing here decides *when*."""
