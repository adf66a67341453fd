"""The experiments, and the tables that documents show of their results."""

import statistics
from itertools import pairwise

import results
from results import ROOT, SEEDS, key

LADDER = ['simplebigrammodel_torch.py', 'babygpt_v1.py', 'babygpt_v2_position.py', 'babygpt_v3_self_attention.py',
          'babygpt_v4_multihead_attention.py', 'babygpt_v5_feedforward.py', 'babygpt_v6_block.py',
          'babygpt_v7_residual_connection.py', 'babygpt_v8_projection.py', 'babygpt_v9_layer_norm.py',
          'babygpt_v10_dropout.py']  # LADDER[n] is vn
TUNED = 'babygpt_v11_hyper_params.py'
DEPTHS, OWN_DEPTH = [1, 3, 6, 12], 3  # the rungs themselves have 3 layers
NAMES = ('batch_size', 'block_size', 'n_embd', 'n_head', 'n_layer', 'dropout', 'learning_rate')
GIVEN = (*NAMES, 'max_iters', 'eval_interval')  # what a measurement of v11 at a set size gives itself
BASE = dict(zip(NAMES, (8, 64, 192, 6, 2, 0.1, 2e-3), strict=True))
WIDTHS = [64, 128, 192, 256, 384]
CHANGES = [{}, *({'n_embd': width, 'n_head': width // 32} for width in WIDTHS if width != 192),
           {'n_layer': 1}, {'n_layer': 4}, {'n_head': 3}, {'n_head': 12}, {'block_size': 128}, {'batch_size': 4},
           {'batch_size': 16}, {'batch_size': 32}, {'learning_rate': 1e-3}, {'learning_rate': 4e-3}, {'dropout': 0.0},
           {'dropout': 0.2}, {'decay': True}]
FINALS = [{}, {'dropout': 0.0}, {'n_layer': 1, 'dropout': 0.0}, {'decay': True}]
CHOSEN = BASE | {'dropout': 0.0}  # v11's defaults on a CPU
BUDGET_SECONDS = 60
SEARCH_STEPS, FINAL_STEPS = 1406, 12000  # of BASE, in about one minute and in nine


def ladder_jobs():
    """Every seed of a rung in turn, so that an early stop still leaves the whole ladder once."""
    jobs = [(script, {'seed': seed}) for seed in SEEDS for script in LADDER]
    jobs.insert(len(LADDER), (TUNED, {'seed': SEEDS[0]}))
    return jobs


def budget_jobs():
    """v1 to v10, as many steps as two threads train in the same time."""
    timings = results.load()['candidates']
    return [(script, {'seed': SEEDS[0], 'eval_interval': 2000,
                      'max_iters': round(1e3 * BUDGET_SECONDS / timings[script.removesuffix('.py')]['milliseconds'])})
            for script in LADDER[1:]]


def depth_job(number, depth, seed=SEEDS[0]):
    return LADDER[number], {'seed': seed} | ({} if depth == OWN_DEPTH else {'n_layer': depth})


def depth_jobs():
    return [depth_job(number, depth) for depth in DEPTHS for number in (6, 7, 8, 9)]


def overfit_jobs():
    """A tenth of the training text, 20 times over: train_ratio is 0.9 in the scripts."""
    return [(LADDER[number], {'seed': SEEDS[0], 'train_ratio': 0.09, 'max_iters': 12000, 'eval_interval': 1000})
            for number in (9, 10)]


def change_name(change):
    """What a candidate changes, in the words of the command line."""
    if 'decay' in change:
        return 'decay'
    return ', '.join(f'{name} {value:g}' for name, value in change.items()) or 'base'


def timed_alone(change):
    """Whether a change makes a step slower or faster; another rate does not."""
    return not {'learning_rate', 'decay'} & set(change)


def candidate_jobs(changes, base_steps, eval_interval=None):
    """As many steps for each candidate as take the same time as `base_steps` of the base."""
    candidates = results.load()['candidates']
    jobs = []
    for change in changes:
        steps = round(base_steps / candidates[change_name(change if timed_alone(change) else {})]['ratio'])
        jobs.append((TUNED, BASE | change | {'max_iters': steps, 'eval_interval': eval_interval or -(-steps // 6)}))
    return jobs


def search_jobs():
    return candidate_jobs(CHANGES, SEARCH_STEPS)


def final_jobs():
    return candidate_jobs(FINALS, FINAL_STEPS, eval_interval=1000)


EXPERIMENTS = {'ladder': ladder_jobs, 'budget': budget_jobs, 'depth': depth_jobs, 'overfit': overfit_jobs,
               'search': search_jobs, 'finals': final_jobs}


def runs_of(jobs):
    """[(script, constants, run)] of those jobs that have been run."""
    runs = results.load()['runs']
    return [(*job, runs[key(*job)]) for job in jobs if key(*job) in runs]


def name_of(script):
    return script.removesuffix('.py').removeprefix('babygpt_')


def spread(values):
    """Mean, and sample standard deviation where there is more than one value."""
    mean = statistics.mean(values)
    return f'{mean:.3f}' if len(values) == 1 else f'{mean:.3f} ± {statistics.stdev(values):.3f}'


def seeds_of(script):
    return [run for _, _, run in runs_of([(script, {'seed': seed}) for seed in SEEDS])]


def ladder_rows():
    """Script, parameters, train and validation loss over the seeds, speed and time of the first."""
    for script in [*LADDER, TUNED]:
        runs = seeds_of(script)
        yield (f'`{name_of(script)}`', f'{runs[0]["parameters"]:,}', str(len(runs)),
               spread([run['curve'][-1][1] for run in runs]), spread([run['curve'][-1][2] for run in runs]),
               f'{runs[0]["tokens_per_second"]:,}', f'{runs[0]["seconds"]:.0f}')


def depth_rows():
    runs = results.load()['runs']
    for number in (6, 7, 8, 9):
        yield (f'`{name_of(LADDER[number])}`',
               *(f'{runs[key(*depth_job(number, depth))]["curve"][-1][2]:.3f}' for depth in DEPTHS))


def overfit_rows():
    for script, _, run in runs_of(overfit_jobs()):
        best = min(run['curve'], key=lambda point: point[2])
        yield (f'`{name_of(script)}`', f'{run["curve"][-1][1]:.3f}', f'{run["curve"][-1][2]:.3f}', f'{best[2]:.3f}',
               f'{best[0]:,}')


def gain_rows():
    """What each rung changes in the validation loss of the one below: at equal steps, and at equal time."""
    rows = runs_of(budget_jobs())
    timed = {script: run['curve'][-1][2] for script, _, run in rows}
    steps = {script: constants['max_iters'] for script, constants, _ in rows}
    for below, script in pairwise([LADDER[0], *timed]):
        means = [statistics.mean(run['curve'][-1][2] for run in seeds_of(name)) for name in (script, below)]
        yield (f'`{name_of(script)}`', f'{means[0]:.3f}', f'{means[0] - means[1]:+.3f}', f'{steps[script]:,}',
               f'{timed[script]:.3f}', f'{timed[script] - timed[below]:+.3f}' if below in timed else '')


def search_rows(rows):
    for _, constants, run in rows:
        steps = run['curve'][-1][0]
        tokens = steps * constants['batch_size'] * constants['block_size']
        yield (*(format_changed(constants, name) for name in NAMES), f'{run["parameters"]:,}', f'{steps:,}',
               f'{tokens / 1e6:.2f} M', f'{run["curve"][-1][1]:.3f}', f'{run["curve"][-1][2]:.3f}')


def format_changed(constants, name):
    """The value, in bold where it is not the base's; a falling rate has an arrow."""
    value = f'{constants[name]:g}' + ('↘' if name == 'learning_rate' and constants.get('decay') else '')
    return value if constants[name] == BASE[name] and not value.endswith('↘') else f'**{value}**'


def training_rows():
    bench = results.load()['training']
    for name, row in bench.items():
        if not name.startswith('layer'):
            yield (f'`{name_of(name)}`', f'{row["milliseconds"]:,.1f}', f'{row["tokens_per_second"]:,}',
                   f'{100 * row["share_of_peak"]:.0f} %')


def layer_rows():
    for name, row in results.load()['training'].items():
        if name.startswith('layer'):
            yield name.removeprefix('layer '), f'{row["milliseconds"]:,.1f}', f'{100 * row["share_of_peak"]:.0f} %'


def sampling_rows():
    for name, row in results.load()['sampling'].items():
        size, context = name.split()
        cached = row['kv cache']
        yield (size, context, f'{row["v12"]:,.0f}', f'{cached:,.0f}', f'{row["transformers"]:,.0f}',
               f'{cached / row["v12"]:.1f}', f'{cached / row["transformers"]:.1f}', f'{row["limit"]:,.0f}')


def variant_rows():
    for name, row in results.load()['variants'].items():
        yield *name.split(': '), f'{row["milliseconds"]:,.1f}', f'{row["ratio"]:.2f}'


def memory_rows():
    for name, row in results.load()['memory'].items():
        yield f'`{name_of(name)}`', f'{row["megabytes"]:,}'


def markdown(head, rows):
    lines = [head, ['---'] * len(head), *rows]
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)


def poems():
    """What the sampler wrote with the pretrained model, below the command that made it."""
    return '\n\n'.join(f'```bash\n{command}\n```\n\n```text\n{poem}\n```'
                       for command, poem in results.load()['poems'].items())


def search_table(rows):
    return markdown([*(f'`{name}`' for name in NAMES), '参数', '步数', '看过的字', '训练损失', '验证损失'],
                    search_rows(rows))


BLOCKS = {
    'README.md': {
        'ladder': lambda: markdown(
            ['脚本', '参数（格）', '种子数', '训练损失', '验证损失', '字/秒', '全程秒数'], ladder_rows()),
        'poems': poems},
    'README.en.md': {
        'ladder': lambda: markdown(
            ['script', 'parameters (cells)', 'seeds', 'train loss', 'validation loss', 'tokens/s', 'seconds'],
            ladder_rows()),
        'poems': poems},
    'docs/results.md': {
        'gain': lambda: markdown(
            ['脚本', '3,000 步的验证损失', '比前一级', '60 秒的步数', '60 秒的验证损失', '比前一级'], gain_rows()),
        'depth': lambda: markdown(['脚本', *(f'{depth} 层' for depth in DEPTHS)], depth_rows()),
        'overfit': lambda: markdown(
            ['脚本', '最后的训练损失', '最后的验证损失', '最低验证损失', '在第几步'], overfit_rows()),
        'training': lambda: markdown(['脚本', '毫秒/步', '字/秒', '占矩阵乘法峰值'], training_rows()),
        'layers': lambda: markdown(['层（4,096 个位置，前向加反向）', '毫秒', '占矩阵乘法峰值'], layer_rows()),
        'variants': lambda: markdown(['大小', 'v11 的一步', '毫秒', '和现在之比'], variant_rows()),
        'sampling': lambda: markdown(
            ['模型', '上下文', 'v12 字/秒', 'KV 缓存 字/秒', 'transformers 字/秒', '比 v12', '比 transformers',
             '只读一遍权重 字/秒'], sampling_rows()),
        'memory': lambda: markdown(['脚本', '峰值内存（MB）'], memory_rows())},
    'docs/hyper_params.md': {
        'search': lambda: search_table(runs_of(search_jobs())),
        'finals': lambda: search_table(runs_of(final_jobs())),
        'chosen': lambda: search_table([(TUNED, CHOSEN, seeds_of(TUNED)[0])])},
}


def filled(name, text):
    """The document with everything between its markers <!-- block --> and <!-- /block --> written anew."""
    for block, write in BLOCKS[name].items():
        start, end = f'<!-- {block} -->\n', f'<!-- /{block} -->'
        before, rest = text.split(start)
        old, after = rest.split(end)
        try:
            new = write() + '\n'
        except (LookupError, ValueError):
            print(f'{name}, {block}: not all of its results are there yet')
            new = old
        text = before + start + new + end + after
    return text


def fill_documents():
    for name in BLOCKS:
        path = ROOT / name
        path.write_text(filled(name, path.read_text(encoding='utf-8')), encoding='utf-8')
