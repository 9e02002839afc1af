"""The shape of the Python original, as a baseline: Flask-SocketIO on eventlet, one event for each sample, told to every browser as it comes.

Written from the description of what it does, for measuring beside the controller: no tasks, no files, no dashboard.
"""

import argparse

import eventlet

eventlet.monkey_patch()

import psutil  # noqa: E402
from flask import Flask  # noqa: E402
from flask_socketio import SocketIO, join_room  # noqa: E402

app = Flask(__name__)
socketio = SocketIO(app, async_mode="eventlet", cors_allowed_origins="*")
machines = {}


@socketio.on("register_browser")
def register_browser(_data=None):
    join_room("browsers")
    socketio.emit("snapshot", list(machines.values()), to="browsers")


@socketio.on("register_pi")
def register_pi(data):
    machines[data["pi_id"]] = {"pi_id": data["pi_id"], "label": data["label"], "cpu": 0, "ram": 0}


@socketio.on("pi_stats")
def pi_stats(data):
    machine = machines.setdefault(data["pi_id"], {"pi_id": data["pi_id"], "label": data["pi_id"]})
    machine.update(data)
    socketio.emit("stats", machine, to="browsers")


def own_stats():
    while True:
        socketio.sleep(1)
        own = {"pi_id": "controller", "cpu": psutil.cpu_percent(), "ram": psutil.virtual_memory().percent}
        socketio.emit("stats", own, to="browsers")


if __name__ == "__main__":
    words = argparse.ArgumentParser()
    words.add_argument("--port", type=int, required=True)
    socketio.start_background_task(own_stats)
    socketio.run(app, host="127.0.0.1", port=words.parse_args().port)
