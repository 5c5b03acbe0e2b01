"""Where an evaluation is measured: in this process, or by the tasks of a Ray cluster."""
