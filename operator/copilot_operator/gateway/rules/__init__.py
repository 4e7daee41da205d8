"""What of a request may pass, and under which ids. Pure."""
