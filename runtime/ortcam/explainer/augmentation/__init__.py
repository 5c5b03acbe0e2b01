"""Augmented explanations: copies of an image that are turned, moved and mirrored, and one map made of all of theirs."""
