"""Models: the bundles that are served, from opening and warming up to replacing them while requests run."""
