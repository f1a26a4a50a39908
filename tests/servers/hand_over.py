"""Give our pipes, words and surroundings to the process that listens at a socket, and end as its fork ends.

It is started with `-I -S`, imports next to nothing and so takes no time.
"""

import json
import os
import socket
import sys

with socket.socket(socket.AF_UNIX) as server:
    server.connect(sys.argv[1])
    words = [os.getcwd(), dict(os.environ), *sys.argv[2:]]  # noqa: PTH109 - pathlib takes longer to load than all else
    socket.send_fds(server, [json.dumps(words).encode()], [0, 1, 2])
    for pipe in (0, 1, 2):
        os.close(pipe)  # they are the fork's alone: who reads them sees them end when it ends
    code = server.recv(1)
    while server.recv(1):
        pass  # it still ends
os._exit(code[0] if code else 1)
