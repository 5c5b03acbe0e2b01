"""Where images come from: folders, globs, manifests, tables of images and tar shards, local or by URL."""
