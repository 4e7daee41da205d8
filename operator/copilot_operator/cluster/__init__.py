"""Everything that touches the API server; kopf and the Kubernetes client are imported here and nowhere else."""
