"""The pictures of this ladder: their numbers, from docs/results.json, and how they are drawn."""

from kit.experiments import change_name, deviation, mean, settings_of
from kit.pictures import Picture
from kit.results import section

CHANGED = ('batch_size', 'block_size', 'n_embd', 'n_head', 'n_layer', 'dropout', 'learning_rate')


def validation(run):
    return [(step, val) for step, _, val in run['curve']]


def counted(order):
    """The validation loss of counting with Kneser-Ney smoothing, `order` characters at a time."""
    (setting,) = settings_of('prelude/orders').values()
    return setting.at(order)[0][2]


def ladder_data():
    """[(rung, mean, sample standard deviation)], the counting bigram first; and what counting better reaches."""
    return [(str(setting.rung) if setting.rung.number else 'bigram', mean(setting.val), deviation(setting.val))
            for setting in settings_of('ladder').values()], {order: counted(order) for order in (2, 5)}


def over_seeds(setting, column):
    """[(step, mean, sample standard deviation)] of the training (1) or validation (2) losses."""
    return [(points[0][0], mean(values), deviation(values))
            for points in zip(*(run['curve'] for run in setting.runs), strict=True)
            for values in [[point[column] for point in points]]]


def curves_data():
    """{rung: [(step, mean validation loss)]} of the rungs that all train alike; 'counting': what counting reaches."""
    steps = settings_of('ladder')['v1', 'base']['max_iters']
    return {str(setting.rung): [(step, value) for step, value, _ in over_seeds(setting, 2)]
            for setting in settings_of('ladder').values() if setting.rung.number and setting['max_iters'] == steps} | {
        'counting': {order: counted(order) for order in (1, 2, 5)}}


def depth_data():
    """{rung: [(layers, mean validation loss, sample standard deviation)]}."""
    found = {}
    for setting in settings_of('depth').values():
        found.setdefault(str(setting.rung), []).append((setting['n_layer'], mean(setting.val), deviation(setting.val)))
    return found


def overfit_data():
    """{rung: training and validation losses over the seeds}."""
    return {rung: [over_seeds(setting, column) for column in (1, 2)]
            for (rung, _), setting in settings_of('overfit').items()}


def gradients_data():
    gradients = section('gradients')
    return {rung: gradients[stem]['rms_by_block'] for rung, stem in
            (('v6', 'babygpt_v6_block'), ('v7', 'babygpt_v7_residual_connection'))}


def attention_data():
    row = section('attention')['babygpt_v4_multihead_attention']
    return {name: row[name] for name in ('poem', 'weights')}


def tokens_per_step(setting):
    return setting['batch_size'] * setting['block_size']


def candidates_data(experiment):
    """[(change, [(seconds of training, validation loss)])]: all take as long as the base, and time goes by evenly."""
    found = []
    for setting in settings_of(experiment).values():
        base = setting.experiment.timing(setting.rung, {})['milliseconds'] / 1e3
        seconds = setting.experiment.steps * base / setting['max_iters']  # that a step of this candidate counts for
        found.append((setting.change, [(round(step * seconds, 1), val) for step, val in validation(setting.runs[0])]))
    return found


def search_data():
    """The starting point's own values, and the curves of the candidates."""
    base = next(iter(settings_of('search').values()))
    return {name: base[name] for name in CHANGED}, candidates_data('search')


def finals_data():
    return candidates_data('finals')


def scaling_data():
    """[(width, parameters, [(tokens, validation loss)])] of the widths, all trained for the same time."""
    return sorted((setting['n_embd'], setting.runs[0]['parameters'],
                   [(step * tokens_per_step(setting), val) for step, val in validation(setting.runs[0])])
                  for setting in settings_of('search').values() if 'n_embd' in setting.change or not setting.change)


def draw_counting(axes, counting, t):
    """A level for each number of characters that counting looks at."""
    for order, value in counting.items():
        axes.axhline(value, color='C2', linestyle={1: '--', 2: '-.', 5: ':'}[order], linewidth=1.5, label=t(
            f'数数，看前面 {order - 1} 个字（Kneser–Ney 平滑）', f'counting, {order - 1} before (Kneser–Ney smoothing)'))


def draw_ladder(figure, data, t):
    axes = figure.subplots()
    rungs, counting = data
    names, means, deviations = zip(*rungs, strict=True)
    axes.plot(names[1:-1], means[1:-1], color='0.75', linewidth=1, zorder=1)
    axes.errorbar(names[1:-1], means[1:-1], deviations[1:-1], fmt='o', capsize=4, color='C0',
                  label=t('3 个种子的平均值 ± 标准差', 'mean ± standard deviation of 3 seeds'))
    axes.plot(names[-1:], means[-1:], 's', color='C3', label=t('更大的模型，训练十分钟', 'larger model, ten minutes'))
    axes.axhline(means[0], color='0.4', linestyle='--', linewidth=1,
                 label=t('数相邻的字（加一平滑）', 'counting pairs (add-one smoothing)'))
    draw_counting(axes, counting, t)
    for name, value in zip(names[1:], means[1:], strict=True):
        axes.annotate(f'{value:.2f}', (name, value), xytext=(0, 8), textcoords='offset points', ha='center', fontsize=8,
                      bbox={'facecolor': 'white', 'edgecolor': 'none', 'pad': 0.5})
    axes.margins(y=0.12)
    axes.set_ylabel(t('验证损失（nat/字）', 'validation loss (nats per character)'))
    axes.legend(frameon=False)


def draw_curves(figure, data, t):
    axes = figure.subplots()
    colours = figure.colormaps['viridis']
    curves = [(name, points) for name, points in data.items() if name != 'counting']
    for number, (name, points) in enumerate(curves):
        axes.plot(*zip(*points[1:], strict=True), marker='.', label=name, color=colours(number / len(curves)))
    draw_counting(axes, data['counting'], t)
    rungs, levels = axes.lines[:len(curves)], axes.lines[len(curves):]
    for line in levels:
        axes.annotate(line.get_label(), (0.01, line.get_ydata()[0] - 0.015), xycoords=('axes fraction', 'data'), va='top', color='C2')
    axes.set(xlabel=t('步数', 'steps'), ylabel=t('验证损失（nat/字）', 'validation loss (nats per character)'))
    axes.margins(y=0.08)
    axes.legend(handles=rungs, frameon=False, ncols=5, loc='upper right', bbox_to_anchor=(1, 0.9))


def draw_depth(figure, data, t):
    """What does not learn, far above the rest, is cut off: a note says where it is."""
    axes = figure.subplots()
    highest = max(value + spread for points in data.values() for _, value, spread in points if value < 6)
    lowest = min(value - spread for points in data.values() for _, value, spread in points)
    axes.set_ylim(lowest - 0.03, highest + 0.06)
    depth, value, _ = next(point for point in data['v6'] if point[1] > 6)
    axes.annotate(t(f'v6 从 {depth} 层起停在 {value:.1f}', f'v6 stays at {value:.1f} from {depth} layers on'),
                  (1, 1), xycoords='axes fraction', ha='right', va='top', color='C0')
    for name, points in data.items():
        axes.errorbar(*zip(*points, strict=True), marker='o', capsize=3, label=name)
    axes.set(xlabel=t('层数 n_layer', 'n_layer'), xticks=[depth for depth, *_ in next(iter(data.values()))],
             ylabel=t('验证损失（nat/字）', 'validation loss (nats per character)'))
    axes.legend(frameon=False, loc='lower right', ncols=4)


def draw_overfit(figure, data, t):
    axes = figure.subplots()
    for colour, (name, curves) in zip(('C0', 'C1'), data.items(), strict=True):
        labels = t(f'{name} 训练', f'{name} train'), t(f'{name} 验证', f'{name} validation')
        for style, label, curve in zip(('--', '-'), labels, curves, strict=True):
            steps, means, deviations = zip(*curve[1:], strict=True)
            axes.plot(steps, means, style, color=colour, label=label)
            low, high = ([m + sign * d for m, d in zip(means, deviations, strict=True)] for sign in (-1, 1))
            axes.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
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
    base, curves = data
    panels = [*base, None]
    for name, axes in zip(panels, figure.subplots(2, 4, sharex=True, sharey=True).flat, strict=True):
        if name is None:
            axes.axis('off')
            continue
        for change, points in curves:
            own = next(iter(change), None)
            if own is None or own == name or own == 'decay' and name == 'learning_rate':
                label = f'{base[name]:g}' if own is None else '↘ 0' if own == 'decay' else f'{change[name]:g}'
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
        name = change_name(change)
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
    'ladder': Picture(ladder_data, draw_ladder, (8, 4.2)), 'curves': Picture(curves_data, draw_curves, (8, 4.5)),
    'depth': Picture(depth_data, draw_depth, (6, 4)), 'overfit': Picture(overfit_data, draw_overfit, (7, 4.2)),
    'gradients': Picture(gradients_data, draw_gradients, (7, 4)),
    'attention': Picture(attention_data, draw_attention, (9, 9)),
    'search': Picture(search_data, draw_search, (10, 5.5)),
    'finals': Picture(finals_data, draw_finals, (8, 4.5)), 'scaling': Picture(scaling_data, draw_scaling, (9, 4)),
}
