"""Kills at file events: scenarios, the events that they are interrupted at, and the runs."""
