"""docs/results.json keeps everything, whoever else writes to it at the same time."""

import json
import math
import subprocess
import sys

from kit.files import ROOT
from kit.scripts import losses

# Keeps so many results in the file given, once the other writer is ready too.
WRITER = '''
import sys, time
from pathlib import Path
from kit import results
folder, name, other, times = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
results.RESULTS = folder / 'results.json'
(folder / name).touch()
while not (folder / other).exists():
    time.sleep(0.001)
for number in range(times):
    results.keep('runs', f'{name} {number}', {'curve': [[0, 8.0, 8.0]] * 20})
'''


def test_two_writers_at_once_lose_nothing(tmp_path, times=50):
    writers = [subprocess.Popen([sys.executable, '-c', WRITER, tmp_path, *names, str(times)], cwd=ROOT)
               for names in (('a', 'b'), ('b', 'a'))]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0]
    kept = json.loads((tmp_path / 'results.json').read_text(encoding='utf-8'))['runs']
    assert set(kept) == {f'{name} {number}' for name in 'ab' for number in range(times)}
    assert all('machine' in row for row in kept.values())
    assert not list(tmp_path.glob('*.tmp'))


def test_a_loss_that_is_no_number_is_read_as_such():
    [first, last] = losses('第     0 步  训练损失 8.5655  验证损失 8.5664\n第  1500 步  训练损失 nan  验证损失 inf\n')
    assert first == (0, 8.5655, 8.5664) and math.isnan(last[1]) and math.isinf(last[2])
