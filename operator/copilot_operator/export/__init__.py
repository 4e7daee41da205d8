"""``copilot-operator export``: servers as they would run without the operator, for those who leave it or can't have it.

Made from the same functions as the operator's own objects. What only the operator or a gateway does is told as a note.
"""
