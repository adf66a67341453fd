"""simplemodel.py 的逐行讲解：程序完全相同，只多了注释。

语言模型只回答一个问题：已经写了这些字，下一个字是什么？
它的回答不是某一个字，而是每个字的可能性有多大。会回答这个问题，就会写作：
抽一个字接在后面，再问一遍，再抽一个，如此反复。

这里是最简单的一种回答：只看最后一个字。读一遍宋词，数出每个字后面跟过哪些字、各多少次；
「江」后面跟过 1,040 次「南」、261 次「上」，那么写到「江」时，抽中「南」的机会约是「上」的四倍。
只看一对相邻的字，所以叫二元（bigram）模型。

运行（不到 3 秒，只用标准库）：python simplemodel_with_comments.py
"""

import random
import sys
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

# 语料：一万八千多首宋词，拼成一个一百七十多万字的长字符串。
# 标点、空格、换行也都是「字」：模型要自己学会在哪里断句、在哪里另起一首。
path = Path(__file__).with_name('ci.txt')
try:
    text = path.read_text(encoding='utf-8')
except (OSError, UnicodeDecodeError) as error:
    sys.exit(f'读不了 {path}：{error}')
if len(text) < 2:
    sys.exit(f'{path} 是空的，没有可数的字。')

# 训练：counts['江']['南'] 是「南」紧跟在「江」后面的次数。
# pairwise('春江潮水') 依次给出 ('春', '江')、('江', '潮')、('潮', '水')：每一对相邻的字。
# 「下一个字」就是现成的答案，不需要人来标注：大模型的预训练也是这样得到答案的。
#
# 不同的字有 4,543 个，可能的字对有两千多万个，出现过的只有三十一万。
# 所以用字典只记出现过的；开一张 4,543 × 4,543 的表，九成八以上的格子都是零。
counts = defaultdict(Counter)
for char, next_char in pairwise(text):
    counts[char][next_char] += 1

# 写作：从提示的最后一个字开始，反复抽下一个字。
# 抽签而不是总取次数最多的字，否则很快就会在几个字之间兜圈子。
# 种子固定，每次运行抽到的签就相同。
random.seed(1337)
for prompt in ['春江', '往事']:
    poem = prompt
    for _ in range(100):
        followers = counts[poem[-1]]
        # 这个字后面从没有跟过别的字，就写不下去了
        if not followers:
            break
        # 按次数抽：跟过 1,040 次的，抽中的机会是跟过 1 次的 1,040 倍
        poem += random.choices(list(followers), weights=followers.values())[0]
    print(poem, end='\n\n')

# 读一读它写的：相邻两个字往往像样，连起来却不成话，因为它写每个字时，只记得前一个字。
# 要记得更多，数起来就要讲究：三个字一组有九百多亿种组合，绝大多数一次也没出现过（能做到多好，见 prelude/）。
# 后面的梯子换一种办法：不数，而是学。
