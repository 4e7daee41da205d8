"""What users write and read: the models of CopilotPool and CopilotTenant, and the CRDs made from them.

The models are the one source. Whatever the API server refuses by schema or CEL, the models refuse too, because objects
stored under older rules reach the operator without having passed today's.
"""
