"""Take the pictures of the service that its page shows: docs/screenshots/scratch/*.png.

    python tools/screenshots.py

Starts scratch/scratch_v9_serve.py on a free port, opens its page in a headless Chromium, once wide and light and once as a
phone and dark, and writes a poem with a fixed seed. Needs selenium, Pillow, chromium, chromedriver, and a Chinese font. In each picture
is the hash of the page that it shows; tests/scratch/test_screenshots.py compares it with the page as it is.
"""

import base64
import io
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from kit.files import DOCS, ROOT, file_hash
from kit.ladders import LADDERS

SERVE = LADDERS['scratch']['v9']
PAGE = SERVE.path.replace('.py', '.html')
FOLDER = DOCS / 'screenshots' / 'scratch'
VIEWS = {'serve.png': {'width': 720, 'height': 560, 'dark': False, 'until': None},
         'serve.phone.png': {'width': 380, 'height': 700, 'dark': True, 'until': 30}}  # until: it is taken when so many characters are there


@contextmanager
def service():
    """The address of a service that runs meanwhile."""
    process = subprocess.Popen([sys.executable, SERVE.path, '--port', '0'], cwd=ROOT, stdout=subprocess.PIPE, encoding='utf-8')
    try:
        yield re.search(r'http://\S+:\d+', process.stdout.readline())[0]
    finally:
        process.terminate()
        process.wait()


@contextmanager
def browser(width, height):
    from selenium import webdriver
    options = webdriver.ChromeOptions()
    for option in ('--headless=new', '--no-sandbox', '--disable-gpu', '--hide-scrollbars', '--lang=zh-CN', '--accept-lang=zh-CN', f'--window-size={width},{height}'):
        options.add_argument(option)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which('chromedriver')))
    try:
        yield driver
    finally:
        driver.quit()


def picture(driver, address, width, height, dark, until):
    """The page after it has written a poem from 春江 with seed 1, or so many characters of it, as PNG."""
    from selenium.webdriver.support.ui import WebDriverWait
    driver.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', {'width': width, 'height': height, 'deviceScaleFactor': 1, 'mobile': False})
    driver.execute_cdp_cmd('Emulation.setEmulatedMedia', {'features': [{'name': 'prefers-color-scheme', 'value': 'dark' if dark else 'light'}]})
    driver.get(address)
    driver.execute_script("""
        const read = ReadableStreamDefaultReader.prototype.read, until = arguments[0]
        if (until) ReadableStreamDefaultReader.prototype.read = function () {  // no more comes
          return find('poem').textContent.length < until ? read.call(this) : new Promise(() => {})
        }
        if (document.documentElement.lang !== 'zh') find('language').click()
        form.elements.seed.value = 1
        find('prompt').value = '春江'
        form.requestSubmit()""", until)
    if until:
        WebDriverWait(driver, 60).until(lambda _: driver.execute_script("return find('poem').textContent.length") >= until)
    else:
        WebDriverWait(driver, 60).until(lambda _: driver.execute_script("return find('poem').textContent.length > 2 && find('stop').hidden"))
        driver.execute_script("find('poem').textContent = find('poem').textContent.trim()")
    return base64.b64decode(driver.execute_cdp_cmd('Page.captureScreenshot', {'format': 'png'})['data'])


def save(path, png):
    """Few colours and the hash of the page: a small file that says what it shows."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo
    said = PngInfo()
    said.add_text('Description', file_hash(PAGE))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.open(io.BytesIO(png)).convert('RGB').quantize(32, dither=Image.Dither.NONE).save(path, optimize=True, pnginfo=said)


def main():
    with service() as address:
        for name, view in VIEWS.items():
            with browser(view['width'], view['height']) as driver:
                save(FOLDER / name, picture(driver, address, **view))
            print(FOLDER / name, (FOLDER / name).stat().st_size, 'bytes')


if __name__ == '__main__':
    main()
