"""Write the walkthrough, docs/index.html and its pages, from the scripts, docs/results.json and docs/samples.json.

    python tools/walkthrough.py            # write docs/*.html and docs/en/*.html: a few seconds
    python tools/walkthrough.py samples    # run the scripts for what they write, into docs/samples.json (half an hour)

Texts are in tools/walkthrough_pages/zh and en, one file for a page: Jinja templates, in which every number is a
value that is read or computed here. A text that makes a claim about numbers states it with check(), and the build
stops when it is no longer so; it also stops when a margin note no longer finds its line or a named test is gone.
Needs requirements-dev.txt. tests/test_walkthrough.py compares the committed pages with what this tool builds.
"""

import argparse
import ast
import math
import os
import re
import statistics
import sys
from functools import cache
from pathlib import Path

import jinja2
import report
import results
import torch
import walkthrough_examples as examples
import walkthrough_samples as samples
import walkthrough_svg as svg
from markupsafe import Markup, escape
from results import ROOT
from walkthrough_diff import Diff, Listing, Note, highlight, line_html

DOCS, PAGES = ROOT / 'docs', ROOT / 'tools' / 'walkthrough_pages'
LANGUAGES = {'zh': 'zh-CN', 'en': 'en'}


class Page:
    """One page: its script, the script it is compared with, its names, and the tests of what it claims."""

    def __init__(self, name, script, before, titles, lines, tests=()):
        self.name, self.script, self.before, self.tests = name, script, before, tests
        self.titles, self.lines = dict(zip(LANGUAGES, titles, strict=True)), dict(zip(LANGUAGES, lines, strict=True))
        self.number = int(name[1:]) if name[1:].isdigit() else None


def rungs():
    """v1 to v12: (file, titles, lines, tests)."""
    facts = [
        (('嵌入 + 线性层', 'Embedding + linear'), ('不再数数，用梯度下降来学', 'No more counting: learn by gradient descent'),
         ['concepts::test_loss_starts_near_ln_vocab', 'concepts::test_v1_and_v2_see_one_token_only']),
        (('位置嵌入', 'Position embedding'), ('让模型知道一个字排在第几', 'Tell the model where a character stands'),
         ['concepts::test_same_token_differs_by_position', 'concepts::test_generate_crops_the_context_to_block_size']),
        (('自注意力', 'Self-attention'), ('每个字可以回头看前面的字', 'Every character can look back'),
         ['concepts::test_logits_depend_on_earlier_tokens', 'concepts::test_logits_never_depend_on_later_tokens']),
        (('多头注意力', 'Multi-head attention'), ('同时看几个地方', 'Look at several places at once'),
         ['concepts::test_v4_with_one_head_equals_v3', 'concepts::test_attends_in_as_many_patterns_as_heads']),
        (('前馈网络', 'Feed-forward'), ('看到之后，各自加工', 'After looking, work on it'),
         ['concepts::test_attention_output_passes_a_non_linearity_from_v5_on']),
        (('Block', 'Block'), ('合成一层，叠起来', 'Make it a layer, and stack layers'),
         ['concepts::test_v6_with_one_layer_equals_v5', 'concepts::test_depth_is_a_number']),
        (('残差连接', 'Residual connection'), ('x + f(x)：添，而不是取代', 'x + f(x): add, do not replace'),
         ['concepts::test_block_with_zeroed_sublayers_is_the_identity',
          'concepts::test_gradient_of_the_first_layer_survives_16_blocks']),
        (('投影', 'Projection'), ('让各个头的结果合到一起', 'Let what the heads fetch mix'),
         ['concepts::test_v8_with_identity_projection_equals_v7', 'concepts::test_heads_can_mix']),
        (('层归一化', 'Layer norm'), ('加工之前先调好尺度', 'Set the scale before each step'),
         ['concepts::test_sublayers_see_mean_0_and_variance_1_whatever_the_scale']),
        (('dropout', 'Dropout'), ('训练时随机丢掉一些数', 'Drop some numbers at random in training'),
         ['concepts::test_stochastic_in_train_mode', 'concepts::test_eval_mode_equals_v9']),
        (('超参数', 'Hyperparameters'), ('该拧的旋钮都在这里', 'The knobs, all in one place'),
         ['diffs::test_only_the_concept_changes', 'scripts::test_help_lists_every_hyperparameter_with_its_default']),
        (('记录和保存', 'Tracking and saving'), ('用 wandb 记录，用 model.pth 留住模型', 'Track with wandb, keep the model'),
         ['scripts::test_v12_prints_the_losses_and_poems_of_v11']),
    ]
    scripts = [*report.LADDER, report.TUNED, 'babygpt_v12_wandb.py']
    for number, (titles, lines, tests) in enumerate(facts, 1):
        yield Page(f'v{number}', scripts[number], scripts[number - 1], titles, lines, tests)


SITE = [
    Page('index', None, None, ('用宋词一级一级学会 GPT', 'Learn GPT one rung at a time, with Song ci'), ('', '')),
    Page('bigrams', 'simplebigrammodel_torch.py', 'simplebigrammodel.py', ('数相邻的字', 'Counting pairs'),
         ('最小的语言模型：数一数每个字后面跟过哪些字', 'The smallest language model: count what followed what')),
    Page('pytorch', 'pytorch_5min.py', None, ('五分钟认识 PyTorch', 'PyTorch in five minutes'),
         ('在一条直线上，把后面的部件都见一面', 'Meet every part once, on a straight line')),
    *rungs(),
    Page('kvcache', 'babygpt_sample_with_kvcache.py', 'babygpt_v12_wandb.py', ('KV 缓存', 'KV cache'),
         ('算过的不再算', 'Never compute the same thing twice'),
         ['sampler::test_token_by_token_logits_equal_the_full_pass', 'sampler::test_same_text_as_v12_while_it_fits'])]
BY_NAME = {page.name: page for page in SITE}
SAMPLED = ['simplemodel.py', 'pytorch_5min.py', *report.LADDER, report.TUNED]  # v12 writes what v11 writes

WORDS = {
    'zh': {'note': '注', 'unchanged': '{} 行未变', 'removed': '删去 {} 行', 'docstring': '开头的说明也改写了', 'colon': '：', 'comma': '、'},
    'en': {'note': 'note', 'unchanged': '{} lines unchanged', 'removed': '{} lines removed', 'docstring': 'The docstring changed too', 'colon': ': ',
           'comma': ', '}}
DRAWING = {
    'zh': {'trunk': '从编号到得分：整个模型', 'attention': '注意力的内部', 'feed_forward': '前馈网络的内部', 'loop': '训练循环',
           'to loss': '和答案比：损失', 'to text': 'softmax，抽下一个字', 'split': '切成 n_head 个头',
           'scores': 'q @ kᵀ，除以维数的平方根', 'mask': '盖住未来', 'concat': '各头并排放回', 'steps': '步数',
           'model': 'model(x, y)', 'gradient': '每个参数的导数', 'move': '每个参数挪一小步', 'again': '再来一步',
           'log': '损失、速度、词', 'keep': '验证损失最低时', 'positions': '位置', 'write': '写',
           'cache on': '用缓存时，每一步要算的位置', 'cache off': '不用缓存时，每一步要算的位置'},
    'en': {'trunk': 'From ids to logits: the whole model', 'attention': 'Inside attention',
           'feed_forward': 'Inside the feed-forward network', 'loop': 'The training loop',
           'to loss': 'compare: loss', 'to text': 'softmax, draw the next', 'split': 'split into n_head heads',
           'scores': 'q @ kᵀ / √ of width', 'mask': 'hide the future', 'concat': 'heads joined again',
           'steps': 'steps', 'model': 'model(x, y)', 'gradient': 'find the derivatives',
           'move': 'move each a small step', 'again': 'once more', 'log': 'losses, speed, poems',
           'keep': 'at the lowest val loss', 'positions': 'position', 'write': 'write ',
           'cache on': 'Positions computed at each step with a cache',
           'cache off': 'Positions computed at each step without a cache'}}


def number(value, digits=2):
    """The number as it is printed: a real minus sign, and no negative zero."""
    text = f'{float(value):,.{digits}f}'
    return text.replace('-', '' if not float(text.replace(',', '')) else '−')


def power(value):
    """A very small or large number in powers of ten."""
    mantissa, exponent = f'{float(value):.1e}'.split('e')
    return Markup(f'{mantissa} × 10<sup>{number(int(exponent), 0)}</sup>')


def table(rows, left=None, top=None, digits=2, heat=False, hidden=False, caption='', strike=None):
    """A matrix as a table, labelled with characters. `heat` shades by size, `hidden` blanks what is -inf or masked."""
    rows = torch.as_tensor(rows)
    rows = rows[None] if rows.dim() == 1 else rows
    html = f'<caption>{escape(caption)}</caption>' if caption else ''
    if top is not None:
        corner = '<td></td>' if left is not None else ''
        html += '<thead><tr>' + corner + ''.join(f'<th scope="col">{escape(label)}</th>' for label in top) + '</tr></thead>'
    html += '<tbody>'
    for i, row in enumerate(rows):
        html += '<tr>' + (f'<th scope="row">{escape(left[i])}</th>' if left is not None else '')
        for j, value in enumerate(row.tolist()):
            if value == float('-inf') or (hidden and j > i):
                html += '<td class="off">−∞</td>' if value == float('-inf') else '<td class="off">0</td>'
                continue
            shade = f' class="h{min(9, round(10 * abs(value)))}"' if heat else ''
            if strike is not None and strike[i][j]:
                shade = ' class="cut"'
            html += f'<td{shade}>{number(value, digits)}</td>'
        html += '</tr>'
    return Markup(f'<div class="scroll"><table class="matrix">{html}</tbody></table></div>')


def crop(rows, size):
    return [row[:size] for row in rows[:size]]


@cache
def validation(name):
    """[validation loss at the end, one per seed] of that page's script; 'bigram' is the counting model."""
    return tuple(run['curve'][-1][2] for run in runs_of(name))


def runs_of(name):
    script = {'bigrams': report.LADDER[0], 'v12': report.TUNED}.get(name) or BY_NAME[name].script
    runs = report.seeds_of(script)
    if not runs:
        raise SystemExit(f'docs/results.json has no run of {script}.')
    return runs


def mean(name):
    return statistics.mean(validation(name))


def mean_curve(name):
    """[(step, mean validation loss over the seeds)], without the untrained start."""
    curves = [run['curve'] for run in runs_of(name)]
    assert len({tuple(step for step, *_ in curve) for curve in curves}) == 1
    return [(points[0][0], statistics.mean(point[2] for point in points)) for points in zip(*curves, strict=True)][1:]


def spread(name):
    values = validation(name)
    return f'{mean(name):.3f}' + (f' ± {statistics.stdev(values):.3f}' if len(values) > 1 else '')


def check(claim, text):
    """A claim of a page about measured or computed numbers. It must hold, or nothing is built."""
    if not claim:
        raise SystemExit(f'A text no longer agrees with the numbers: {text}')
    return ''


def source(script):
    return (ROOT / script).read_text(encoding='utf-8')


@cache
def test_source(test):
    """(file, name, highlighted source) of a test, which must exist; `test` is 'concepts::test_name'."""
    file, name = test.split('::')
    text = (ROOT / 'tests' / f'test_{file}.py').read_text(encoding='utf-8')
    found = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef) and node.name == name]
    if not found:
        raise SystemExit(f'tests/test_{file}.py has no test {name}.')
    start = min([found[0].lineno, *(each.lineno for each in found[0].decorator_list)]) - 1
    lines = highlight('\n'.join(text.split('\n')[start:found[0].end_lineno]))
    return f'test_{file}.py', name, Markup('\n').join(line_html(line) for line in lines)


class Writer:
    """Builds one page in one language: what its template may use."""

    def __init__(self, page, language):
        self.page, self.language, self.notes = page, language, []
        self.words, self.say = WORDS[language], DRAWING[language]

    def note(self, key, caller):
        """{% call note('piece of code') %}…{% endcall %}: a margin note for the changed line with that piece."""
        self.notes.append(Note(key, caller().strip()))
        return ''

    def diff(self):
        made = Diff(source(self.page.before), source(self.page.script), self.notes, self.words)
        html = made.html()
        self.notes = []
        return {'html': html, 'added': made.added, 'removed': made.removed}

    def listing(self, script):
        html = Listing(source(script), self.notes, self.words).html()
        self.notes = []
        return html

    def curve(self):
        page, title = self.page, {'zh': '验证损失随步数的变化', 'en': 'Validation loss over the steps'}[self.language]
        own = mean_curve(page.name)
        if page.number == 1:
            level = mean('bigrams')
            label = {'zh': '计数', 'en': 'counting'}[self.language]
            lines = [(label, [(own[0][0], level), (own[-1][0], level)], 'old')]
        elif page.number == 12:
            return svg.curves([('v11 = v12', own, 'own')], self.say, title)
        else:
            before = f'v{page.number - 1}'
            lines = [(before, mean_curve(before), 'old')]
        return svg.curves([*lines, (page.name, own, 'own')], self.say, title)

    def flow(self):
        n = self.page.number
        sizes = None
        if n == 11:
            new = examples.constants(11)
            sizes = {'B': new['batch_size'], 'T': new['block_size'], 'C': new['n_embd'], 'V': f'{vocabulary():,}',
                     'L': new['n_layer']}
        drawings = [svg.trunk(min(n, 11), self.say, sizes=sizes)]
        if n in (3, 4, 8, 10):
            drawings.append(svg.attention(n, self.say))
        if n in (5, 10):
            drawings.append(svg.feed_forward(n, self.say))
        if n in (1, 12):
            drawings.append(svg.loop(self.say, n))
        return drawings[-1:] if n == 12 else drawings

    def architecture(self):
        def link(rung):
            return f'v{rung}.html'
        return [svg.trunk(10, self.say, link), svg.attention(10, self.say, link), svg.feed_forward(10, self.say, link)]

    def sample(self, name):
        return self.named_sample(report.TUNED if name == 'v12' else BY_NAME[name].script)

    def named_sample(self, script):
        """What the script printed when it was run for its sample; None if that is still to be done."""
        return samples.load().get(script)

    def rows(self):
        """Measured numbers of the rung below and of this one."""
        name = self.page.name
        for each in ([f'v{self.page.number - 1}' if self.page.number > 1 else 'bigrams'] if name != 'v12' else []) + [name]:
            runs = runs_of(each)
            yield {'name': each, 'own': each == name, 'parameters': runs[0]['parameters'], 'seeds': len(runs),
                   'train': report.spread([run['curve'][-1][1] for run in runs]), 'val': spread(each),
                   'speed': runs[0]['tokens_per_second'], 'seconds': runs[0]['seconds']}

    def html(self, environment):
        page = self.page
        place = SITE.index(page)
        variables = {
            'page': page, 'lang': self.language, 'w': self.words, 'site': SITE, 'by_name': BY_NAME,
            'title': page.titles[self.language], 'line': page.lines[self.language],
            'titles': {each.name: each.titles[self.language] for each in SITE},
            'previous': SITE[place - 1] if place else None, 'next': SITE[place + 1] if place + 1 < len(SITE) else None,
            'root': '' if self.language == 'zh' else '../', 'code_lang': LANGUAGES[self.language],
            'other': f'en/{page.name}.html' if self.language == 'zh' else f'../{page.name}.html',
            'ex': example(page.name), 'note': self.note, 'diff': self.diff, 'listing': self.listing, 'curve': self.curve,
            'flow': self.flow, 'architecture': self.architecture, 'sample': self.sample, 'by_name_sample': self.named_sample,
            'crop': crop, 'abs': abs, 'min': min, 'torch_diff': self.diff, 'ln_vocabulary': math.log(vocabulary()),
            'loss_rows': self.rows, 'overfit': [run['curve'] for *_, run in report.runs_of(report.overfit_jobs())],
            'mean': mean, 'spread': spread, 'check': check, 'table': table, 'n': number, 'power': power,
            'tests': [test_source(test) for test in page.tests], 'results': results.load(), 'svg': svg, 'say': self.say,
            'ids': list(examples.PIECE), 'answers': list(examples.ANSWER), 'vocabulary': vocabulary()}
        html = environment.get_template(f'{self.language}/{page.name}.html').render(variables)
        parts = re.split('(<pre.*?</pre>)', html, flags=re.DOTALL)
        parts[::2] = [re.sub(r'\s*\n\s*', '\n', part) for part in parts[::2]]  # blank lines count only in <pre>
        return ''.join(parts).strip() + '\n'


@cache
def example(name):
    return examples.EXAMPLES[name]() if name in examples.EXAMPLES else {}


@cache
def vocabulary():
    return len(set(examples.corpus()))


def build():
    """{path: content} of every file of the site."""
    torch.set_num_threads(1)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True)
    files = {DOCS / name: (PAGES / name).read_text(encoding='utf-8') for name in ('style.css', 'script.js')}
    for language in LANGUAGES:
        for page in SITE:
            folder = DOCS if language == 'zh' else DOCS / language
            files[folder / f'{page.name}.html'] = Writer(page, language).html(environment)
    return files


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('what', nargs='?', choices=['build', 'samples'], default='build')
    if parser.parse_args().what == 'samples':
        sys.exit(samples.collect(SAMPLED))
    files = build()
    for path, text in files.items():
        path.parent.mkdir(exist_ok=True)
        temporary = Path(f'{path}.tmp')
        temporary.write_text(text, encoding='utf-8')
        os.replace(temporary, path)
    print(f'{len(files)} files, {sum(len(text.encode()) for text in files.values()) / 1e6:.1f} MB, in docs/')


if __name__ == '__main__':
    main()
