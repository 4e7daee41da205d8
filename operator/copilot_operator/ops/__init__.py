"""What the operator tells those who run it: logs, metrics, liveness and readiness."""
