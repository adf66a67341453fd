"""Measure speed as ratios in one run, against the limits of the machine, and keep the results in docs/results.json.

    python tools/bench.py train      # every rung and v11 at both sizes against the matrix peak and against GPT-2
                                     # of Hugging Face transformers
    python tools/bench.py sample     # KV-cache samplers against v12's and v20's generate, transformers and memory bandwidth
    python tools/bench.py variants   # what a step of v11 costs with parts of it changed
    python tools/bench.py candidates # a step of whatever tools/measure.py trains for a set time
    python tools/bench.py memory     # peak memory of every script
    python tools/bench.py scratch    # steps of the GPTs on numpy alone beside v10's, at the sizes of v10 and v11; peak memory
    python tools/bench.py fast       # steps of v20, of v21 in both precisions and of transformers' Qwen3, timed in turn; peak
                                     # memory of v20 and v21 over the length; the memory that each preset needs (three minutes)
    python tools/bench.py kvcache    # writing on numpy alone beside the root's sampler, with the pretrained weights
    python tools/bench.py serve      # the service on numpy alone: 32 clients at once for a minute

Needs requirements-docs.txt. Run it when nothing else runs: two threads of PyTorch with one free core are
several times slower than one. What is compared is timed in turn, round by round, and the medians are given.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from inspect import signature
from pathlib import Path

import httpx
import numpy
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from kit import results
from kit.experiments import EXPERIMENTS, NOT_IN_A_STEP, made_of, own_constants, settings_of, source_of
from kit.files import CORPUS, ROOT, read
from kit.ladders import LADDERS
from kit.scripts import load, module_of
from kit.source import constants_of

ROOT_LADDER = LADDERS['root']
TUNED, TRACKED, SAMPLER = ROOT_LADDER['v11'], ROOT_LADDER['v12'], ROOT_LADDER['babygpt_sample_with_kvcache']
WRITER, FAST = LADDERS['modern']['babygpt_sample'], LADDERS['modern']['v21']
SHAPE = ('batch_size', 'block_size', 'n_embd', 'n_hidden', 'n_head', 'n_kv_head', 'n_layer', 'dropout')  # what the time of a step hangs on


def shape_of(rung, on_cpu=True, **given):
    """The sizes that a script trains with: its own, on that kind of device, but for those given."""
    constants = own_constants(rung, on_cpu=on_cpu, **given)
    return {name: constants[name] for name in SHAPE if name in constants}


TINY = {'batch_size': 1, 'block_size': 8, 'n_embd': 8, 'n_head': 2, 'n_kv_head': 1, 'n_layer': 1, 'dropout': 0.0}
ACCELERATOR = shape_of(TUNED, on_cpu=False)
BASE = shape_of(TUNED, **EXPERIMENTS['search'][0].base)  # where the search for v11 starts
VOCAB_SIZE = len(set(read(CORPUS)))


def here():
    return {'threads': torch.get_num_threads()}


def made_of_step(rung, given=()):
    """What the time of a step of that rung hangs on, with those constants given."""
    return made_of(rung.path, dict.fromkeys(NOT_IN_A_STEP) | dict(given)) | here()


def timed(run, times=1):
    """Seconds that one of `times` calls takes."""
    started = time.perf_counter()
    for _ in range(times):
        run()
    return (time.perf_counter() - started) / times


def in_turn(runs, rounds, seconds=1.0):
    """{name: median seconds of a call}, all of `runs` {name: function} timed in turn in every round."""
    times = {name: max(1, int(seconds / min(timed(run), timed(run)))) for name, run in runs.items()}  # warms up too
    found = {name: [] for name in runs}
    for _ in tqdm(range(rounds), unit='round'):
        for name, run in runs.items():
            found[name].append(timed(run, times[name]))
    return {name: statistics.median(values) for name, values in found.items()}


def matmul(size=2048):
    """The machine's matrix peak: a square product, large enough to be bound by arithmetic. 2 size^3 operations."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    return lambda: a @ b, 2 * size ** 3


def batches(module, shape):
    """A function that draws a batch as the script does: from random text; or, where a row is a poem, that batch of the
    corpus whose number of characters is nearest to the mean, since the time of a step hangs on it.
    """
    if not hasattr(module, 'make_batches'):
        data = torch.randint(VOCAB_SIZE, (100_000,))
        return lambda: module.get_batch(data, shape['batch_size'], shape['block_size'])
    poems = module.split_poems(read(CORPUS), shape['block_size'])
    poems = module.pad([poem[:shape['block_size'] + 1] for poem in poems], module.Tokenizer(read(CORPUS)))
    sizes = {rows: module.get_batch(poems, rows)[1].numel() for rows in module.make_batches(poems, shape['batch_size'])}
    usual = min(sizes, key=lambda rows: abs(sizes[rows] - statistics.mean(sizes.values())))
    return lambda: module.get_batch(poems, usual)


def step_of(module, model, forward, draw, precision='float32'):
    """One step of training the model as that script does it, as a function: forward(x, y) returns (anything, loss)."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step():
        x, y = draw()
        with torch.autocast('cpu', torch.bfloat16, enabled=precision == 'bfloat16'):
            _, loss = forward(x, y)
        optimizer.zero_grad()
        loss.backward()
        if hasattr(module, 'get_lr'):  # where the rate has a schedule, gradients are clipped
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return step


def built(module, shape, name='BabyGPT'):
    """The model of that name in a script, of that shape."""
    sizes = {'vocab_size': VOCAB_SIZE} | shape
    build = getattr(module, name)
    return build(**{size: sizes[size] for size in signature(build).parameters if size in sizes})


def training_step(module, shape, name='BabyGPT'):
    """One step of training the model of that name as the script does it. Return it as a function, and the model."""
    model = built(module, shape, name)
    return step_of(module, model, model, batches(module, shape)), model


def gpt2(shape):
    """transformers' GPT-2 of the same shape: output matrix of its own and ReLU, as v11 has them."""
    from transformers import GPT2Config, GPT2LMHeadModel
    config = GPT2Config(
        vocab_size=VOCAB_SIZE, n_positions=shape['block_size'], n_embd=shape['n_embd'], n_head=shape['n_head'],
        n_layer=shape['n_layer'], activation_function='relu', tie_word_embeddings=False, resid_pdrop=shape['dropout'],
        embd_pdrop=0.0, attn_pdrop=shape['dropout'], bos_token_id=0, eos_token_id=None, pad_token_id=0)
    return GPT2LMHeadModel(config)


def gpt2_step(shape):
    """It shifts the labels itself."""
    model, module = gpt2(shape), module_of(TUNED)
    return step_of(module, model, lambda x, _: (None, model(input_ids=x, labels=x, use_cache=False).loss), batches(module, shape))


def count_flops(step):
    """What a step multiplies and adds; attention written out, since the counter sees nothing of a fused one on a CPU."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def train():
    runs, facts = {}, {}

    def add(name, step, shape, made=None):
        runs[name] = step
        facts[name] = {'tokens': shape['batch_size'] * shape['block_size'], 'flops': count_flops(step),
                       'made': made or here()}

    torch.manual_seed(0)
    product, product_flops = matmul()
    for setting in settings_of('ladder').values():
        if setting.rung.number:
            shape = shape_of(setting.rung)
            add(setting.rung.stem, training_step(module_of(setting.rung), shape)[0], shape, made_of_step(setting.rung))
    small = shape_of(TUNED)
    add('gpt2', gpt2_step(small), small)
    keep_training(in_turn({'peak': product} | runs, rounds=7), facts, product_flops)

    runs.clear()
    add(f'{TUNED.stem} accelerator', training_step(module_of(TUNED), ACCELERATOR)[0], ACCELERATOR,
        made_of_step(TUNED, ACCELERATOR))
    add('gpt2 accelerator', gpt2_step(ACCELERATOR), ACCELERATOR)
    width = ACCELERATOR['n_embd']
    wide = torch.nn.Sequential(torch.nn.Linear(width, 4 * width), torch.nn.ReLU(), torch.nn.Linear(4 * width, width))
    head = torch.nn.Linear(width, VOCAB_SIZE)
    x = torch.randn(4096, width, requires_grad=True)
    for name, layer in {f'feed-forward {width} -> {4 * width} -> {width}': wide,
                        f'lm_head {width} -> {VOCAB_SIZE}': head}.items():
        gradient = torch.randn_like(layer(x))
        add(f'layer {name}', lambda layer=layer, gradient=gradient: layer(x).backward(gradient),
            {'batch_size': 16, 'block_size': 256})
    keep_training(in_turn({'peak': product} | runs, rounds=5), facts, product_flops)


def keep_training(seconds, facts, product_flops):
    peak = product_flops / seconds.pop('peak')
    for name, value in seconds.items():
        results.keep('training', name, {
            'milliseconds': round(1e3 * value, 2), 'tokens_per_second': round(facts[name]['tokens'] / value),
            'gigaflops': round(facts[name]['flops'] / 1e9, 3), 'peak_gigaflops_per_second': round(peak / 1e9, 1),
            'share_of_peak': round(facts[name]['flops'] / value / peak, 3)} | facts[name]['made'])
        print(f'{name:45s} {1e3 * value:9.2f} ms  {facts[name]["tokens"] / value:9,.0f} tokens/s  '
              f'{100 * facts[name]["flops"] / value / peak:5.1f} % of {peak / 1e9:.0f} GFLOP/s', flush=True)


def candidates():
    """A step of everything that an experiment trains for a set time; as a ratio to its base where that is what counts.

    The numbers of steps hang on these times, so what is there and of the same code stays as it is.
    """
    todo, bases, runs = {}, {}, {}
    for experiment in (each for same in EXPERIMENTS.values() for each in same if each.seconds or each.steps):
        for rung in experiment.rungs:
            for change in ({}, *experiment.changes):
                path, constants = experiment.timed(rung, change)
                key = results.key(path, constants)
                todo[key] = rung, constants
                if experiment.steps:
                    bases[key] = results.key(*experiment.timed(rung, {}))
    kept = results.load().get('candidates', {})
    missing = {key for key, (rung, constants) in todo.items()
               if kept.get(key, {}).get('code') != made_of_step(rung, constants)['code']}
    for key in sorted(missing | {bases[key] for key in missing & bases.keys()}):
        rung, constants = todo[key]
        torch.manual_seed(0)
        module = load(rung.path, source_of(rung.path, constants))
        runs[key] = training_step(module, shape_of(rung, **constants), rung.contract['model'])[0]
    seconds = in_turn(runs, rounds=15)
    for key, value in seconds.items():
        ratio = {'ratio': round(value / seconds[bases[key]], 3)} if key in bases else {}
        row = {'milliseconds': round(1e3 * value, 2)} | ratio
        results.keep('candidates', key, row | made_of_step(*todo[key]))
        print(key, row, flush=True)


def reading_weights(model):
    """Bytes of parameters that one token must read: all, but of the two embedding tables a row each."""
    return 4 * sum(p[0].numel() if 'embedding' in name else p.numel() for name, p in model.named_parameters())


def bandwidth():
    """Bytes per second when a matrix that fits in no cache (1 GiB) is multiplied with a vector."""
    matrix, vector = torch.randn(16384, 16384), torch.randn(16384)
    return 4 * matrix.numel() / statistics.median([timed(lambda: matrix @ vector) for _ in range(10)])


def sampling_ways(shape):
    """{name: function(prompt, n)} that write n tokens with the same weights, and v12's model."""
    plain, cached = module_of(TRACKED).BabyGPT, module_of(SAMPLER).BabyGPT
    arguments = {name: shape[name] for name in signature(plain).parameters if name != 'vocab_size'}
    torch.manual_seed(0)
    slow = plain(VOCAB_SIZE, **arguments).eval()
    del arguments['dropout']
    fast = cached(VOCAB_SIZE, **arguments)
    fast.load_state_dict(slow.state_dict())
    other = gpt2(shape).eval()

    return {'kv cache': lambda prompt, n: list(fast.generate(prompt, n)), 'v12': slow.generate,
            'transformers': lambda prompt, n: by_transformers(other, prompt, n)}, slow


def modern_ways(folder):
    """{name: function(prompt, n)} that write n tokens with the pretrained model of v20, and the model."""
    from transformers import AutoModelForCausalLM
    path = ROOT / WRITER.ladder.data['poems']['model']
    cached, _ = module_of(WRITER).load_model(path)
    checkpoint = torch.load(path, weights_only=True)
    slow = module_of(WRITER.below).BabyGPT(len(checkpoint['vocabulary']), **checkpoint['hyper_params']).eval()
    slow.load_state_dict(checkpoint['model'])
    subprocess.run([sys.executable, WRITER.ladder['export_hf'].file, '--model', path, folder], check=True)
    other = AutoModelForCausalLM.from_pretrained(folder).eval()
    return {'kv cache': lambda prompt, n: list(cached.generate(prompt, n)), 'v20': slow.generate,
            'transformers': lambda prompt, n: by_transformers(other, prompt, n)}, slow


def by_transformers(model, prompt, n):
    return model.generate(prompt, attention_mask=torch.ones_like(prompt), min_new_tokens=n, max_new_tokens=n, do_sample=True, top_k=0)


def keep_writing(section, name, made, ways, prompt, new_tokens, limit, rounds=5, more=None):
    """Tokens per second of each of the `ways`, over all rows of the prompt: the time to read the prompt is taken off."""
    seconds = in_turn({(way, n): lambda write=write, n=n: write(prompt, n)
                       for way, write in ways.items() for n in (1, new_tokens)}, rounds, seconds=0.5)
    row = {way: len(prompt) * (new_tokens - 1) / (seconds[way, new_tokens] - seconds[way, 1]) for way in ways} | limit
    row = {name: round(value, 1) for name, value in row.items()}
    results.keep(section, name, row | made_of(made.path) | here() | (more or {}))
    print(name, row, flush=True)


def sample(new_tokens=24):
    """The root's sampler while the context grows up to 32, 128, 256; the modern one over a poem of 100, alone and in eights."""
    speed = bandwidth()
    # the CPU model has a context of 64; here it gets 256, so that both can hold the same
    for size, shape in {'cpu': shape_of(TUNED, block_size=256), 'accelerator': ACCELERATOR}.items():
        ways, model = sampling_ways(shape)
        limit = {'limit': speed / reading_weights(model), 'weights_megabytes': reading_weights(model) / 1e6,
                 'bandwidth_gigabytes_per_second': speed / 1e9}
        for context in (32, 128, 256):
            prompt = torch.randint(VOCAB_SIZE, (1, context - new_tokens))
            keep_writing('sampling', f'{size} {context}', SAMPLER, ways, prompt, new_tokens, limit)
    with tempfile.TemporaryDirectory() as folder:
        ways, model = modern_ways(Path(folder, 'exported'))
        for rows in (1, 8):
            keep_writing('writing', f'{rows}', WRITER, ways, torch.randint(VOCAB_SIZE, (rows, 4)), 96, {})


def attention_variants():
    """MultiHeadAttention of v11 with the middle of forward written otherwise."""
    module = module_of(TUNED)

    class Variant(module.MultiHeadAttention):
        def forward(self, x):
            q, k, v = (layer(x).unflatten(2, (self.n_head, -1)).transpose(1, 2)
                       for layer in (self.query, self.key, self.value))
            return self.dropout(self.proj(self.attend(q, k, v).transpose(1, 2).flatten(2)))

    class Filled(Variant):
        """The scores are scaled, not the query, and the mask is filled in, not added."""

        def attend(self, q, k, v):
            future = torch.ones(q.size(2), q.size(2), dtype=torch.bool).triu(diagonal=1)
            scores = (q @ k.transpose(-2, -1) * k.size(-1) ** -0.5).masked_fill(future, float('-inf'))
            return self.dropout(F.softmax(scores, dim=-1)) @ v

    class OneCall(Variant):
        """PyTorch's own function for all of it."""

        def attend(self, q, k, v):
            return F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout.p, is_causal=True)
    return Filled, OneCall


def variants():
    """A step of v11 (with dropout, at the CPU size too) beside the same step with one thing changed."""
    module, shape = module_of(TUNED), BASE
    filled, one_call = attention_variants()

    def with_attention(attention, shape):
        step, model = training_step(module, shape)
        for block in model.blocks:
            block.sa.__class__ = attention
        return step

    def with_optimizer(**options):
        step, model = training_step(module, shape)
        cell = step.__closure__[step.__code__.co_freevars.index('optimizer')]
        cell.cell_contents = torch.optim.AdamW(model.parameters(), lr=1e-4, **options)
        return step

    def on_one_thread():
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        step()
        torch.set_num_threads(threads)
    undropped = shape | {'dropout': 0.0}
    step = training_step(module, shape)[0]
    compared = {
        'cpu': in_turn({
            'as it is': step,
            'masked_fill, scores scaled': with_attention(filled, shape),
            'scaled_dot_product_attention': with_attention(one_call, shape),
            'without dropout': training_step(module, undropped)[0],
            'without dropout, scaled_dot_product_attention': with_attention(one_call, undropped),
            'AdamW not fused (foreach)': with_optimizer(foreach=True),
            'AdamW not fused (one tensor after the other)': with_optimizer(foreach=False),
            'one thread': on_one_thread}, rounds=7),
        'accelerator': in_turn({
            'as it is': training_step(module, ACCELERATOR)[0],
            'masked_fill, scores scaled': with_attention(filled, ACCELERATOR)}, rounds=3),
    }
    for size, seconds in compared.items():
        for name, value in seconds.items():
            results.keep('variants', f'{size}: {name}', {
                'milliseconds': round(1e3 * value, 2), 'ratio': round(value / seconds['as it is'], 3)}
                         | made_of_step(TUNED, shape))
            print(f'{size:12s} {name:50s} {1e3 * value:9.2f} ms  {value / seconds["as it is"]:.3f}', flush=True)


def memory(folder):
    """Peak memory of each script: whole runs of the short ones, 20 steps and an evaluation of those that train long.

    A script that only explains another (the same code) is left out; the sampler needs what the script below it saves.
    """
    by_code = {made_of(rung.path)['code']: rung for rung in reversed(ROOT_LADDER.rungs)}
    rungs = [rung for rung in ROOT_LADDER.rungs if rung in by_code.values()]
    kept = results.load().get('memory', {})
    shutil.copy(CORPUS, folder)
    for rung in tqdm(rungs, unit='script'):
        shutil.copy(rung.file, folder)
        if kept.get(rung.stem, {}).get('code') == made_of(rung.path)['code'] and rung is not SAMPLER.below:
            continue
        short = {name: 20 for name in ('max_iters', 'eval_interval') if rung.number and name in constants_of(rung.source)}
        arguments = ['--prompt', '春江'] if rung is SAMPLER else []
        code = (f'import runpy, sys\nsys.argv = [{rung.path!r}] + {arguments!r}\nsys.path.insert(0, ".")\n'
                f'runpy.run_path({rung.path!r}, run_name="__main__")\n' if not short else
                f'import sys\nsys.argv = [{rung.path!r}]\nsys.path.insert(0, ".")\nimport {rung.stem} as module\n'
                f'vars(module).update({short!r})\nmodule.main()\n')
        child = subprocess.Popen([sys.executable, '-c', code], cwd=folder, stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL, env=os.environ | {'WANDB_MODE': 'offline'})
        _, status, usage = os.wait4(child.pid, 0)
        if status:
            sys.exit(f'{rung.path} failed with status {status}')
        results.keep('memory', rung.stem, {'megabytes': round(usage.ru_maxrss / 1024)} | made_of(rung.path) | here())
        print(f'{rung.stem:45s} {usage.ru_maxrss / 1024:7.0f} MB', flush=True)


def numpy_step(module, shape):
    """One step of training a model on numpy alone, as its script does it."""
    sizes = {'vocab_size': VOCAB_SIZE} | shape
    model = module.BabyGPT(**{size: sizes[size] for size in signature(module.BabyGPT).parameters})
    optimizer = module.AdamW(model.parameters(), lr=1e-4)
    data = numpy.random.randint(VOCAB_SIZE, size=100_000)

    def step():
        x, y = module.get_batch(data, shape['batch_size'], shape['block_size'])
        _, loss = model(x, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return step


def blas():
    """Which BLAS numpy multiplies with, and on how many threads: all cores, if nothing else is said."""
    built = numpy.show_config(mode='dicts')['Build Dependencies']['blas']
    told = [os.environ[name] for name in ('OPENBLAS_NUM_THREADS', 'OMP_NUM_THREADS') if name in os.environ]
    return {'blas': f'{built["name"]} {built["version"]}', 'blas_threads': int(told[0]) if told else len(os.sched_getaffinity(0))}


PEAK = """
import re, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tools import bench
if {maker!r}:
    step = eval({maker!r}, vars(bench))
    for _ in range({steps}):
        step()
print(re.search(r'VmHWM: +([0-9]+) kB', Path('/proc/self/status').read_text().replace(chr(9), ' '))[1])
"""


@cache
def highest(maker, steps):
    """The peak memory, in megabytes, of a process that imports this and takes that many steps (of Linux, which keeps the peak)."""
    child = subprocess.run([sys.executable, '-c', PEAK.format(root=str(ROOT), maker=maker, steps=steps)], check=True,
                           capture_output=True, encoding='utf-8')
    return int(child.stdout) / 1024


def peak_of(maker, steps=5, beside=''):
    """Megabytes that the steps add to the peak memory of a process that only imports, or takes the steps of `beside`."""
    return round(highest(maker, steps) - highest(beside, steps))


def scratch():
    """Each of the GPTs on numpy alone beside v10, timed in turn in one run, at both sizes; and what memory the steps take."""
    plain, alone = ROOT_LADDER['v10'], [LADDERS['scratch'][name] for name in ('v6', 'v7')]
    shapes = {'v10': shape_of(plain), 'v11': shape_of(TUNED)}
    for size, shape in shapes.items():
        numpy.random.seed(0)
        torch.manual_seed(0)
        runs = {plain: training_step(module_of(plain), shape)[0]} | {rung: numpy_step(module_of(rung), shape) for rung in alone}
        makers = {plain: f'training_step(module_of(ROOT_LADDER["v10"]), {shape})[0]'} | {
            rung: f'numpy_step(module_of(LADDERS["scratch"]["{rung}"]), {shape})' for rung in alone}
        seconds = in_turn(runs, rounds=15)
        for rung, value in seconds.items():
            row = {'milliseconds': round(1e3 * value, 2), 'ratio': round(value / seconds[plain], 3), 'megabytes': peak_of(makers[rung])}
            results.keep('scratch', f'{size}: {rung!r}', row | made_of_step(rung, shape) | blas())
            print(f'{size:5s} {rung!r:15s} {row}', flush=True)


def qwen3(shape):
    """transformers' Qwen3, of the shape that export_hf.py writes; and forward(x, y), which returns (None, loss).

    Of `labels` it would shift each by one; `shift_labels` are taken as they are, and those that are -100 left out.
    """
    from transformers import Qwen3Config, Qwen3ForCausalLM
    weights = built(module_of(FAST), shape).state_dict()
    config = module_of(FAST.ladder['export_hf']).make_config(shape, weights, VOCAB_SIZE)
    model = Qwen3ForCausalLM(Qwen3Config(**config)).train()
    return model, lambda x, y: (None, model(input_ids=x, labels=y, shift_labels=y.contiguous(), use_cache=False).loss)


def full_step(rung, shape, precision='float32'):
    """A step of a rung on random rows that fill its block_size."""
    module = module_of(rung)
    model, rows = built(module, shape), torch.randint(VOCAB_SIZE, (shape['batch_size'], shape['block_size'] + 1))
    return step_of(module, model, model, lambda: (rows[:, :-1], rows[:, 1:]), precision)


def needed(rung, shape, precision='float32'):
    """What memory training a rung takes, in bytes, computed without taking it: {'parameters': how many, 'states', 'activations', 'masks'}.

    The states are the weights, their gradients and AdamW's two moments, four numbers of 4 bytes for each parameter. The
    activations are all that a forward pass without dropout on full rows keeps for the way back, each storage once: of tensors
    that have shapes but no numbers, as a CPU would keep them; the logits, which the loop holds, and their gradient. The masks are
    what dropout adds where attention is fused all the same, as it is not on a CPU: 1 byte for each number that leaves a sublayer.
    """
    kept, held = {}, []
    with FakeTensorMode():
        model = built(module_of(rung), shape | {'dropout': 0.0})
        own = {tensor.untyped_storage()._cdata for tensor in [*model.parameters(), *model.buffers()]}

        def keep(tensor):
            held.append(tensor.untyped_storage())  # so that no address is used twice
            if held[-1]._cdata not in own:
                kept[held[-1]._cdata] = held[-1].nbytes()
            return tensor
        x = torch.zeros(shape['batch_size'], shape['block_size'], dtype=torch.long)
        with (torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
              torch.autocast('cpu', torch.bfloat16, enabled=precision == 'bfloat16')):
            logits, _ = model(x, x)
    parameters = sum(p.numel() for p in model.parameters())
    masks = 2 * shape['n_layer'] * x.numel() * shape['n_embd'] if shape['dropout'] else 0
    return {'parameters': parameters, 'states': 16 * parameters, 'activations': sum(kept.values()) + 2 * logits.nbytes, 'masks': masks}


def preset(name):
    """(shape, precision) of a preset of v21, on the device that it is meant for; auto is the larger, float32."""
    module = module_of(FAST)
    given = dict(zip(module.preset_columns, module.presets[name], strict=True))
    precision = given.pop('precision')
    return shape_of(FAST, on_cpu=name == 'laptop') | given, 'float32' if precision == 'auto' else precision


def full_peak(rung, shape, precision='float32'):
    """Megabytes that training on full rows takes, beyond a model so small that only the libraries count."""
    def maker(sizes, precision='float32'):
        return f'full_step(LADDERS["modern"]["{rung}"], {sizes}, "{precision}")'
    return peak_of(maker(shape, precision), steps=3, beside=maker(TINY))


def fast(lengths=(256, 512, 1024, 2048), fit=('laptop', 'mac'), rounds=9):
    """What v21 changes: the time of a step, its peak memory over the length, and what memory the presets need."""
    plain, shape = FAST.below, preset('laptop')[0]
    torch.manual_seed(0)
    draw = batches(module_of(FAST), shape)
    tokens = (draw()[1] != module_of(FAST).padding).sum().item()

    def step(rung, precision='float32'):
        model = built(module_of(rung), shape)
        return step_of(module_of(rung), model, model, draw, precision)
    steps = {f'{plain.stem} step': step(plain)} | {f'{FAST.stem} step {precision}': step(FAST, precision)
                                                   for precision in ('float32', 'bfloat16')}
    steps['Qwen3 step'] = step_of(module_of(FAST), *qwen3(shape), draw)
    seconds = in_turn(steps, rounds)
    for name, value in seconds.items():
        row = {'milliseconds': round(1e3 * value, 2), 'tokens_per_second': round(tokens / value),
               'ratio': round(value / seconds[f'{plain.stem} step'], 3)}
        keep_fast(name, plain if plain.stem in name else FAST, row)
    for length in lengths:
        for rung in (plain, FAST):
            long = shape | {'batch_size': 2, 'block_size': length}
            keep_fast(f'{rung.stem} length {length}', rung, {'megabytes': full_peak(rung, long)})
    for name in module_of(FAST).presets:
        sizes, precision = preset(name)
        row = needed(FAST, sizes, precision)
        if name in fit:
            row['megabytes'] = full_peak(FAST, sizes | {'dropout': 0.0}, precision)
            if sizes['dropout']:  # a CPU's attention is fused only without it
                row['megabytes_with_dropout'] = full_peak(FAST, sizes, precision)
        keep_fast(f'{FAST.stem} preset {name}', FAST, row)


def keep_fast(name, rung, row):
    results.keep('fast', name, row | made_of(rung.path) | here())
    print(f'{name:40s} {row}', flush=True)


def kvcache(new_tokens=24):
    """The writer on numpy alone beside the root's sampler while the context grows up to 32 and 128, both with the pretrained weights."""
    rung = LADDERS['scratch']['v8']
    alone, _ = module_of(rung).load_model(module_of(rung).model_path)
    checkpoint = torch.load(ROOT / 'pretrained' / 'model.pth', weights_only=True)
    sizes = {name: value for name, value in checkpoint['hyper_params'].items() if name != 'dropout'}
    usual = module_of(SAMPLER).BabyGPT(len(checkpoint['vocabulary']), **sizes)
    usual.load_state_dict(checkpoint['model'])
    ways = {'numpy': lambda prompt, n: list(alone.generate(prompt.numpy(), n)), 'pytorch': lambda prompt, n: list(usual.generate(prompt, n))}
    for context in (32, 128):
        prompt = torch.randint(len(checkpoint['vocabulary']), (1, context - new_tokens))
        keep_writing('numpy writing', f'{context}', rung, ways, prompt, new_tokens, {}, more=blas())


def ask(client, asked, turn):
    """One poem from the service, whole or as a stream: its text, and the seconds until its first character and its last."""
    started = time.perf_counter()
    if turn % 2:
        response = client.post('/generate', json=asked).raise_for_status()
        seconds = time.perf_counter() - started
        return response.json()['poems'][0], None, seconds
    text, first, ended = asked['prompt'], None, False
    with client.stream('GET', '/stream', params=asked) as response:
        response.raise_for_status()
        for line in response.iter_lines():
            first = first or time.perf_counter() - started
            ended = ended or line == 'event: end'
            text += json.loads(line[6:]) if line.startswith('data: ') and not ended else ''
    assert ended, 'a stream was cut off'
    return text.strip('\n'), first, time.perf_counter() - started


def serve(clients=32, seconds=60):
    """The service with the pretrained model: so many clients ask again and again, each for the poem of its seed, whole or as a stream.

    Every answer must be what the same request gets when nobody else is there.
    """
    rung = LADDERS['scratch']['v9']
    process = subprocess.Popen([sys.executable, '-u', rung.file, '--port', '0'], stdout=subprocess.PIPE, encoding='utf-8')
    try:
        address = re.search(r'http://\S+:\d+', process.stdout.readline())[0]

        def poems(number, until):
            asked, answers = {'prompt': '春江', 'seed': number, 'max_new_tokens': 100}, []
            with httpx.Client(base_url=address, timeout=600, trust_env=False) as client:
                while not answers or time.perf_counter() < until:
                    answers.append(ask(client, asked, number + len(answers)))
            return answers

        with ThreadPoolExecutor(clients) as pool:
            started = time.perf_counter()
            found = list(pool.map(poems, range(clients), [started + seconds] * clients))
            took = time.perf_counter() - started
        for number, answers in enumerate(found):
            [[right, *_]] = poems(number, 0)
            assert all(text == right for text, *_ in answers), f'client {number} got what is not its own'
        peak = int(re.search(r'VmHWM:\s+(\d+)', Path(f'/proc/{process.pid}/status').read_text())[1])
    finally:
        process.terminate()
        process.wait()
    answers = [answer for each in found for answer in each]
    first, whole = ([answer[i] for answer in answers if answer[i]] for i in (1, 2))
    row = {'answers': len(answers), 'characters_per_second': round(sum(len(text) - 2 for text, *_ in answers) / took),
           'first_character_median': round(statistics.median(first), 3), 'first_character_95': round(statistics.quantiles(first, n=20)[-1], 3),
           'whole_median': round(statistics.median(whole), 3), 'whole_95': round(statistics.quantiles(whole, n=20)[-1], 3),
           'megabytes': round(peak / 1024)}
    results.keep('serving', f'{clients} clients', row | made_of(rung.path) | here() | blas())
    print(row, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('what', choices=['train', 'sample', 'variants', 'candidates', 'memory', 'scratch', 'kvcache', 'serve', 'fast'])
    what = parser.parse_args().what
    if what == 'memory':
        with tempfile.TemporaryDirectory() as folder:
            memory(folder)
    else:
        globals()[what]()


if __name__ == '__main__':
    main()
