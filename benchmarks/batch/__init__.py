"""`ortcam batch`: its throughput beside a bare loop, what a million images cost, and how far its driver reaches."""
