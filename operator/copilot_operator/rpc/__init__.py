"""The protocol of a Copilot CLI server: JSON-RPC 2.0 in ``Content-Length`` frames over plain TCP.

Standard library only: the agent, which must stay small, speaks it as well as the operator.
"""
