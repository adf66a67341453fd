"""docs/results.json keeps everything, whoever else writes to it at the same time."""

import json
import subprocess
import sys

from kit.files import ROOT

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
