"""What is looked at inside the models of this ladder: MEASURED, {section of docs/results.json: function}.

Each function returns {name: what was found, and the code it was found with}.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import torch

from kit.experiments import made_of
from kit.files import CORPUS, ROOT, file_hash, read
from kit.ladders import LADDERS
from kit.scripts import clean_environment, module_of

SCRATCH, ROOTS = LADDERS['scratch'], LADDERS['root']
MODEL = 'pretrained/model.safetensors'


def sizes_of(script, dropout):
    """What the rung's own main() builds its model with."""
    sizes = {name: getattr(script, name) for name in ('block_size', 'n_embd', 'n_head', 'n_layer') if hasattr(script, name)}
    if 'n_layer' not in sizes:
        sizes.pop('block_size')
    return {'vocab_size': len(set(read(CORPUS)))} | sizes | ({'dropout': dropout} if hasattr(script, 'dropout') else {})


def graphs():
    """The graph of one step of training: how many nodes it has, and how many of them each operation makes."""
    found = {}
    for rung in (SCRATCH['v3'], SCRATCH['v5'], SCRATCH['v6'], SCRATCH['v7']):
        script = module_of(rung)
        np.random.seed(script.seed)
        data = np.array(script.Tokenizer(read(CORPUS)).encode(read(CORPUS)))
        model = script.BabyGPT(**sizes_of(script, getattr(script, 'dropout', 0)))
        _, loss = model(*script.get_batch(data, script.batch_size, script.block_size))
        nodes = script.topological_order(loss)
        made = [node.grad_fn.__qualname__.split('.<locals>')[0].removeprefix('Tensor.').strip('_') for node in nodes if node.grad_fn]
        used = Counter(id(parent) for node in nodes for parent in set(node.parents))
        arrays = {id(array): array for array in (node.data if node.data.base is None else node.data.base for node in nodes)}
        found[str(rung)] = made_of(rung.path) | {
            'nodes': len(nodes), 'made': len(made), 'shared': sum(count > 1 for count in used.values()), 'by': dict(Counter(made).most_common()), 'parameters': len(list(model.parameters())),
            'megabytes': round(sum(array.nbytes for array in arrays.values()) / 2 ** 20, 1)}
    return found


def batches(script, data, steps, seed=3):
    random = np.random.RandomState(seed)
    return [script.get_batch(data, script.batch_size, script.block_size, random) for _ in range(steps)]


def side_by_side(steps=200, shown=(0, 1, 10, 100, 199)):
    """The same weights, the same batches and the same optimiser, ours and PyTorch's in double precision: losses and gradients.

    `gradient` is the largest relative difference of the first step's gradients over the parameters. `own` is what the scripts'
    own estimate_loss says at the end, on the batches that each draws for it, and `swapped` what ours says of those of PyTorch.
    v7 computes in single precision: what it differs by is its rounding.
    """
    found = {}
    for ours, theirs in (('v3', 'v1'), ('v5', 'v1'), ('v6', 'v10'), ('v7', 'v10')):
        script, torchs = module_of(SCRATCH[ours]), module_of(ROOTS[theirs])
        text = read(CORPUS)
        data = np.array(script.Tokenizer(text).encode(text))
        cut = int(script.train_ratio * len(data))
        torch.manual_seed(1337)
        double = torchs.BabyGPT(**sizes_of(torchs, 0.0)).double()
        model = script.BabyGPT(**sizes_of(script, 0.0))
        state = double.state_dict()
        if ours == 'v3':  # it has no names yet
            for p, value in zip(model.parameters(), state.values(), strict=True):
                p.data = value.numpy().copy()
            optimizer = torch.optim.SGD(double.parameters(), lr=script.learning_rate)
        else:
            model.load_state_dict(state)
            optimizer, own = torch.optim.AdamW(double.parameters(), lr=script.learning_rate), script.AdamW(model.parameters(), lr=script.learning_rate)
        losses, gradient = [], 0.0
        for step, (x, y) in enumerate(batches(script, data[:cut], steps)):
            _, loss = model(x, y)
            _, expected = double(torch.tensor(x), torch.tensor(y))
            for p in model.parameters():
                p.grad = None
            optimizer.zero_grad()
            loss.backward()
            expected.backward()
            if not step:
                gradient = max(float(np.linalg.norm(p.grad - q.grad.numpy()) / np.linalg.norm(q.grad.numpy()))
                               for p, q in zip(model.parameters(), double.parameters(), strict=True) if q.grad.abs().max() > 0)
            losses.append((loss.item(), expected.item()))
            optimizer.step()
            if ours == 'v3':
                for p in model.parameters():
                    p.data = p.data - script.learning_rate * p.grad
            else:
                own.step()
        torchs.device = 'cpu'
        evaluated = [script.estimate_loss(model, data[:cut], data[cut:], script.eval_iters, script.batch_size, script.block_size),
                     torchs.estimate_loss(double, torch.tensor(data[:cut]), torch.tensor(data[cut:]), script.eval_iters, script.batch_size, script.block_size)]
        found[ours] = made_of(SCRATCH[ours].path) | {
            'beside': theirs, 'steps': steps, 'loss': max(abs(a - b) for a, b in losses), 'gradient': gradient,
            'shown': [[step, *losses[step]] for step in shown], 'own': [each['val'] for each in evaluated]}
    return found


def steps(rounds=60):
    """Milliseconds of a training step on one thread: of each rung and of the same model in PyTorch, by turns, a step at a time.

    What is kept is the processor time of the fastest step, which other programs on the machine disturb least.
    """
    torch.set_num_threads(1)
    assert os.environ.get('OMP_NUM_THREADS') == '1', 'run it with OMP_NUM_THREADS=1: BLAS reads that when it is loaded'
    runs, fastest = {}, {}
    for rung, name in [*((SCRATCH[name], name) for name in ('v3', 'v4', 'v5', 'v6', 'v7')), (ROOTS['v1'], 'v1 SGD'), (ROOTS['v1'], 'v1'), (ROOTS['v10'], 'v10')]:
        script, ours = module_of(rung), rung.ladder is SCRATCH
        data = np.array(script.Tokenizer(read(CORPUS)).encode(read(CORPUS)))
        data = data if ours else torch.tensor(data)
        model = script.BabyGPT(**sizes_of(script, getattr(script, 'dropout', 0)))
        library = script if ours else torch.optim
        optimizer = None
        if name == 'v1 SGD':
            optimizer = torch.optim.SGD(model.parameters(), lr=10.0)
        elif hasattr(library, 'AdamW'):
            optimizer = library.AdamW(model.parameters(), lr=script.learning_rate, **({} if ours else {'fused': True}))
        runs[name] = rung, script, data, model, optimizer
    for _ in range(rounds):
        for name, (_, script, data, model, optimizer) in runs.items():
            started = time.process_time()
            _, loss = model(*script.get_batch(data, script.batch_size, script.block_size))
            for p in model.parameters():
                p.grad = None
            loss.backward()
            if optimizer:
                optimizer.step()
            else:
                for p in model.parameters():
                    p.data = p.data - script.learning_rate * p.grad
            fastest[name] = min(fastest.get(name, 1e9), time.process_time() - started)
    return {name: made_of(runs[name][0].path) | {'milliseconds': round(1e3 * seconds, 2), 'threads': 1} for name, seconds in fastest.items()}


def poems():
    """What v8 writes with the pretrained weights, as its user asks for it: the command, and the poems."""
    found = {}
    for options in ('--prompts 春江 --seed 1 --max_new_tokens 120', '--prompts 往事 --temperature 0.8 --top_k 50 --top_p 0.95 --seed 2 --max_new_tokens 120'):
        command = f'python {SCRATCH["v8"].path} {options}'
        output = subprocess.run([sys.executable, *shlex.split(command)[1:]], cwd=ROOT, capture_output=True, encoding='utf-8', check=True).stdout
        found[command] = made_of(SCRATCH['v8'].path) | {'model': file_hash(MODEL), 'text': output.rsplit('\n（', 1)[0].rstrip()}
    return found


def first_words(times=5):
    """Seconds from the command to the first character that is written, v8 and the root's sampler; to the line that says where v9 listens.

    Of v1 and v2, which are done at once, to their end. It is processor time, the least of some runs of each by turns: what a user
    waits where nothing else runs.
    """
    asked = {
        SCRATCH['v1'].path: ([], None), SCRATCH['v2'].path: ([], None),
        SCRATCH['v8'].path: (['--prompts', '春江', '--seed', '1'], '春江.'),
        'babygpt_sample_with_kvcache.py': (['--prompt', '春江', '--seed', '1'], '春江.'),
        SCRATCH['v9'].path: (['--port', '0'], '请打开')}
    seconds = {path: [] for path in asked}
    for _ in range(times):
        for path, (options, awaited) in asked.items():
            process, seen = subprocess.Popen([sys.executable, path, *options], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                             env=clean_environment(), encoding='utf-8'), ''
            while not (awaited and re.search(awaited, seen)) and (char := process.stdout.read(1)):
                seen += char
            assert not awaited or re.search(awaited, seen), (path, seen)
            os.kill(process.pid, signal.SIGKILL)  # Popen's own kill would take its times along
            _, _, used = os.wait4(process.pid, 0)
            process.returncode = 0
            process.stdout.close()
            seconds[path].append(used.ru_utime + used.ru_stime)
    return {path: made_of(path) | {'seconds': round(min(each), 2), 'threads': int(os.environ.get('OMP_NUM_THREADS', os.cpu_count()))}
            for path, each in seconds.items()}


MEASURED = {'scratch graphs': graphs, 'scratch beside PyTorch': side_by_side, 'scratch steps': steps, 'scratch poems': poems, 'first words': first_words}
