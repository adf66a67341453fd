"""Measure speed as ratios in one run, against the limits of the machine, and keep the results in docs/results.json.

    python tools/bench.py train      # every rung and v11 at both sizes against the matrix peak and against GPT-2
                                     # of Hugging Face transformers
    python tools/bench.py sample     # KV-cache sampler against v12's generate, memory bandwidth and transformers
    python tools/bench.py variants   # what a step of v11 costs with parts of it changed
    python tools/bench.py candidates # a step of whatever tools/measure.py trains for a set time
    python tools/bench.py memory     # peak memory of every script

Needs requirements-docs.txt. Run it when nothing else runs: two threads of PyTorch with one free core are
several times slower than one. What is compared is timed in turn, round by round, and the medians are given.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from inspect import signature

import report
import results
import torch
from results import ROOT
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

sys.path.insert(0, str(ROOT))
RUNGS = ['babygpt_v1', 'babygpt_v2_position', 'babygpt_v3_self_attention', 'babygpt_v4_multihead_attention',
         'babygpt_v5_feedforward', 'babygpt_v6_block', 'babygpt_v7_residual_connection', 'babygpt_v8_projection',
         'babygpt_v9_layer_norm', 'babygpt_v10_dropout']
TUNED, TRACKED, SAMPLER = 'babygpt_v11_hyper_params', 'babygpt_v12_wandb', 'babygpt_sample_with_kvcache'
BEFORE = ['simplemodel', 'simplebigrammodel', 'simplebigrammodel_torch', 'pytorch_5min']
ACCELERATOR = dict(zip(report.NAMES, (64, 256, 384, 6, 6, 0.2, 3e-4), strict=True))  # v11's defaults on an accelerator
VOCAB_SIZE = 4543


def made_of(name, constants=()):
    """What a result holds for: the code of the script with those constants given, and the threads."""
    script = f'{name}.py'
    code = {'code': results.code_hash(script, constants)} if (ROOT / script).exists() else {}
    return code | {'threads': torch.get_num_threads()}


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


def training_step(module, shape):
    """One step of training as the script does it, on random text. Return it as a function, and the model."""
    names = signature(module.BabyGPT).parameters
    model = module.BabyGPT(**{name: value for name, value in ({'vocab_size': VOCAB_SIZE} | shape).items()
                              if name in names})
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    data = torch.randint(VOCAB_SIZE, (100_000,))

    def step():
        x, y = module.get_batch(data, shape['batch_size'], shape['block_size'])
        _, loss = model(x, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return step, model


def gpt2(shape):
    """transformers' GPT-2 of the same shape: output matrix of its own and ReLU, as v11 has them."""
    from transformers import GPT2Config, GPT2LMHeadModel
    config = GPT2Config(
        vocab_size=VOCAB_SIZE, n_positions=shape['block_size'], n_embd=shape['n_embd'], n_head=shape['n_head'],
        n_layer=shape['n_layer'], activation_function='relu', tie_word_embeddings=False, resid_pdrop=shape['dropout'],
        embd_pdrop=0.0, attn_pdrop=shape['dropout'], bos_token_id=0, eos_token_id=None, pad_token_id=0)
    return GPT2LMHeadModel(config)


def gpt2_step(shape):
    model = gpt2(shape)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    module = import_module(TUNED)
    data = torch.randint(VOCAB_SIZE, (100_000,))

    def step():
        x, _ = module.get_batch(data, shape['batch_size'], shape['block_size'])
        loss = model(input_ids=x, labels=x, use_cache=False).loss  # it shifts the labels itself
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return step


def shape_of(module):
    return {name: getattr(module, name) for name in report.NAMES if hasattr(module, name)}


def count_flops(step):
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def train():
    runs, facts = {}, {}

    def add(name, step, shape):
        runs[name] = step
        facts[name] = {'tokens': shape['batch_size'] * shape['block_size'], 'flops': count_flops(step)}

    torch.manual_seed(0)
    product, product_flops = matmul()
    for name in RUNGS:
        module = import_module(name)
        add(name, training_step(module, shape_of(module))[0], shape_of(module))
    tuned = import_module(TUNED)
    small = shape_of(tuned)
    add(TUNED, training_step(tuned, small)[0], small)
    add('gpt2', gpt2_step(small), small)
    keep_training(in_turn({'peak': product} | runs, rounds=7), facts, product_flops)

    runs.clear()
    big = ACCELERATOR
    add(f'{TUNED} accelerator', training_step(tuned, big)[0], big)
    add('gpt2 accelerator', gpt2_step(big), big)
    wide = torch.nn.Sequential(torch.nn.Linear(384, 1536), torch.nn.ReLU(), torch.nn.Linear(1536, 384))
    head = torch.nn.Linear(384, VOCAB_SIZE)
    x = torch.randn(4096, 384, requires_grad=True)
    for name, layer in {'feed-forward 384 -> 1536 -> 384': wide, f'lm_head 384 -> {VOCAB_SIZE}': head}.items():
        gradient = torch.randn_like(layer(x))
        add(f'layer {name}', lambda layer=layer, gradient=gradient: layer(x).backward(gradient),
            {'batch_size': 16, 'block_size': 256})
    keep_training(in_turn({'peak': product} | runs, rounds=5), facts, product_flops)


def made_of_training(name):
    return made_of(name.split()[0], report.GIVEN if name.endswith('accelerator') else ())


def candidates():
    """A step of everything that tools/measure.py trains for a set time; those of v11 as ratios to the base, too.

    The numbers of steps hang on these times, so what is there and of the same code stays as it is.
    """
    module = import_module(TUNED)
    todo = {name: (import_module(name), shape_of(import_module(name)), made_of(name)) for name in RUNGS}
    todo |= {report.change_name(change): (module, report.BASE | change, made_of(TUNED, report.GIVEN))
             for change in filter(report.timed_alone, report.CHANGES + report.FINALS)}
    kept = results.load().get('candidates', {})
    runs = {}
    for name, (script, shape, made) in todo.items():
        if name == 'base' or kept.get(name, {}).get('code') != made['code']:
            torch.manual_seed(0)
            runs[name] = training_step(script, shape)[0]
    seconds = in_turn(runs, rounds=7)
    for name, value in seconds.items():
        row = {'milliseconds': round(1e3 * value, 2), 'ratio': round(value / seconds['base'], 3)} | todo[name][2]
        results.keep('candidates', name, row)
        print(f'{name:30s} {row["milliseconds"]:7.2f} ms  {row["ratio"]:.3f}', flush=True)


def keep_training(seconds, facts, product_flops):
    peak = product_flops / seconds.pop('peak')
    for name, value in seconds.items():
        results.keep('training', name, {
            'milliseconds': round(1e3 * value, 2), 'tokens_per_second': round(facts[name]['tokens'] / value),
            'gigaflops': round(facts[name]['flops'] / 1e9, 3), 'peak_gigaflops_per_second': round(peak / 1e9, 1),
            'share_of_peak': round(facts[name]['flops'] / value / peak, 3)} | made_of_training(name))
        print(f'{name:45s} {1e3 * value:9.2f} ms  {facts[name]["tokens"] / value:9,.0f} tokens/s  '
              f'{100 * facts[name]["flops"] / value / peak:5.1f} % of {peak / 1e9:.0f} GFLOP/s', flush=True)


def reading_weights(model):
    """Bytes that one token must read: every weight, but of the two tables only a row."""
    return 4 * sum(p.numel() for name, p in model.named_parameters() if 'embedding' not in name)


def bandwidth():
    """Bytes per second when a matrix that fits in no cache (1 GiB) is multiplied with a vector."""
    matrix, vector = torch.randn(16384, 16384), torch.randn(16384)
    return 4 * matrix.numel() / statistics.median([timed(lambda: matrix @ vector) for _ in range(10)])


def sampling_ways(shape):
    """{name: function(prompt, n)} that write n tokens with the same weights, and v12's model."""
    plain, cached = import_module(TRACKED).BabyGPT, import_module(SAMPLER).BabyGPT
    arguments = {name: shape[name] for name in signature(plain).parameters if name != 'vocab_size'}
    torch.manual_seed(0)
    slow, fast = plain(VOCAB_SIZE, **arguments).eval(), cached(VOCAB_SIZE, **arguments).eval()
    fast.load_state_dict(slow.state_dict())
    other = gpt2(shape).eval()

    def transformers(prompt, n):
        return other.generate(prompt, attention_mask=torch.ones_like(prompt), min_new_tokens=n, max_new_tokens=n,
                              do_sample=True, top_k=0)
    return {'kv cache': lambda prompt, n: list(fast.generate(prompt, n)), 'v12': slow.generate,
            'transformers': transformers}, slow


def sample(new_tokens=24, rounds=5):
    """Tokens per second while the context grows up to 32, 128, 256: the time to read the prompt is taken off."""
    speed = bandwidth()
    # the CPU model has a context of 64; here it gets 256, so that both can hold the same
    for size, shape in {'cpu': shape_of(import_module(TUNED)) | {'block_size': 256}, 'accelerator': ACCELERATOR}.items():
        ways, model = sampling_ways(shape)
        for context in (32, 128, 256):
            prompt = torch.randint(VOCAB_SIZE, (1, context - new_tokens))
            seconds = in_turn({(name, n): lambda way=way, n=n, prompt=prompt: way(prompt, n)
                               for name, way in ways.items() for n in (1, new_tokens)}, rounds, seconds=0.5)
            row = {name: (new_tokens - 1) / (seconds[name, new_tokens] - seconds[name, 1]) for name in ways}
            row['limit'] = speed / reading_weights(model)
            row |= {'weights_megabytes': reading_weights(model) / 1e6, 'bandwidth_gigabytes_per_second': speed / 1e9}
            row = {name: round(value, 1) for name, value in row.items()}
            results.keep('sampling', f'{size} {context}', row | made_of(SAMPLER))
            print(size, context, row, flush=True)


def attention_variants():
    """MultiHeadAttention of v11 with the middle of forward written otherwise."""
    module = import_module(TUNED)

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
    module, shape = import_module(TUNED), report.BASE
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
                         | made_of(TUNED, report.GIVEN))
            print(f'{size:12s} {name:50s} {1e3 * value:9.2f} ms  {value / seconds["as it is"]:.3f}', flush=True)


def memory(folder):
    """Peak memory of each script: whole runs of the short ones, 20 steps and an evaluation of the others."""
    for name in [*BEFORE, *RUNGS, TUNED, TRACKED, SAMPLER]:
        shutil.copy(ROOT / f'{name}.py', folder)
    shutil.copy(ROOT / 'ci.txt', folder)
    kept = results.load().get('memory', {})
    for name in tqdm([*BEFORE, *RUNGS, TUNED, TRACKED, SAMPLER], unit='script'):
        if kept.get(name, {}).get('code') == results.code_hash(f'{name}.py') and name != TRACKED:  # the sampler needs it
            continue
        constants = {} if name in [*BEFORE, SAMPLER] else {'max_iters': 20, 'eval_interval': 20}
        arguments = ['--prompt', '春江'] if name == SAMPLER else []
        code = ('import runpy, sys, importlib, json\n'
                f'sys.argv = [{name!r}] + {arguments!r}\nsys.path.insert(0, ".")\n'
                f'constants = {constants!r}\n'
                f'if not constants:\n    runpy.run_path({name + ".py"!r}, run_name="__main__")\n'
                f'else:\n    module = importlib.import_module({name!r})\n    vars(module).update(constants)\n'
                '    module.main()\n')
        child = subprocess.Popen([sys.executable, '-c', code], cwd=folder, stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL, env=os.environ | {'WANDB_MODE': 'offline'})
        _, status, usage = os.wait4(child.pid, 0)
        if status:
            sys.exit(f'{name} failed with status {status}')
        results.keep('memory', name, {'megabytes': round(usage.ru_maxrss / 1024)} | made_of(name))
        print(f'{name:45s} {usage.ru_maxrss / 1024:7.0f} MB', flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('what', choices=['train', 'sample', 'variants', 'candidates', 'memory'])
    what = parser.parse_args().what
    if what == 'memory':
        with tempfile.TemporaryDirectory() as folder:
            memory(folder)
    else:
        globals()[what]()


if __name__ == '__main__':
    main()
