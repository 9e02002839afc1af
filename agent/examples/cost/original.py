"""The shape of the original's agent, to be measured beside ours: python-socketio[client] and psutil, CPU and memory every five seconds.

`serve` is its other end (python-socketio, werkzeug, simple-websocket), in a process of its own so that only the agent is measured.
"""

import sys
import threading
import time


def serve(port):
    import logging

    import socketio
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = socketio.Server(async_mode="threading")
    server.on("pi_stats", lambda sid, data: None)
    make_server("127.0.0.1", port, socketio.WSGIApp(server), threaded=True).serve_forever()


def report(port):
    import psutil
    import socketio

    client = socketio.Client()
    for _ in range(50):
        try:
            client.connect(f"http://127.0.0.1:{port}")
            break
        except socketio.exceptions.ConnectionError:
            time.sleep(0.2)
    psutil.cpu_percent()
    while True:
        client.emit("pi_stats", {"cpu": psutil.cpu_percent(), "ram": psutil.virtual_memory().percent})
        time.sleep(5)


if __name__ == "__main__":
    {"serve": serve, "report": report}[sys.argv[1]](int(sys.argv[2]))
