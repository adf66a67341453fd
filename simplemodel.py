"""最小的语言模型：数一数每个字后面跟过哪些字，写的时候按次数抽下一个字。

运行（不到 3 秒，只用标准库）：python simplemodel.py
逐行讲解：simplemodel_with_comments.py
"""

import random
import sys
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

path = Path(__file__).with_name('ci.txt')
try:
    text = path.read_text(encoding='utf-8')
except (OSError, UnicodeDecodeError) as error:
    sys.exit(f'读不了 {path}：{error}')
if len(text) < 2:
    sys.exit(f'{path} 是空的，没有可数的字。')

counts = defaultdict(Counter)
for char, next_char in pairwise(text):
    counts[char][next_char] += 1

random.seed(1337)
for prompt in ['春江', '往事']:
    poem = prompt
    for _ in range(100):
        followers = counts[poem[-1]]
        if not followers:
            break
        poem += random.choices(list(followers), weights=followers.values())[0]
    print(poem, end='\n\n')
