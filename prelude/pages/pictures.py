"""The picture of this ladder: its numbers, from docs/results.json, and how it is drawn."""

from kit.experiments import settings_of
from kit.pictures import Picture


def minute_data():
    """Validation losses after 60 s of training, and those of counting: {group: [(name, loss)]}."""
    counting = settings_of('prelude/orders')['v7', 'base']
    return {'root': [(rung, setting.val[0]) for (rung, _), setting in settings_of('budget').items()],
            'recurrent': [(f'prelude {rung}: {"RNN" if change == "base" else change}', setting.val[0])
                          for (rung, change), setting in settings_of('prelude/minute').items()],
            'counting': [(order, counting.at(order)[0][2]) for order in (2, 3, 5)]}


def draw_minute(figure, data, t):
    """What learns nothing, far to the right of the rest, is cut off: a note says where it is."""
    axes = figure.subplots()
    near = max(value for group in ('root', 'recurrent') for _, value in data[group] if value < 6)
    for (order, value), style in zip(data['counting'], ('--', '-.', ':'), strict=True):
        axes.axvline(value, color='C2', linestyle=style, linewidth=1.5, label=t(
            f'数数，看前面 {order - 1} 个字：{value:.2f}', f'counting, {order - 1} before: {value:.2f}'))
    for group, colour, label in (('root', 'C0', t('根目录的 v1 到 v10', 'v1 to v10 of the root')),
                                 ('recurrent', 'C3', t('循环网络（v5 独热，v6 嵌入）', 'recurrent (v5 one-hot, v6 embedding)'))):
        names, values = zip(*data[group], strict=True)
        axes.plot(values, names, 'o', color=colour, label=label)
        for name, value in data[group]:
            shown = f'{value:.2f}' if value <= near else f'{value:.2f} →'
            axes.annotate(shown, (min(value, near + 0.06), name), xytext=(8, 0), textcoords='offset points', va='center', fontsize=8,
                          bbox={'facecolor': 'white', 'edgecolor': 'none', 'pad': 0.5})
    axes.set_xlim(min(value for _, value in data['counting']) - 0.03, near + 0.14)
    axes.invert_yaxis()
    axes.set_xlabel(t('训练一分钟之后的验证损失（nat/字）', 'validation loss after a minute of training (nats per character)'))
    axes.legend(frameon=False, loc='lower right', fontsize=8)


PICTURES = {'minute': Picture(minute_data, draw_minute, (8, 4.8))}
