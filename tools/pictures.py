"""Draw docs/pictures from docs/results.json: each picture as SVG and PNG, in Chinese and in English.

Called by tools/measure.py. Each SVG carries a hash of the numbers that it shows, so that a test can tell, without
drawing, whether it is up to date. The Chinese font comes with the package mplfonts; matplotlib and it are imported
where something is drawn, so that the data can be read without them.
"""

import hashlib
import json
import statistics

import report
import results
from results import ROOT, SEEDS

FOLDER = ROOT / 'docs' / 'pictures'


def validation(run):
    return [(step, val) for step, _, val in run['curve']]


def ladder_data():
    """[(rung, mean, sample standard deviation)], the counting bigram first."""
    rows = []
    for number, script in enumerate(report.LADDER):
        values = [run['curve'][-1][2] for run in report.seeds_of(script)]
        rows.append((f'v{number}' if number else 'bigram', statistics.mean(values), statistics.stdev(values)))
    return [*rows, ('v11', report.seeds_of(report.TUNED)[0]['curve'][-1][2], 0.0)]


def curves_data():
    return {f'v{number}': validation(report.seeds_of(script)[0])
            for number, script in enumerate(report.LADDER) if number}


def depth_data():
    runs = results.load()['runs']
    return {f'v{number}': [(depth, runs[results.key(*report.depth_job(number, depth))]['curve'][-1][2])
                           for depth in report.DEPTHS] for number in (6, 7, 8, 9)}


def overfit_data():
    return {f'v{number}': run['curve']
            for number, (_, _, run) in zip((9, 10), report.runs_of(report.overfit_jobs()), strict=True)}


def gradients_data():
    gradients = results.load()['gradients']
    return {f'v{number}': gradients[report.LADDER[number].removesuffix('.py')]['rms_by_block'] for number in (6, 7)}


def attention_data():
    return results.load()['attention'][report.LADDER[4].removesuffix('.py')]


def tokens_per_step(constants):
    return constants['batch_size'] * constants['block_size']


def candidate_curves(changes, jobs, base_steps):
    """[(change, [(seconds of training, validation loss)])]: all take as long as the base, and time goes by evenly."""
    seconds = base_steps * results.load()['candidates']['base']['milliseconds'] / 1e3
    return [(change, [(round(step / constants['max_iters'] * seconds, 1), val) for step, val in validation(run)])
            for change, (_, constants, run) in zip(changes, report.runs_of(jobs), strict=True)]


def search_data():
    return candidate_curves(report.CHANGES, report.search_jobs(), report.SEARCH_STEPS)


def finals_data():
    return candidate_curves(report.FINALS, report.final_jobs(), report.FINAL_STEPS)


def scaling_data():
    """[(width, parameters, [(tokens, validation loss)])] of the widths, all trained for the same time."""
    rows = [(constants['n_embd'], run['parameters'],
             [(step * tokens_per_step(constants), val) for step, val in validation(run)])
            for constants, run in ((constants, run) for change, (_, constants, run) in
                                   zip(report.CHANGES, report.runs_of(report.search_jobs()), strict=True)
                                   if 'n_embd' in change or not change)]
    return sorted(rows)


def draw_ladder(figure, data, t):
    axes = figure.subplots()
    names, means, deviations = zip(*data, strict=True)
    axes.plot(names[1:-1], means[1:-1], color='0.75', linewidth=1, zorder=1)
    axes.errorbar(names[1:-1], means[1:-1], deviations[1:-1], fmt='o', capsize=4, color='C0',
                  label=t(f'{len(SEEDS)} 个种子的平均值 ± 标准差', f'mean ± standard deviation of {len(SEEDS)} seeds'))
    axes.plot(names[-1:], means[-1:], 's', color='C3', label=t('更大的模型，训练十分钟', 'larger model, ten minutes'))
    axes.axhline(means[0], color='0.4', linestyle='--', linewidth=1,
                 label=t('数相邻的字（加一平滑）', 'counting pairs (add-one smoothing)'))
    for name, mean in zip(names[1:], means[1:], strict=True):
        axes.annotate(f'{mean:.2f}', (name, mean), xytext=(0, 8), textcoords='offset points', ha='center', fontsize=8,
                      bbox={'facecolor': 'white', 'edgecolor': 'none', 'pad': 0.5})
    axes.margins(y=0.12)
    axes.set_ylabel(t('验证损失（nat/字）', 'validation loss (nats per character)'))
    axes.legend(frameon=False)


def draw_curves(figure, data, t):
    axes = figure.subplots()
    colours = figure.colormaps['viridis']
    for number, (name, points) in enumerate(data.items()):
        axes.plot(*zip(*points[1:], strict=True), marker='.', label=name, color=colours(number / len(data)))
    axes.set(xlabel=t('步数', 'steps'), ylabel=t('验证损失（nat/字）', 'validation loss (nats per character)'))
    axes.legend(frameon=False, ncols=2)


def draw_depth(figure, data, t):
    axes = figure.subplots()
    for name, points in data.items():
        axes.plot(*zip(*points, strict=True), marker='o', label=name)
    axes.set(xlabel=t('层数 n_layer', 'n_layer'), xticks=report.DEPTHS,
             ylabel=t('验证损失（nat/字）', 'validation loss (nats per character)'))
    axes.legend(frameon=False)


def draw_overfit(figure, data, t):
    axes = figure.subplots()
    for colour, (name, curve) in zip(('C0', 'C1'), data.items(), strict=True):
        steps, train, val = zip(*curve[1:], strict=True)
        axes.plot(steps, train, '--', color=colour, label=t(f'{name} 训练', f'{name} train'))
        axes.plot(steps, val, color=colour, label=t(f'{name} 验证', f'{name} validation'))
    axes.set(xlabel=t('步数', 'steps'), ylabel=t('损失（nat/字）', 'loss (nats per character)'))
    axes.legend(frameon=False)


def draw_gradients(figure, data, t):
    axes = figure.subplots()
    for name, values in data.items():
        axes.semilogy(range(1, len(values) + 1), values, marker='o', label=name)
    axes.set(xlabel=t('第几层（1 离输入最近，16 离损失最近）', 'block (1 is next to the input, 16 next to the loss)'),
             ylabel=t('参数梯度的均方根', 'root mean square of the gradient'))
    axes.legend(frameon=False)


def draw_attention(figure, data, t):
    marks = {'\n': '⏎', ' ': '␣'}
    characters = [marks.get(character, character) for character in data['poem']]
    for number, axes in enumerate(figure.subplots(2, 2).flat):
        axes.imshow(data['weights'][number], cmap='Blues', vmin=0, vmax=1)
        ticks = range(len(characters))
        axes.set_xticks(ticks, characters, fontsize=7, fontfamily='Noto Sans CJK SC')
        axes.set_yticks(ticks, characters, fontsize=7, fontfamily='Noto Sans CJK SC')
        axes.tick_params(length=0)
        axes.set_title(t(f'第 {number + 1} 个头', f'head {number + 1}'), fontsize=10)
    figure.supxlabel(t('被看的字', 'character looked at'), fontsize=10)
    figure.supylabel(t('在看的字', 'character that looks'), fontsize=10)


def draw_search(figure, data, t):
    """A panel for each hyperparameter, with the starting point in each."""
    panels = [*report.NAMES, None]
    for name, axes in zip(panels, figure.subplots(2, 4, sharex=True, sharey=True).flat, strict=True):
        if name is None:
            axes.axis('off')
            continue
        for change, points in data:
            own = next(iter(change), None)
            if own is None or own == name or own == 'decay' and name == 'learning_rate':
                label = f'{report.BASE[name]:g}' if own is None else '↘ 0' if own == 'decay' else f'{change[name]:g}'
                axes.plot(*zip(*points[1:], strict=True), marker='.', label=label,
                          **({'color': 'black', 'linewidth': 2.2} if own is None else {}))
        axes.set_title(name, fontsize=10)
        axes.legend(frameon=False, fontsize=8)
    figure.supxlabel(t('训练的秒数（两个线程）', 'seconds of training (two threads)'), fontsize=10)
    figure.supylabel(t('验证损失（nat/字）', 'validation loss (nats per character)'), fontsize=10)


def draw_finals(figure, data, t):
    axes = figure.subplots()
    shown = {'base': t('出发点', 'starting point'), 'decay': t('学习率按余弦降到 0', 'rate falls to 0 by a cosine')}
    for change, points in data:
        name = report.change_name(change)
        axes.plot(*zip(*points[1:], strict=True), marker='.', label=shown.get(name, name),
                  **({'color': 'black', 'linewidth': 2.2} if not change else {}))
    axes.set(xlabel=t('训练的秒数（两个线程）', 'seconds of training (two threads)'),
             ylabel=t('验证损失（nat/字）', 'validation loss (nats per character)'))
    axes.legend(frameon=False)


def draw_scaling(figure, data, t):
    left, right = figure.subplots(1, 2, sharey=True)
    colours = figure.colormaps['viridis']
    million = 1e6
    left.plot([parameters / million for _, parameters, _ in data], [points[-1][1] for *_, points in data],
              color='0.75', zorder=1)
    for number, (width, parameters, points) in enumerate(data):
        colour = colours(number / len(data))
        left.plot(parameters / million, points[-1][1], 'o', color=colour)
        left.annotate(f'{width}', (parameters / million, points[-1][1]), xytext=(0, 8), textcoords='offset points',
                      ha='center')
        right.plot(*zip(*((seen / million, val) for seen, val in points[1:]), strict=True), marker='.', color=colour,
                   label=t(f'宽 {width}', f'width {width}'))
    left.set(xlabel=t('参数（百万）', 'parameters (millions)'),
             ylabel=t('验证损失（nat/字）', 'validation loss (nats per character)'))
    left.margins(y=0.1)
    right.set(xlabel=t('训练时看过的字（百万）', 'characters seen in training (millions)'))
    right.legend(frameon=False)


PICTURES = {
    'ladder': (ladder_data, draw_ladder, (8, 4.2)), 'curves': (curves_data, draw_curves, (8, 4.5)),
    'depth': (depth_data, draw_depth, (6, 4)), 'overfit': (overfit_data, draw_overfit, (7, 4.2)),
    'gradients': (gradients_data, draw_gradients, (7, 4)), 'attention': (attention_data, draw_attention, (9, 9)),
    'search': (search_data, draw_search, (10, 5.5)), 'finals': (finals_data, draw_finals, (8, 4.5)),
    'scaling': (scaling_data, draw_scaling, (9, 4)),
}


def data_hash(data):
    return hashlib.sha256(json.dumps(data).encode()).hexdigest()[:16]


def draw_all():
    import matplotlib
    from matplotlib import font_manager
    from matplotlib.figure import Figure
    from mplfonts.conf import FONT_DIR
    font_manager.fontManager.addfont(f'{FONT_DIR}/NotoSansCJKsc-Regular.otf')
    matplotlib.rcParams |= {'svg.hashsalt': 'babygpt', 'axes.spines.top': False, 'axes.spines.right': False}
    FOLDER.mkdir(exist_ok=True)
    for name, (read, draw, size) in PICTURES.items():
        try:
            data = read()
        except (LookupError, ValueError):
            print(f'{name}: not all of its runs are there yet')
            continue
        for language in (0, 1):
            font = ('Noto Sans CJK SC', 'DejaVu Sans')[language]
            with matplotlib.rc_context({'font.family': font}):
                figure = Figure(figsize=size, layout='constrained')
                figure.colormaps = matplotlib.colormaps
                draw(figure, data, lambda *texts, language=language: texts[language])
                stem = FOLDER / (name + ('', '.en')[language])
                figure.savefig(stem.with_name(stem.name + '.png'), dpi=150, metadata={'Software': None})
                figure.savefig(stem.with_name(stem.name + '.svg'),
                               metadata={'Date': None, 'Description': data_hash(data)})
