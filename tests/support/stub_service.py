"""Plays a service for the supervisor: ``python stub_service.py NAME [HABIT]``.

It keeps the contract of the readiness pipe, the lifeline and the health port with the
standard library alone, so that it starts in milliseconds.  It also starts a child of its
own, as a service with a process pool would.

Habits: ``refuses`` its settings, is ``never-ready``, ``stubborn`` when asked to stop; says that
it is ``stuck``, or only ``waiting`` for another part; ``cut-off`` from NATS.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys

name, habit = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else ""


def write_line(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def refuse() -> None:
    sys.stderr.write("natterlog: NATTERLOG_PORT is 'x': expected a port\n")
    sys.exit(2)


CHECKS = {
    "stuck": {"checks": {"todos": "asleep"}, "restart_for": ["todos"]},
    "waiting": {"checks": {"bus": "ok", "store": "no store answers"}},
    "cut-off": {"checks": {"bus": "not connected"}, "restart_for": ["bus"]},
}


def answer(health: socket.socket) -> None:
    connection, _ = health.accept()
    with connection:
        connection.recv(4096)
        body = json.dumps(CHECKS.get(habit, {"checks": {"bus": "ok"}}))
        connection.sendall(f"HTTP/1.1 200 OK\r\n\r\n{body}".encode())


def main() -> None:
    if habit == "refuses":
        refuse()
    stopping, stop = os.pipe()
    signal.signal(signal.SIGTERM, lambda *_: os.write(stop, b"."))
    health = socket.create_server(("127.0.0.1", 0))
    grandchild = subprocess.Popen(["sleep", "1000"])
    if habit == "never-ready":
        write_line("still thinking")
    else:
        report = {"service": name, "health_port": health.getsockname()[1], "pid": os.getpid()}
        os.write(int(os.environ["NATTERLOG_READY_FD"]), json.dumps(report).encode() + b"\n")
    write_line(f"began {os.getpid()} {grandchild.pid} {os.environ['NATTERLOG_NATS_URL']}")
    lifeline = int(os.environ["NATTERLOG_LIFELINE_FD"])
    while True:
        readable, _, _ = select.select([stopping, lifeline, health], [], [])
        if health in readable:
            answer(health)
            continue
        if lifeline in readable:
            break
        os.read(stopping, 1)
        write_line("asked to stop")
        if habit != "stubborn":
            break
    grandchild.kill()
    grandchild.wait()
    sys.exit(0)


main()
