"""The Ray engine: Ray Data reads a manifest, fetches, explains in a pool of actors, and writes parts."""
