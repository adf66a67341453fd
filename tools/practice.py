"""Write the next rung yourself: put the rung below it into my_vN.py, with the places to change marked.

    python tools/practice.py 3          # writes my_v3.py into the current directory: v2, and what to do with it
    python tools/practice.py modern/16  # a rung of another ladder: writes modern/my_v16.py

The marks come from the diff between the two scripts. The file runs as it is, with ci.txt beside it.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from kit.ladders import by_address
from kit.practice import called, practice_file


def main():
    parser = argparse.ArgumentParser(description='把前一级写成 my_vN.py，标出要改的地方，自己写下一级。')
    parser.add_argument('rung', metavar='N', help='要自己写的是哪一级，例如 3，或者 modern/16')
    parser.add_argument('--force', action='store_true', help='已经有 my_vN.py 也覆盖它')
    args = parser.parse_args()
    try:
        rung = by_address(args.rung)
    except LookupError as error:
        sys.exit(f'没有这一级：{error.args[0]}')
    if not rung.practice:
        sys.exit(f'{args.rung} 没有练习。')
    name, text, todos = practice_file(rung)
    try:
        with Path(name).open('w' if args.force else 'x', encoding='utf-8', newline='\n') as file:
            file.write(text)
    except FileNotFoundError:
        sys.exit(f'这里没有文件夹 {Path(name).parent}：请在仓库的根目录里运行。')
    except FileExistsError:
        sys.exit(f'已经有 {name} 了，没有动它。要重新开始，加上 --force（里面写的会丢掉）。')
    print(f'写好了 {name}：{called(rung.below)} 的全部代码，要改的 {todos} 处标着 TODO，任务写在开头。')
    if not Path('ci.txt').exists():
        print(f'这里没有 ci.txt：要运行 {name}，把它放在 ci.txt 旁边。')


if __name__ == '__main__':
    main()
