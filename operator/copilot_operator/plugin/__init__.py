"""``kubectl copilot``: what people do with pools and tenants at a terminal.

Everything that is asked of a cluster is asked through kubectl itself (``kube.py``), so that contexts, credentials and
proxies are those that its user is used to. What to show is decided by pure functions from documents (``reasons.py``,
``view.py``, ``checks.py``, ``waits.py``, ``turns.py``); the operator's reasons are told as it wrote them, and never
worked out a second time.
"""
