"""What clients say and are told: the protocols of KServe (v1) and Open Inference (v2)."""
