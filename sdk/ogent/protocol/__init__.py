"""Everything that crosses the wire between controller, agents and clients.

Frozen models, the words they use, their bounds and their error codes. The services translate
between these and their own domains in one module each, `wire.py`.
"""
