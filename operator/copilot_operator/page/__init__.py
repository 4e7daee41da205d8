"""The status page: a read-only look at what the operator holds in memory, for people who may forward its port."""
