"""A work queue with workers, a time heap and a limiter. Knows no Kubernetes: keys and coroutines only."""
