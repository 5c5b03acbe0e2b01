"""What every route shares: refusals, bounded bodies, request ids, security, logs."""
