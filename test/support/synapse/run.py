"""Runs Synapse for as long as whoever started it lives.

Usage: python run.py -c homeserver.yaml, with a pipe on standard input that nobody writes to. When its other end is
closed, which the kernel sees to when the starter dies, Synapse stops.
"""

import os
import signal
import threading
import time

from synapse.app.homeserver import main


def stop_with_starter() -> None:
    # Unbuffered: a lock on sys.stdin would abort the interpreter at its own exit.
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)
    os.kill(os.getpid(), signal.SIGKILL)


threading.Thread(target=stop_with_starter, daemon=True).start()
main()
