"""Practice files: the rung below, with the places to change marked, and what to do with it."""

import difflib
import re

from kit.source import body

OPENING = '''"""自己写 {whole}：{name}

下面是 {below} 的全部代码，照样能运行。标着 TODO 的 {todos} 处，就是 {own} 改动的地方。

{task}

写好之后必须成立：{truth}

检查：python -m pytest tests --rung {address} --mine {file}
运行：python {file}
写好了再对照：git diff --no-index {file} {answer}
"""
'''


def todo(old, new):
    """What to do at one place of the diff, without saying how."""
    classes = re.findall(r'^class (\w+)', '\n'.join(new), flags=re.MULTILINE)
    constants = re.findall(r'^(\w+) = ', '\n'.join(new), flags=re.MULTILINE)
    if classes and not old:
        return f'在这里写 {"、".join(classes)}'
    if classes:
        return f'从这里开始，改写成 {"、".join(classes)}'
    if constants and not old:
        return f'在这里添上 {"、".join(constants)}'
    if not old:
        return '在这里添几行'
    lines = f'下面这 {len(old)} 行' if len(old) > 1 else '下面这一行'
    return f'改{lines}' if new else f'{lines}不要了'


def marked(before, after):
    """The lines of `before` with a comment at each place where `after` differs; and how many those are."""
    lines, todos = [], 0
    for kind, a, b, c, d in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if kind != 'equal' and any(line.strip() for line in before[a:b] + after[c:d]):
            todos += 1
            indented = next(line for line in before[a:b] + after[c:d] if line.strip())
            indent = indented[:len(indented) - len(indented.lstrip())]
            lines.append(f'{indent}# TODO {todos}：{todo(before[a:b], after[c:d])}')
        lines += before[a:b]
    return lines, todos


def called(rung):
    """What a learner knows a rung by: v2, or the name of a script that has no number."""
    return f'v{rung.version}' if rung.version is not None else rung.path


def practice_file(rung):
    """The name, the text and the number of marks of the file in which a learner writes that rung."""
    lines, todos = marked(body(rung.below.source), body(rung.source))
    file, task = (rung.ladder.folder / f'my_v{rung.version}.py').as_posix(), rung.practice  # where ci.txt is found alike
    own, ladder = called(rung), rung.ladder.name
    opening = OPENING.format(own=own, whole=own if ladder == 'root' else f'{ladder}/{own}', name=task['name'], below=called(rung.below), todos=todos, file=file,
                             task=task['task'].strip(), truth=task['truth'], address=rung.address, answer=rung.path)
    return file, opening + '\n'.join(lines) + '\n', todos
