"""Run many scripts for the price of one start: a process that has imported what takes seconds, and forks for each.

Importing PyTorch takes longer than most of what a test asks of a script. In the fork the script is `__main__`, with its
own folder, environment, arguments and streams, and ends as any process does; only the modules of HEAVY are there already.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from functools import cache

from kit.files import ROOT

HEAVY = ['numpy', 'torch', 'torch._dynamo']  # the last is imported for the first optimizer; what makes threads or files can't be here
POSSIBLE = sys.platform == 'linux'  # elsewhere what these modules use can't be forked, or nothing can


@cache
def server():
    """The socket to the process that forks; it ends with this one."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = subprocess.Popen([sys.executable, '-m', 'kit.warm', str(its.fileno())], cwd=ROOT, pass_fds=[its.fileno()],
                               stdin=subprocess.DEVNULL, env=os.environ | {'PYTHONUTF8': '1'})
    its.close()
    atexit.register(lambda: ours.close() or process.wait())
    return ours


def run(command, cwd, env, input=None, timeout=None):
    """What `subprocess.run([sys.executable, *command], ...)` would give. Raise TimeoutExpired after that many seconds."""
    ours = server()
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        stdin.write((input or '').encode())
        stdin.seek(0)
        asked = json.dumps([command, str(cwd), dict(env)]).encode()
        socket.send_fds(ours, [asked], [stdin.fileno(), stdout.fileno(), stderr.fileno()])
        child = int(ours.recv(100))
        ours.settimeout(timeout)
        try:
            code = int(ours.recv(100))
        except TimeoutError:
            os.kill(child, signal.SIGKILL)
            ours.settimeout(None)
            ours.recv(100)
            raise subprocess.TimeoutExpired(command, timeout) from None
        finally:
            ours.settimeout(None)
        stdout.seek(0), stderr.seek(0)
        return subprocess.CompletedProcess([sys.executable, *command], code, stdout.read().decode(), stderr.read().decode())


def serve(connection):
    """Fork for each script that is asked for, and tell its process and how it ended. Return the command in the fork."""
    while True:
        asked, streams, *_ = socket.recv_fds(connection, 2 ** 20, 3)
        if not asked:
            sys.exit()
        command, cwd, env = json.loads(asked)
        if child := os.fork():
            for stream in streams:
                os.close(stream)
            connection.send(str(child).encode())
            connection.send(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())
            continue
        connection.close()
        for stream, own in zip(streams, range(3), strict=True):
            os.dup2(stream, own)
            os.close(stream)
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(env)
        sys.modules['numpy'].random.seed()  # or every fork would draw the same; the random module sees to that itself
        return command


def play(command):
    """Run a script as `python` does. Return its exit code; what it fails with goes on."""
    sys.argv, sys.path[0] = command, os.path.dirname(command[0])
    try:
        runpy.run_path(command[0], run_name='__main__')
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        print(error.code, file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    for name in HEAVY:
        importlib.import_module(name)
    gc.freeze()  # what is imported is no garbage: no fork need look through it
    ended = play(serve(socket.socket(fileno=int(sys.argv[1]))))
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush(), sys.stderr.flush()
    os._exit(ended)  # to take apart all that was imported takes longer than the script
