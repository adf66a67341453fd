"""Write the next rung yourself: put the rung before it into my_vN.py, with the places to change marked.

    python tools/practice.py 3      # writes my_v3.py into the current directory: v2, complete, and what to do with it

The marks come from the diff between the two scripts. The file runs as it is, with ci.txt beside it.
"""

import argparse
import ast
import difflib
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# {rung: (its name, what to build, what must become true)}. The names are those that the tests ask for.
TASKS = {
    1: ('嵌入和线性层', '''
把数数的 BigramLanguageModel 换成可以学的 BabyGPT：token_embedding_table 给每个字 n_embd 个数，
lm_head 用一个线性层把它们换成 vocab_size 个得分。再把 main 里的计数换成梯度下降：
优化器、损失、求导、走一小步。超参数里要添上 n_embd 和 learning_rate，训练约 3,000 步。
建模型的写法是 BabyGPT(vocab_size, n_embd)。
''', '还没有训练时损失接近 ln V，训练后降下来；每个位置的预测只取决于这个位置的字。'),
    2: ('位置嵌入', '''
让模型知道每个字在第几个位置：添一张表 position_embedding_table，block_size 行，每行 n_embd 个可以学的数，
让位置也参与预测。表只有 block_size 行，所以 generate 里的上文从此不能比它长。
建模型的写法是 BabyGPT(vocab_size, block_size, n_embd)。
''', '同一个字放在不同的位置，预测不同；续写时只看最后 block_size 个字。'),
    3: ('自注意力', '''
让每个字回头看前面的字。写一个类 SelfAttention，在模型里叫 sa，放在嵌入之后、lm_head 之前。
它有三个没有偏置的线性层 query、key、value，宽度都是 n_embd：谁看谁、看多少，由 query 和 key 决定；
看到什么，由 value 决定。后面的字，一点也不能看到。
建模型的写法仍是 BabyGPT(vocab_size, block_size, n_embd)。
''', '换掉一个字，只有它自己和它后面的预测会变；前面的，一点不变。'),
    4: ('多头注意力', '''
把 SelfAttention 改写成 MultiHeadAttention：同样的宽度切成 n_head 个头，每个头取相邻的 head_size 维，
各算各的权重，再合到一起。不添参数，也不必对头写循环：改变张量的形状就行。超参数里要添上 n_head = 4。
建模型的写法是 BabyGPT(vocab_size, block_size, n_embd, n_head)。
''', '有几个头，就有几组不同的权重；只有一个头时，和 v3 完全一样。'),
    5: ('前馈网络', '''
看到之后还要想一想。写一个类 FeedForward，在模型里叫 ffwd，接在注意力之后：两个线性层，中间放宽到 4 倍，
用 ReLU 隔开，都放在 self.net（nn.Sequential）里。它单独加工每个位置。
建模型的写法仍是 BabyGPT(vocab_size, block_size, n_embd, n_head)。
''', '注意力取来的信息，经过了非线性的加工；每个位置各自加工，互不相干。'),
    6: ('Block，叠起来', '''
把注意力（sa）和前馈网络（ffwd）合成一个类 Block，模型里叠 n_layer 个，放在 blocks 里，首尾相接。
超参数里要添上 n_layer = 3。训练出来的损失会比 v5 差得多，这是对的，下一级再救它。
建模型的写法是 BabyGPT(vocab_size, block_size, n_embd, n_head, n_layer)。
''', '深度是一个数：n_layer=1 时和 v5 完全一样，每多一层就多同样多的参数，每一层都用上了。'),
    7: ('残差连接', '''
每个子层不再取代它的输入，只在输入上添一点东西。要改的只有 Block.forward 里的两行。
''', '两个子层什么也不做时，Block 原样放过 x；穿过 16 层，梯度还到得了最底层。'),
    8: ('投影', '''
各个头的结果现在只是并排放着。给 MultiHeadAttention 添一个线性层 proj，宽度 n_embd 到 n_embd，
让每一维都能从所有的头那里取用。
''', '第 1 个头取来的东西，能影响输出的每一维；proj 是恒等变换时，和 v7 完全一样。'),
    9: ('层归一化', '''
让子层读到的数始终是一个尺度：Block 里添两个 nn.LayerNorm，ln1 管注意力，ln2 管前馈网络；
模型里再添一个 ln_f，管 lm_head。残差的主路本身不要动（pre-norm）。
''', '不管 x 放大多少倍，子层和 lm_head 读到的每个位置，均值都是 0、方差都是 1；子层什么也不做时，Block 仍原样放过 x。'),
    10: ('dropout', '''
训练时随机丢掉一些数：注意力的权重、注意力的输出、前馈网络的输出，这三处。超参数里要添上 dropout = 0.1，
各个类都从参数得到它。评估和写作时什么也不丢。
建模型的写法是 BabyGPT(vocab_size, block_size, n_embd, n_head, n_layer, dropout)。
''', '训练时同样的输入得到不同的得分；评估时没有随机性，权重相同的话和 v9 完全一样。'),
    11: ('超参数', '''
模型一个字也不改，只改数：给顶部的超参数挑更好的值（随设备而定），并且每一个都能在命令行上改，
--help 列出名称和默认值，名称或取值错了要说清楚；--data 可以换文本，--prompts 可以换开头。
''', '模型的代码和 v10 一字不差；main 按命令行上的数建模型、训练。'),
    12: ('记录和保存', '''
模型和训练都不改，只在训练循环旁边添上：用 wandb 记录配置、损失、速度和写出来的词（没有账号、没有网络也能用），
验证损失每创新低就把模型存进 model.pth（先写到临时的名字，再换过去）。
''', '种子相同，损失和 v11 一字不差。'),
}

OPENING = '''"""自己写 BabyGPT v{number}：{name}

下面是 {before} 的全部代码，照样能运行。标着 TODO 的 {todos} 处，就是 v{number} 改动的地方。

{task}

写好之后必须成立：{truth}

检查：python -m pytest tests --rung {number} --mine my_v{number}.py
运行：python my_v{number}.py
写好了再对照：git diff --no-index my_v{number}.py {answer}
"""
'''


def script(number):
    """The name of a rung; 0 is the bigram model below v1."""
    if number == 0:
        return 'simplebigrammodel_torch.py'
    return next(path.name for path in ROOT.glob('babygpt_v*.py') if re.match(rf'babygpt_v{number}[_.]', path.name))


def below(number):
    """What a learner knows the rung before by."""
    return f'v{number - 1}' if number > 1 else script(0)


def body(name):
    """The lines of a script below its docstring."""
    source = (ROOT / name).read_text(encoding='utf-8')
    return source.splitlines()[ast.parse(source).body[0].end_lineno:]


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


def practice(number):
    """The text of my_vN.py."""
    name, task, truth = TASKS[number]
    lines, todos = marked(body(script(number - 1)), body(script(number)))
    opening = OPENING.format(number=number, name=name, before=below(number), todos=todos, task=task.strip(), truth=truth,
                             answer=script(number))
    return opening + '\n'.join(lines) + '\n', todos


def main():
    parser = argparse.ArgumentParser(description='把前一级写成 my_vN.py，标出要改的地方，自己写下一级。')
    parser.add_argument('rung', metavar='N', help='要自己写的是哪一级，1 到 12')
    parser.add_argument('--force', action='store_true', help='已经有 my_vN.py 也覆盖它')
    args = parser.parse_args()
    if args.rung not in map(str, TASKS):
        sys.exit(f'没有 v{args.rung}：可以自己写的是 1 到 {max(TASKS)}。')

    number = int(args.rung)
    path = Path(f'my_v{number}.py')
    text, todos = practice(number)
    try:
        with path.open('w' if args.force else 'x', encoding='utf-8') as file:
            file.write(text)
    except FileExistsError:
        sys.exit(f'已经有 {path} 了，没有动它。要重新开始，加上 --force（里面写的会丢掉）。')
    print(f'写好了 {path}：{below(number)} 的全部代码，要改的 {todos} 处标着 TODO，任务写在开头。')
    if not Path('ci.txt').exists():
        print(f'这里没有 ci.txt：要运行 {path}，把它放在 ci.txt 旁边。')


if __name__ == '__main__':
    main()
