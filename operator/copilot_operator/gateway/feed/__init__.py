"""Where a gateway in a cluster has its configuration from: its pool's Secrets and the pods of its servers, watched."""
