"""Measure the ladder: run the real scripts, keep every number in docs/results.json, write the tables from it.

    python tools/measure.py ladder    # bigram, v1 to v10 with 3 seeds, v11 once: about 30 minutes on two cores
    python tools/measure.py search    # the candidates for v11's CPU settings: about 20 minutes each
    python tools/measure.py tables    # only write the tables again

A finished run is not run again unless the code of its script has changed (comments and docstrings do not count).
"""

import argparse
import ast
import hashlib
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / 'docs' / 'results.json'
SEEDS = [1337, 1338, 1339]
LADDER = ['simplebigrammodel_torch.py', 'babygpt_v1.py', 'babygpt_v2_position.py', 'babygpt_v3_self_attention.py',
          'babygpt_v4_multihead_attention.py', 'babygpt_v5_feedforward.py', 'babygpt_v6_block.py',
          'babygpt_v7_residual_connection.py', 'babygpt_v8_projection.py', 'babygpt_v9_layer_norm.py',
          'babygpt_v10_dropout.py']
TUNED = 'babygpt_v11_hyper_params.py'
NAMES = ('batch_size', 'block_size', 'n_embd', 'n_head', 'n_layer', 'dropout', 'learning_rate', 'max_iters')
CANDIDATES = [dict(zip(NAMES, values, strict=True)) | {'eval_interval': 2000, 'max_new_tokens': 150} for values in [
    (8, 64, 128, 4, 4, 0.1, 1e-3, 11700),
    (8, 64, 128, 4, 3, 0.1, 1e-3, 14100),
    (8, 64, 192, 6, 2, 0.1, 1e-3, 13300),
    (8, 64, 192, 6, 2, 0.1, 2e-3, 13300),
]]

# Sets module-level constants of a script and runs its main(), as a learner who edits the top of the file would.
CHILD = '''
import importlib, json, sys
import torch
script, constants, threads = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(threads)
sys.argv = [script]
module = importlib.import_module(script)
for name, value in constants.items():
    assert hasattr(module, name), name
    setattr(module, name, value)
module.main()
'''


def code_hash(script):
    """A hash of what the script does: its code without comments and docstrings."""
    tree = ast.parse((ROOT / script).read_text(encoding='utf-8'))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            del node.body[0]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:16]


def train(script, constants, threads):
    """Run one script. Return what it printed, as numbers: the curve, parameters, speed, and whole-process seconds."""
    started = time.perf_counter()
    result = subprocess.run([sys.executable, '-c', CHILD, Path(script).stem, json.dumps(constants), str(threads)],
                            cwd=ROOT, capture_output=True, encoding='utf-8', check=False)
    if result.returncode:
        sys.exit(f'{script} failed:\n{result.stderr}')
    curve = re.findall(r'第 +(\d+) 步  训练损失 ([\d.]+)  验证损失 ([\d.]+)  每秒 +([\d,]+) 字', result.stdout)
    size = re.search(r'([\d,]+) (?:个参数|格)', result.stdout)[1]
    return {
        'code': code_hash(script),
        'curve': [[int(step), float(train), float(val)] for step, train, val, _ in curve],
        'tokens_per_second': int(curve[-1][3].replace(',', '')),
        'parameters': int(size.replace(',', '')),
        'seconds': round(time.perf_counter() - started, 1),
        'threads': threads,
    }


def machine():
    """What the numbers were measured on."""
    cpu = Path('/proc/cpuinfo')
    model = re.search('model name\\s*: (.*)', cpu.read_text())[1] if cpu.exists() else platform.processor()
    return {'cpu': model, 'cores': os.cpu_count(), 'python': platform.python_version()}


def load():
    return json.loads(RESULTS.read_text(encoding='utf-8')) if RESULTS.exists() else {'runs': {}}


def key(script, constants):
    return f'{script} {json.dumps(constants, sort_keys=True)}'


def measure(jobs, threads):
    """Run what is not yet in docs/results.json, keeping each result as soon as it is there."""
    todo = [(script, constants) for script, constants in jobs
            if load()['runs'].get(key(script, constants), {}).get('code') != code_hash(script)]
    for script, constants in tqdm(todo, unit='run'):
        run = train(script, constants, threads)
        results = load()  # read again: another measure.py may be at work
        results['machine'] = machine()
        results['runs'][key(script, constants)] = run
        temporary = RESULTS.with_suffix('.tmp')
        temporary.write_text(json.dumps(results, indent=1, ensure_ascii=False) + '\n', encoding='utf-8')
        os.replace(temporary, RESULTS)


def ladder_jobs():
    """Every seed of a rung in turn, so that an early stop still leaves the whole ladder once."""
    jobs = [(script, {'seed': seed}) for seed in SEEDS for script in LADDER]
    jobs.insert(len(LADDER), (TUNED, {'seed': SEEDS[0]}))
    return jobs


def spread(values):
    """Mean, and sample standard deviation where there is more than one value."""
    mean = statistics.mean(values)
    return f'{mean:.3f}' if len(values) == 1 else f'{mean:.3f} ± {statistics.stdev(values):.3f}'


def ladder_table(results):
    """Rows of the ladder: script, parameters, train and validation loss over the seeds, speed and time of the first."""
    for script in [*LADDER, TUNED]:
        runs = [results['runs'][key(script, {'seed': seed})] for seed in SEEDS
                if key(script, {'seed': seed}) in results['runs']]
        if runs:
            name = script.removesuffix('.py').removeprefix('babygpt_')
            yield (f'`{name}`', f'{runs[0]["parameters"]:,}', str(len(runs)),
                   spread([run['curve'][-1][1] for run in runs]), spread([run['curve'][-1][2] for run in runs]),
                   f'{runs[0]["tokens_per_second"]:,}', f'{runs[0]["seconds"]:.0f}')


def search_table(results):
    for constants in CANDIDATES:
        run = results['runs'].get(key(TUNED, constants))
        if run:
            tokens = constants['max_iters'] * constants['batch_size'] * constants['block_size']
            best = min(val for _, _, val in run['curve'])
            yield (*(str(constants[name]) for name in NAMES), f'{run["parameters"]:,}', f'{tokens / 1e6:.1f} M',
                   f'{run["curve"][-1][1]:.3f}', f'{run["curve"][-1][2]:.3f}', f'{best:.3f}')


def markdown(head, rows):
    lines = [head, ['---'] * len(head), *rows]
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)


HEADS = {
    'README.md': ['脚本', '参数（格）', '种子数', '训练损失', '验证损失', '字/秒', '全程秒数'],
    'README.en.md': ['script', 'parameters (cells)', 'seeds', 'train loss', 'validation loss', 'tokens/s', 'seconds'],
}


def tables(results):
    """{file: text between its <!-- results --> markers}, all from docs/results.json."""
    texts = {name: markdown(head, ladder_table(results)) for name, head in HEADS.items()}
    texts['docs/hyper_params.md'] = markdown(
        [*(f'`{name}`' for name in NAMES), '参数', '看过的字', '训练损失', '验证损失', '最低验证损失'],
        search_table(results))
    return texts


def insert(text, table):
    """Put the table between the markers of a document."""
    start, end = '<!-- results -->\n', '<!-- /results -->'
    before, rest = text.split(start)
    return before + start + table + '\n' + end + rest.split(end)[1]


def write_tables():
    for name, table in tables(load()).items():
        path = ROOT / name
        path.write_text(insert(path.read_text(encoding='utf-8'), table), encoding='utf-8')


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('what', choices=['ladder', 'search', 'tables'])
    parser.add_argument('--threads', type=int, default=os.cpu_count(), help='default: all cores')
    args = parser.parse_args()
    RESULTS.parent.mkdir(exist_ok=True)
    if args.what == 'ladder':
        measure(ladder_jobs(), args.threads)
    elif args.what == 'search':
        measure([(TUNED, constants) for constants in CANDIDATES], args.threads)
    write_tables()


if __name__ == '__main__':
    main()
