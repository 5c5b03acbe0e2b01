"""Long explanations: answered with 202, then polled, streamed, cancelled and forgotten."""
