"""What the studies share: the machine, figures, subjects, processes and plots."""
