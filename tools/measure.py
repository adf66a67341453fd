"""Measure the ladder: run the real scripts, keep every number in docs/results.json, write tables and pictures from it.

    python tools/measure.py ladder      # bigram, v1 to v10 with 3 seeds, v11 once: about 30 minutes on two cores
    python tools/measure.py budget      # v1 to v10, one minute of training each
    python tools/measure.py depth       # v6 to v9 with 1, 3, 6 and 12 layers
    python tools/measure.py overfit     # v9 and v10, long, on a tenth of the training text
    python tools/measure.py search      # one hyperparameter of v11 at a time, one minute of training each
    python tools/measure.py finals      # those that look best or say most, ten minutes each
    python tools/measure.py inside      # gradients by depth in v6 and v7, attention patterns of v4
    python tools/measure.py poems       # what the pretrained model writes
    python tools/measure.py documents   # write tables and pictures again from docs/results.json

The steps that fit into a time come from tools/bench.py candidates, which must have run before.
A finished run is not run again unless the code of its script has changed (comments and docstrings do not count).
To measure everything anew, delete docs/results.json first.
Losses are the same on one thread as on two, to rounding: `OMP_NUM_THREADS=1` and two of these at a time use two
cores best. Speeds are only right when nothing else runs. The pictures need requirements-docs.txt.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

import report
import results
import torch
from results import ROOT, SEEDS, code_hash, key
from tqdm import tqdm

sys.path.insert(0, str(ROOT))

# Sets module-level constants of a script and runs its main(), as a learner who edits the top of the file would.
# 'decay' is not a constant of the scripts: it lets the rate fall to zero by a cosine (Loshchilov and Hutter 2017, 3).
CHILD = '''
import importlib, json, sys
import torch
script, constants = sys.argv[1], json.loads(sys.argv[2])
sys.argv = [script]
module = importlib.import_module(script)
if constants.pop('decay', False):
    class DecayedAdamW(torch.optim.AdamW):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self, module.max_iters)

        def step(self):
            super().step()
            self.schedule.step()
    torch.optim.AdamW = DecayedAdamW
for name, value in constants.items():
    assert hasattr(module, name), name
    setattr(module, name, value)
module.main()
'''


def run_script(script, constants, progress=None):
    """What the script prints with those constants; the lines of the curve go to the progress bar as they come."""
    child = subprocess.Popen([sys.executable, '-u', '-c', CHILD, Path(script).stem, json.dumps(constants)], cwd=ROOT,
                             stdout=subprocess.PIPE, encoding='utf-8')
    lines = []
    for line in child.stdout:
        lines.append(line)
        if progress is not None and line.startswith('第'):
            progress.set_postfix_str(f'{Path(script).stem} {line.split("每秒")[0].strip()}')
    if child.wait():
        sys.exit(f'{script} failed with {constants}')
    return ''.join(lines)


def train(script, constants, progress=None):
    """Run one script. Return what it printed, as numbers: the curve, parameters, speed, and whole-process seconds."""
    started = time.perf_counter()
    output = run_script(script, constants, progress)
    curve = re.findall(r'第 +(\d+) 步  训练损失 ([\d.]+)  验证损失 ([\d.]+)  每秒 +([\d,]+) 字', output)
    return {
        'curve': [[int(step), float(train), float(val)] for step, train, val, _ in curve],
        'tokens_per_second': int(curve[-1][3].replace(',', '')),
        'parameters': int(re.search(r'([\d,]+) (?:个参数|格)', output)[1].replace(',', '')),
        'seconds': round(time.perf_counter() - started, 1),
        'code': code_hash(script, constants),
        'threads': int(os.environ.get('OMP_NUM_THREADS', os.cpu_count())),
    }


def measure(jobs):
    """Run what is not yet in docs/results.json, keeping each result as soon as it is there."""
    runs = results.load()['runs']
    todo = [job for job in jobs if runs.get(key(*job), {}).get('code') != code_hash(*job)]
    with tqdm(todo, unit='run') as progress:
        for script, constants in progress:
            progress.set_postfix_str(f'{Path(script).stem} {constants}')
            results.keep('runs', key(script, constants), train(script, constants, progress))


def gradients():
    """Root mean square of the loss gradient over the parameters of each block, 16 blocks, before any training."""
    for script in (report.LADDER[6], report.LADDER[7]):
        module = import_module(Path(script).stem)
        text = module.read_text(module.data_path, module.train_ratio, module.block_size)
        tokenizer = module.Tokenizer(text)
        data = torch.tensor(tokenizer.encode(text[:100_000]))
        found = []
        for seed in SEEDS:
            torch.manual_seed(seed)
            model = module.BabyGPT(tokenizer.vocab_size, module.block_size, module.n_embd, module.n_head, 16)
            model(*module.get_batch(data, module.batch_size, module.block_size))[1].backward()
            found.append([torch.cat([p.grad.flatten() for p in block.parameters()]).square().mean().sqrt().item()
                          for block in model.blocks])
        results.keep('gradients', Path(script).stem, {
            'code': code_hash(script), 'rms_by_block': [float(f'{statistics.mean(block):.3g}')
                                                        for block in zip(*found, strict=True)]})


def attention(length=24):
    """Train v4 with its own settings; keep the weights of its heads on the first poem of the validation text."""
    script = report.LADDER[4]
    module = import_module(Path(script).stem)
    models = []

    class KeptBabyGPT(module.BabyGPT):
        def __init__(self, *sizes):
            super().__init__(*sizes)
            models.append(self)
    module.BabyGPT = KeptBabyGPT
    module.main()
    text = module.read_text(module.data_path, module.train_ratio, module.block_size)
    poem = text[text.index('\n\n', int(module.train_ratio * len(text))) + 2:][:length]
    softmax, weights = module.F.softmax, []
    module.F.softmax = lambda *args, **options: weights.append(softmax(*args, **options)) or weights[-1]
    with torch.no_grad():
        models[0].eval()(torch.tensor([module.Tokenizer(text).encode(poem)]))
    module.F.softmax = softmax
    results.keep('attention', Path(script).stem, {
        'code': code_hash(script), 'poem': poem,
        'weights': [[[round(value, 3) for value in row] for row in head] for head in weights[0][0].tolist()]})


def poems():
    """Let the sampler write with the pretrained model, in a folder without a model.pth."""
    script = 'babygpt_sample_with_kvcache.py'
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(ROOT / script, folder)
        shutil.copytree(ROOT / 'pretrained', Path(folder, 'pretrained'))
        for options in ("--prompt 春江 --seed 1", "--prompt 往事 --seed 2", "--prompt '浣溪沙 ' --seed 3 --temperature 0.8"):
            command = f'python {script} {options} --max_new_tokens 120'
            output = subprocess.run([sys.executable, *shlex.split(command)[1:]], cwd=folder, capture_output=True,
                                    encoding='utf-8', check=True).stdout
            poem = output.split('\n\n', 1)[1].rsplit('\n（', 1)[0].rstrip()  # between the notice and the speed
            results.keep('poems', command, poem)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('what', choices=[*report.EXPERIMENTS, 'inside', 'poems', 'documents'])
    what = parser.parse_args().what
    if what == 'inside':
        gradients()
        attention()
    elif what == 'poems':
        poems()
    elif what != 'documents':
        try:
            jobs = report.EXPERIMENTS[what]()
        except KeyError as name:
            sys.exit(f'docs/results.json has no {name}: run `python tools/bench.py candidates` first.')
        measure(jobs)
    report.fill_documents()
    import pictures  # after the numbers are safe: matplotlib may be missing
    pictures.draw_all()


if __name__ == '__main__':
    main()
