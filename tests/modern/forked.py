"""Runs of a script in processes of their own, forked off this one: they can be killed, and there can be several."""

import ast
import os
import signal
import socket
import sys
import time

from kit.scripts import load


def free_port():
    with socket.socket() as found:
        found.bind(('127.0.0.1', 0))
        return found.getsockname()[1]


class Life:
    """A run of main: how it ended, and what it printed. `dies(module)` arranges its end."""

    def __init__(self, path, *options, dies=lambda module: None, rank=0, **environment):
        self.out = path.with_name(f'out{rank}.txt')
        self.process = os.fork()
        if not self.process:
            sys.stdout = sys.stderr = sys.__stderr__ = self.out.open('w', buffering=1, encoding='utf-8')
            os.environ |= {'WANDB_MODE': 'disabled', **environment}
            sys.argv, status = [path.name, *map(str, options)], 1
            try:
                module = load(path)
                dies(module)
                started = ast.parse(path.read_text(encoding='utf-8')).body[-1].body  # what stands under if __name__ == '__main__'
                exec(compile(ast.Module(started, []), path, 'exec'), vars(module))  # noqa: S102
                status = 0
            except SystemExit as error:
                print(error.code, file=sys.stderr)
            finally:
                os._exit(status)

    def ended(self, seconds=120):
        """Wait for its end; a run that hangs is killed, so that its test fails."""
        deadline = time.monotonic() + seconds
        while not (found := os.waitpid(self.process, os.WNOHANG))[0]:
            if time.monotonic() > deadline:
                os.kill(self.process, signal.SIGKILL)
            time.sleep(0.01)
        self.status = os.waitstatus_to_exitcode(found[1])
        self.printed = self.out.read_text(encoding='utf-8')
        return self


def lived(path, *options, **arranged):
    return Life(path, *options, **arranged).ended()


def environment_of(rank, number, port):
    """What torchrun tells a process."""
    return {'RANK': str(rank), 'LOCAL_RANK': str(rank), 'WORLD_SIZE': str(number), 'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(port)}


def team(path, number, *options, dies=lambda module: None, dies_at=None):
    """That many processes of one run, as torchrun starts them; the one at `dies_at` has that end arranged."""
    port = free_port()
    lives = [Life(path, *options, rank=rank, dies=dies if rank == dies_at else lambda module: None, **environment_of(rank, number, port))
             for rank in range(number)]
    return [life.ended() for life in lives]
