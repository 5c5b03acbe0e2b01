"""Images from strangers, decoded in processes of their own.

`sources` says what a request may give, `pool` has it read, and `worker` is the process that decodes. `frames` is what
the two say to each other.
"""
