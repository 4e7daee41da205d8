"""Runs GitHub Copilot CLI servers for many users on Kubernetes."""

__version__ = "0.1.0"
