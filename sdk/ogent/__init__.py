"""Ogent: run a command on another machine and watch it live.

`ogent.protocol` is what crosses the wire, `ogent.client` a client for programs, and
`ogent.cli` the command line. Importing this package alone imports none of them.
"""
