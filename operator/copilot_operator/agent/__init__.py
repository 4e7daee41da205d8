"""The agent: a small sidecar of every CLI server that probes, watches and drains it.

It imports the standard library and ``rpc`` only, works without the operator, and outlives it.
"""
