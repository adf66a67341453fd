"""The service as its users meet it: a real server in a process of its own, real clients, and what they do wrong."""

import json
import re
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest

from kit.files import read
from kit.scripts import install, module_of, run, start
from tests.scratch.models import LADDER, TINY, save_model
from tests.scratch.test_alone import NO_TORCH
from tests.test_pages import wait_until, width

SERVE = LADDER['v9']
HANGS = 60  # seconds after which what should come has not come: no test waits so long unless it fails
POEMS = ''.join(sorted('\n 春江往事浣溪沙'))  # few characters: the blank line that ends a poem comes soon
ENDLESS = POEMS.replace('\n', '')  # a model that knows no line ends never comes to the end of a poem


def installed(folder, vocabulary=POEMS, **constants):
    """The script in a folder with a tiny model and the page; where there is no torch, and nothing can be unpickled."""
    save_model(folder / 'pretrained' / 'model.safetensors', vocabulary, **TINY)
    path = install(SERVE.path, folder, '', **constants)
    page = path.with_suffix('.html')
    page.write_text(read(f'scratch/{page.name}'), encoding='utf-8')
    path.with_name('alone.py').write_text(NO_TORCH, encoding='utf-8')
    return path


class Running:
    """A server that runs: its process, where it listens, and a client."""

    def __init__(self, path, *args):
        self.process = start(path.with_name('alone.py'), path, '--port', 0, *args)
        line = self.process.stdout.readline()
        found = re.search(r'http://\S+:(\d+)', line)
        assert found, (line, self.process.stderr.read())
        self.port = int(found[1])
        self.client = self.new_client()
        assert self.health()['poems'] == 0

    def new_client(self):
        return httpx.Client(base_url=f'http://127.0.0.1:{self.port}', timeout=HANGS, trust_env=False)

    def health(self):
        return self.client.get('/health').json()

    def wait_for(self, poems):
        deadline = time.monotonic() + HANGS
        while self.health()['poems'] != poems:
            assert time.monotonic() < deadline, self.health()
            time.sleep(0.02)

    def end(self):
        """Stop it with Ctrl-C; what it said on stderr."""
        self.process.send_signal(signal.SIGINT)
        _, said = self.process.communicate(timeout=HANGS)
        assert self.process.returncode == 0
        return said


@contextmanager
def running(path, *args):
    server = Running(path, *args)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.communicate()
        server.client.close()


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('serve')


@pytest.fixture(scope='module')
def server(folder):
    with running(installed(folder)) as server:
        yield server


@pytest.fixture(scope='module')
def endless_path(tmp_path_factory):
    return installed(tmp_path_factory.mktemp('endless'), ENDLESS, max_length=10 ** 9, max_poems=3)


@pytest.fixture
def endless(endless_path):
    """A server that writes for ever, at most three at a time."""
    with running(endless_path) as server:
        yield server


def events_of(lines):
    """The characters of a stream, and how it ended, from its lines."""
    events = '\n'.join(lines).split('\n\n')
    assert events.pop().strip('\n') == '' and re.fullmatch(r'event: end\ndata: "\w+"', events[-1])
    assert all(event.startswith('data: ') for event in events[:-1])
    return [json.loads(event[6:]) for event in events[:-1]], json.loads(events[-1].split('data: ')[1])


def streamed(client, **asked):
    with client.stream('GET', '/stream', params=asked) as response:
        assert response.status_code == 200 and response.headers['content-type'].startswith('text/event-stream')
        return events_of([*response.iter_lines(), ''])


# What it writes

@pytest.fixture(scope='module')
def expected(folder, server):
    """What v8 writes with the same weights and the same seed, up to the blank line."""
    below = module_of(LADDER['v8'])
    model, tokenizer = below.load_model(folder / 'pretrained' / 'model.safetensors')

    def poems(prompt, seed, max_new_tokens=200, num_samples=1, **options):
        np.random.seed(seed)
        steps = model.generate(np.tile(tokenizer.encode(prompt), (num_samples, 1)), max_new_tokens, **options)
        texts = [tokenizer.decode(column) for column in np.stack(list(steps), axis=1)]
        return [prompt + re.match(r'(?s).*?\n\n|.*', text)[0] for text in texts]

    return poems


def test_one_poem_or_several_up_to_the_blank_line(server, expected):
    options = {'prompt': '春江', 'seed': 3, 'num_samples': 4, 'max_new_tokens': 300}
    texts = expected(**options)
    assert len({len(text) for text in texts}) > 1  # some end before others
    assert server.client.post('/generate', json=options).json() == {'poems': [text.strip('\n') for text in texts]}
    for changes in ({'temperature': 0.5}, {'top_k': 2}, {'top_p': 0.5}, {'max_new_tokens': 3}, {'prompt': '\n\n浣溪沙 '}):
        asked = options | changes
        assert server.client.post('/generate', json=asked).json()['poems'] == [text.strip('\n') for text in expected(**asked)]
        del asked['num_samples']
        chars, end = streamed(server.client, **asked)
        assert [asked['prompt'] + ''.join(chars)] == expected(**asked) and end == 'done' and {len(char) for char in chars} == {1}
    unlike = [server.client.post('/generate', json={'prompt': '春', 'max_new_tokens': 50}).json()['poems'] for _ in range(3)]
    assert unlike[0] != unlike[1] or unlike[1] != unlike[2]  # without a seed


def test_32_clients_at_once_get_each_their_own(server, expected):
    """Over and over, by both ways: every answer is whole, and what it would be if nobody else were there."""
    def ask(number):
        with server.new_client() as client:
            for turn in range(3):
                asked = {'prompt': POEMS[2 + number % 7] + '春', 'seed': 100 * number + turn, 'max_new_tokens': 60}
                if (number + turn) % 2:
                    found = client.post('/generate', json=asked).json()['poems']
                else:
                    found = [(asked['prompt'] + ''.join(streamed(client, **asked)[0])).strip('\n')]
                yield found, asked

    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda number: list(ask(number)), range(32)))
    for found, asked in (answer for each in answers for answer in each):
        assert found == [expected(**asked)[0].strip('\n')]
    server.wait_for(poems=0)


# What is wrong with a request

def assert_refused(response, status, *words):
    """That status, and a sentence in each language that has the words."""
    assert response.status_code == status, response.text
    detail = response.json()['detail']
    assert set(detail) == {'zh', 'en'} and re.search('[\u4e00-\u9fff]', detail['zh'])
    assert all(word in text for word in words for text in detail.values()), detail


@pytest.mark.parametrize('asked, words', [
    ({}, ['prompt', '100']), ({'prompt': ''}, ['prompt', '100']), ({'prompt': '春' * 101}, ['prompt', '100']), ({'prompt': None}, ['prompt']),
    ({'prompt': 3}, ['prompt']), ({'prompt': ['春']}, ['prompt']), ({'prompt': '春Z江Q'}, ['Q Z']), ({'prompt': '春😀'}, ['😀']),
    ({'max_new_tokens': 0}, ['max_new_tokens', '500']), ({'max_new_tokens': 501}, ['max_new_tokens', '500']),
    ({'max_new_tokens': 1.5}, ['max_new_tokens']), ({'max_new_tokens': 'x'}, ['max_new_tokens']), ({'num_samples': 5}, ['num_samples', '4']),
    ({'num_samples': 0}, ['num_samples']), ({'temperature': 0}, ['temperature', '0.01']), ({'temperature': float('nan')}, ['temperature']),
    ({'temperature': float('inf')}, ['temperature']), ({'top_k': 0}, ['top_k']), ({'top_p': 0}, ['top_p']), ({'top_p': 1.1}, ['top_p']),
    ({'seed': -1}, ['seed']), ({'seed': 2 ** 32}, ['seed']), ({'prompts': '春'}, ['prompts', 'prompt max_new_tokens']),
    ({'top_k': 0, 'seed': -1}, ['top_k', 'seed'])], ids=str)
def test_wrong_requests_are_told_what_is_wrong(server, asked, words):
    asked = ({'prompt': '春'} if asked else {}) | asked
    body = json.dumps(asked)
    assert_refused(server.client.post('/generate', content=body, headers={'Content-Type': 'application/json'}), 422, *words)
    if not {'num_samples', 'prompts'} & set(asked) and isinstance(asked.get('prompt', ''), str):
        assert_refused(server.client.get('/stream', params=asked), 422, *words)
    assert server.health()['poems'] == 0


def test_a_stream_has_one_poem(server):
    refused = server.client.get('/stream', params={'prompt': '春', 'num_samples': 2})
    assert_refused(refused, 422, 'num_samples')
    assert all(said.count('num_samples') == 1 and 'top_p' in said for said in refused.json()['detail'].values())


@pytest.mark.parametrize('body', ['', '{', '[]', '3', 'null', '"春"', '{"prompt": "春"', "{'prompt': '春'}", b'\xff\xfe', b'{"prompt": "\xff"}',
                                  '[' * 9000, '春' * 100])
def test_what_is_no_json_is_refused(server, body):
    assert_refused(server.client.post('/generate', content=body, headers={'Content-Type': 'application/json'}), 422, 'JSON')


def test_a_half_of_a_character_and_other_types_are_refused(server):
    client, header = server.client, {'Content-Type': 'application/json'}
    assert_refused(client.post('/generate', content=r'{"prompt": "\ud800"}', headers=header), 422, 'prompt')
    assert_refused(client.post('/generate', content='{"prompt": "春"}', headers={'Content-Type': 'text/plain'}), 422, 'JSON')
    assert client.get('/generate').status_code == 405 and client.get('/none').status_code == 404


def test_a_body_of_10_megabytes_is_refused(server):
    """Whether it says how long it is or not; the answer arrives, and the server is well."""
    header = {'Content-Type': 'application/json'}
    for content in (b'{"prompt": "' + b'x' * 10_000_000, (b'x' * 100_000 for _ in range(100))):
        assert_refused(server.client.post('/generate', content=content, headers=header), 413, '10000')
    assert_refused(server.client.post('/generate', content=b'"' + b'x' * 10_000, headers=header), 413, '10000')
    assert_refused(server.client.post('/generate', content=b'"' + b'x' * 9_999, headers=header), 422, 'JSON')
    assert server.client.post('/generate', json={'prompt': '春', 'max_new_tokens': 1}).status_code == 200


# Clients that go, that stay, that do not read

def reading(response):
    """The lines of a stream whose first character has come; the stream is closed when nobody holds them any more."""
    lines = response.iter_lines()
    assert next(lines).startswith('data: ')
    return lines


def test_whoever_goes_stops_their_poem(endless):
    with endless.new_client() as client, client.stream('GET', '/stream', params={'prompt': '春', 'max_new_tokens': 10 ** 9}) as response:
        lines = reading(response)
        assert endless.health()['poems'] == 1 and next(lines) == ''
    endless.wait_for(poems=0)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f'http://127.0.0.1:{endless.port}/generate', json={'prompt': '春', 'max_new_tokens': 10 ** 9}, timeout=0.5, trust_env=False)
    endless.wait_for(poems=0)


def test_beyond_the_limit_one_is_asked_to_come_back(endless):
    with ExitStack() as stack:
        streams = [stack.enter_context(endless.client.stream('GET', '/stream', params={'prompt': '春', 'max_new_tokens': 10 ** 9}))
                   for _ in range(3)]
        lines = [reading(response) for response in streams]
        for refused in (endless.client.get('/stream', params={'prompt': '春'}), endless.client.post('/generate', json={'prompt': '春'})):
            assert_refused(refused, 503, '3')
            assert int(refused.headers['retry-after']) > 0
        assert endless.health() == {'poems': 3, 'max_poems': 3}
        lines.pop().close()
        endless.wait_for(poems=2)
        assert endless.client.post('/generate', json={'prompt': '春', 'max_new_tokens': 2}).status_code == 200
    endless.wait_for(poems=0)


def stalled(port):
    """A client that asks for a poem without end and never reads it."""
    client = socket.create_connection(('127.0.0.1', port))
    client.sendall(b'GET /stream?prompt=%E6%98%A5&max_new_tokens=1000000000 HTTP/1.1\r\nHost: x\r\n\r\n')
    return client


def test_whoever_does_not_read_blocks_nobody(endless):
    with stalled(endless.port), stalled(endless.port):
        endless.wait_for(poems=2)
        for _ in range(8):
            asked = {'prompt': '春', 'max_new_tokens': 30}
            assert len(endless.client.post('/generate', json=asked).json()['poems'][0]) == 31
            assert len(streamed(endless.client, **asked)[0]) == 30
    endless.wait_for(poems=0)


# Its end

def test_ctrl_c_ends_the_poems_that_are_being_written(endless):
    """A stream is told that it was stopped; neither it, nor who waits for a whole poem, nor who sends or reads nothing keeps it up."""
    with ThreadPoolExecutor(2) as pool, stalled(endless.port), socket.create_connection(('127.0.0.1', endless.port)) as silent:
        silent.sendall(b'POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{')
        asked = {'prompt': '春', 'max_new_tokens': 10 ** 9}
        stream = pool.submit(streamed, endless.client, **asked)
        whole = pool.submit(endless.new_client().post, '/generate', json=asked)
        endless.wait_for(poems=3)
        said = endless.end()
        chars, end = stream.result()
        assert chars and end == 'stopped' and said == ''
        assert_refused(whole.result(), 503)


def test_after_a_kill_it_starts_again_on_the_same_port(endless, endless_path):
    with stalled(endless.port):
        endless.wait_for(poems=1)
        second = run(endless_path, '--port', endless.port)
        assert second.returncode == 1 and str(endless.port) in second.stderr and len(second.stderr.splitlines()) == 1
        endless.process.kill()
        endless.process.wait()
    with running(endless_path, '--port', endless.port) as again:
        assert again.port == endless.port and again.client.post('/generate', json={'prompt': '春', 'max_new_tokens': 1}).status_code == 200
        assert again.end() == ''


@pytest.mark.parametrize('args, words, code', [
    (['--port', 65536], ['--port'], 2), (['--port', -1], ['--port'], 2), (['--host', 'no.such.host.invalid'], ['no.such.host.invalid'], 1),
    (['--host', '203.0.113.1', '--port', 0], ['203.0.113.1'], 1), (['--model', 'none.safetensors'], ['none.safetensors', '找不到'], 1)], ids=str)
def test_what_it_cannot_start_with_is_named(endless_path, args, words, code):
    result = run(endless_path, *args)
    assert result.returncode == code and not result.stdout and len(result.stderr.splitlines()) == code
    assert all(word in result.stderr for word in words)


def test_only_this_machine_can_reach_it_unless_told_otherwise(server):
    assert server.process.poll() is None
    sockets = [line.split() for line in Path('/proc/net/tcp').read_text().splitlines()[1:]]
    listening = [address for _, address, _, state, *_ in sockets if state == '0A' and address.endswith(f':{server.port:04X}')]
    assert listening == [f'0100007F:{server.port:04X}']


# The page

def test_the_page_needs_nothing_from_outside_and_speaks_both_languages(server):
    response = server.client.get('/')
    assert response.status_code == 200 and response.headers['content-type'].startswith('text/html')
    text = response.text
    assert text == read('scratch/scratch_v9_serve.html') and not re.search(r'//[\w.]+\.\w|@import|<script src|<link rel="stylesheet', text)
    chinese, english = re.findall(r'data-(?:label-)?zh="([^"]+)"', text), re.findall(r'data-(?:label-)?en="([^"]+)"', text)
    assert len(chinese) == len(english) > 8
    assert all(re.search('[\u4e00-\u9fff]', each) for each in chinese) and not any(re.search('[\u4e00-\u9fff]', each) for each in english)
    tunes = re.findall("'(\\w+)'", re.search(r'const tunes = \[(.*?)\]', text)[1])
    assert len(tunes) > 5 and all(read('ci.txt').count(f'\n\n{tune} ') > 100 for tune in tunes)


def test_its_docs_name_every_part_of_a_request(server):
    assert server.client.get('/docs').status_code == 200
    schemas = server.client.get('/openapi.json').json()
    assert {'/generate', '/stream', '/health'} == set(schemas['paths'])
    assert list(schemas['components']['schemas']['PoemsRequest']['properties']) == list(module_of(SERVE).PoemsRequest.model_fields)


# In a browser

def find(browser, name):
    return browser.find_element('id', name)


def background(browser, scheme):
    browser.execute_cdp_cmd('Emulation.setEmulatedMedia', {'features': [{'name': 'prefers-color-scheme', 'value': scheme}]})
    return browser.execute_script('return getComputedStyle(document.body).backgroundColor')


@pytest.mark.browser
def test_the_page_writes_a_tune_on_a_phone_in_two_languages_by_day_and_by_night(browser, server):
    width(browser, 380)
    browser.get_log('performance'), browser.get_log('browser')
    browser.get(f'http://127.0.0.1:{server.port}/')
    if browser.execute_script('return document.documentElement.lang') == 'en':
        find(browser, 'language').click()
    assert find(browser, 'write').text == '写' and browser.title == '写词'
    [tune] = [button for button in browser.find_elements('css selector', '#tunes button') if button.text == '浣溪沙']
    tune.click()
    wait_until(browser, lambda _: find(browser, 'poem').text and not find(browser, 'stop').is_displayed())
    assert find(browser, 'poem').get_property('textContent').startswith('浣溪沙 ') and len(find(browser, 'poem').text) > 4
    assert find(browser, 'said').text == ''

    find(browser, 'prompt').send_keys('春Z')
    find(browser, 'write').click()
    wait_until(browser, lambda _: find(browser, 'said').text)
    assert find(browser, 'said').text == '词表里没有这些字：Z' and find(browser, 'poem').text == '春Z'
    find(browser, 'language').click()
    assert find(browser, 'write').text == 'Write' and find(browser, 'said').text == 'The model does not know these characters: Z'
    browser.find_element('tag name', 'summary').click()
    assert browser.execute_script('return document.documentElement.scrollWidth') <= 380
    assert background(browser, 'light') != background(browser, 'dark')

    entries = [json.loads(entry['message'])['message'] for entry in browser.get_log('performance')]
    asked = [entry['params']['request']['url'] for entry in entries if entry['method'] == 'Network.requestWillBeSent']
    assert asked and all(url.startswith((f'http://127.0.0.1:{server.port}/', 'data:')) for url in asked)
    assert not [entry for entry in browser.get_log('browser') if '422' not in entry['message']]


@pytest.mark.browser
def test_the_poem_grows_before_the_eyes_until_it_is_stopped(browser, endless):
    browser.get(f'http://127.0.0.1:{endless.port}/')
    browser.execute_script("document.getElementsByName('max_new_tokens')[0].value = '1000000000'")
    find(browser, 'prompt').send_keys('春')
    find(browser, 'write').click()
    lengths = []
    for _ in range(2):
        wait_until(browser, lambda _: len(find(browser, 'poem').text) > sum(lengths) + 20)
        lengths.append(len(find(browser, 'poem').text))
    assert endless.health()['poems'] == 1
    find(browser, 'stop').click()
    endless.wait_for(poems=0)
    wait_until(browser, lambda _: not find(browser, 'stop').is_displayed())
    assert find(browser, 'said').text == ''
