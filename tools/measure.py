"""Run the real scripts, keep every number in docs/results.json, and write documents and pictures from it.

    python tools/measure.py NAME        # an experiment of a ladder.toml: ladder, depth; modern/ladder elsewhere
    python tools/measure.py inside      # what a ladder looks at inside its models: pages/inside.py
    python tools/measure.py poems       # what a pretrained model writes
    python tools/measure.py documents   # write documents and pictures again from docs/results.json

--help lists the experiments. The steps that fit into a time come from tools/bench.py candidates, which must have run
before. A finished run is not run again unless the code of its script has changed (comments and docstrings do not
count). To measure something anew, delete its rows in docs/results.json first.
Losses are the same on one thread as on two, to rounding: `OMP_NUM_THREADS=1` and two of these at a time use two
cores best. Speeds are only right when nothing else runs. The pictures need requirements-docs.txt.
"""

import argparse
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from kit import documents, pictures, results
from kit.experiments import EXPERIMENTS, is_kept, made_of
from kit.files import CORPUS, ROOT, file_hash, write
from kit.ladders import LADDERS
from kit.results import Missing
from kit.scripts import load, losses, speeds

# Sets module-level constants of a script and runs its main(), as a learner who edits the file would: 'edit' is one of
# [edits] in ladder.toml.
# 'decay' is not a constant of the scripts: it lets the rate fall to zero by a cosine (Loshchilov and Hutter 2017, 3).
CHILD = '''
import json, sys
from pathlib import Path
import torch
from kit import form
from kit.experiments import source_of
from kit.files import CORPUS, read
from kit.ladders import by_path
from kit.scripts import load
path, constants, model, folder = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3], sys.argv[4]
sys.argv = [path]
module, models = load(path, source_of(path, constants)), []
constants.pop('edit', None)
module.model_path, module.checkpoint_path = Path(folder, 'model.pth'), Path(folder, 'checkpoint.pth')  # nobody's are overwritten
if model:
    class Kept(getattr(module, model)):
        def __init__(self, *sizes):
            super().__init__(*sizes)
            models.append(self)
    setattr(module, model, Kept)
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
if model:
    text, written_by = read(CORPUS), (models[-1], module.Tokenizer(read(CORPUS)))
    cut = int(module.train_ratio * len(text))
    found = form.measure(*written_by, text[:cut], before=by_path(path).ladder.contract.get('before_poems', '\\n\\n'))
    if models[-1].block_size >= 128:
        found['loss'] = form.loss(*written_by, text[cut:])
    print('form', json.dumps(found), flush=True)
'''


def run_script(script, constants, progress, model):
    """What the script prints with those constants, and in how many seconds; the curve goes to the progress bar.

    With the name of the class of its model, a last line says how many poems of the trained model keep their form.
    """
    started = ended = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        child = subprocess.Popen([sys.executable, '-u', '-c', CHILD, script, json.dumps(constants), model, folder], cwd=ROOT,
                                 stdout=subprocess.PIPE, encoding='utf-8', env=os.environ | {'WANDB_MODE': 'disabled'})
        lines = []
        for line in child.stdout:
            lines.append(line)
            if line.startswith('第'):
                progress.set_postfix_str(f'{Path(script).stem} {line.split("每秒")[0].strip()}')
            if not line.startswith('form '):
                ended = time.perf_counter()
        if child.wait():
            sys.exit(f'{script} failed with {constants}')
    return ''.join(lines), ended - started


def as_row(script, constants, output, seconds):
    """What a run printed, as numbers: the curve, its speed and size where it tells them."""
    row = made_of(script, constants) | {'curve': losses(output)}
    if not row['curve'] or not all(map(math.isfinite, row['curve'][-1])):
        sys.exit(f'{script} printed no loss at its end that is a number, with {constants}')
    if speeds(output):
        row['tokens_per_second'] = speeds(output)[-1]
    if size := re.search(r'([\d,]+) (?:个参数|格)', output):
        row['parameters'] = int(size[1].replace(',', ''))
    return row | {'seconds': round(seconds, 1), 'threads': int(os.environ.get('OMP_NUM_THREADS', os.cpu_count()))}


def measure(jobs, model):
    """Run what is not yet in docs/results.json, keeping each result as soon as it is there.

    With the name of the class of their model, count how many of its poems keep their form, too, and keep what the
    script itself shows at its end.
    """
    section = 'form' if model else 'runs'
    with tqdm([job for job in jobs if not is_kept(*job, section)], unit='run') as progress:
        for script, constants in progress:
            progress.set_postfix_str(f'{Path(script).stem} {constants}')
            output, seconds = run_script(script, constants, progress, model)
            if not is_kept(script, constants):
                results.keep('runs', results.key(script, constants), as_row(script, constants, output, seconds))
            if model:
                output, counts = output.rsplit('form ', 1)
                results.keep('form', results.key(script, constants), made_of(script, constants) | json.loads(counts) | {
                    'shown': re.split(r'^第.+\n(?:\s+验证损失是目前最低.*\n)?', output, flags=re.MULTILINE)[-1].strip()})


def look_inside(path):
    for section, look in load(path).MEASURED.items():
        for name, row in look().items():
            results.keep(section, name, row)


def poems(script, model, options):
    """Let a sampler write with a pretrained model, in a folder that holds only these and the corpus."""
    with tempfile.TemporaryDirectory() as folder:
        for file in (script, model, CORPUS.relative_to(ROOT)):
            Path(folder, file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, Path(folder, file))
        for each in options:
            command = f'python {script} {each}'
            output = subprocess.run([sys.executable, *shlex.split(command)[1:]], cwd=folder, capture_output=True,
                                    encoding='utf-8', check=True).stdout
            poem = output.split('\n\n', 1)[1].rsplit('\n（', 1)[0].rstrip()  # between the notice and the speed
            results.keep('poems', command, made_of(script) | {'model': file_hash(model), 'text': poem})


def write_documents():
    """Write every document and picture, say what stands in the way of some, and return whether nothing does."""
    found = documents.problems(write) + pictures.draw_all()
    print(*found, sep='\n', end='\n' if found else '')
    return not found


def main():
    inside = {str(ladder.folder / 'inside'): ladder.folder / 'pages' / 'inside.py' for ladder in LADDERS.values()
              if (ROOT / ladder.folder / 'pages' / 'inside.py').exists()}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('what', choices=[*EXPERIMENTS, *inside, 'poems', 'documents'])
    what = parser.parse_args().what
    try:
        if what in inside:
            look_inside(inside[what])
        elif what == 'poems':
            for ladder in LADDERS.values():
                if 'poems' in ladder.data:
                    poems(**ladder.data['poems'])
        elif what != 'documents':
            for experiment in EXPERIMENTS[what]:
                measure(experiment.jobs(), experiment.model)
    except Missing as problem:
        sys.exit(str(problem))
    if not write_documents() and what == 'documents':
        sys.exit(1)


if __name__ == '__main__':
    main()
