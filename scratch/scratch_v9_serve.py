"""没有 PyTorch v9：一个写词的网站

v8 的模型不变，换一个人来用它：不在终端里，在浏览器里，也许几十个人同时来。FastAPI 收发请求，uvicorn 听着端口。
四个地址：/ 是网页，/generate 收 JSON、回 JSON，/stream 写一个字送一个字（server-sent events），/health 说忙不忙；
/docs 是 FastAPI 按下面的类型自己写的说明（那一页要从网上取样式，别的都不用网）。

怎样不乱：每首词轮流写，一次一个字，由一把锁排队，谁也不用等谁写完；算在另一个线程里，收发不用等着算；
每首词有自己的随机源，同样的种子写同样的词，旁边有多少人都一样；人走了就停笔，位子满了就请人稍后再来。
来的东西都不可信：长度、个数、请求体的大小都有上限，不对就用一句话说清楚哪里不对。

你会看到：网页上的字一个一个出来；同时开几个窗口，几首词一起往下写。按 Ctrl-C，正在写的停笔，随即退出。

运行：python scratch/scratch_v9_serve.py
然后打开 http://127.0.0.1:8000，或者：curl -d '{"prompt": "春江"}' -H 'Content-Type: application/json' http://127.0.0.1:8000/generate
和上一级对照：git diff --no-index scratch/scratch_v8_kvcache.py scratch/scratch_v9_serve.py
"""

import argparse
import asyncio
import contextlib
import json
import socket
import sys
from functools import reduce
from pathlib import Path
from typing import Annotated

import numpy as np
import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError, safe_open

model_path = Path(__file__).parent.with_name('pretrained') / 'model.safetensors'
max_poems = 64  # 同时最多写多少首
max_length = 500  # 一首最多写多少个字
max_body = 10_000  # 请求体最多多少字节
page_path = Path(__file__).with_suffix('.html')


def linear(x, weight, bias):
    """x @ weight.T + bias；x 的最后一维和 weight 的最后一维一样宽，bias 可以是 None。"""
    rows = x.reshape(-1, weight.shape[1])
    out = rows @ weight.T
    if bias is not None:
        out += bias
    return out.reshape(*x.shape[:-1], len(weight))


def layer_norm(x, weight, bias, eps):
    """x 的最后一维减去均值，除以标准差，再乘 weight、加 bias（Ba 等 2016，第 3 节）。"""
    normal = x - x.mean(axis=-1, keepdims=True)
    scale = ((normal * normal).mean(axis=-1, keepdims=True) + eps) ** -0.5
    normal *= scale
    return normal * weight + bias


class Module:
    """模型的零件。属性里的数组是它的参数，属性里的 Module 是它的零件；forward 里写怎样从输入算出输出。"""

    def __call__(self, *args, **kwargs):
        return self.forward(*args, **kwargs)

    def named_parameters(self, prefix=''):
        """一对一对给出参数的名字和参数，零件里的也在内；名字是找到它的路，如 lm_head.weight。"""
        for name, value in vars(self).items():
            if isinstance(value, np.ndarray):
                yield prefix + name, value
            elif isinstance(value, Module):
                yield from value.named_parameters(f'{prefix}{name}.')

    def load_state_dict(self, state):
        """装入 {名字: 数组}；名字或形状对不上就引发 ValueError，什么也不装。"""
        parameters = dict(self.named_parameters())
        if parameters.keys() != state.keys():
            raise ValueError(f'参数的名字对不上，只有一边有的：{" ".join(sorted(parameters.keys() ^ state.keys()))}')
        arrays = {name: np.asarray(state[name]).astype(p.dtype) for name, p in parameters.items()}
        for name, p in parameters.items():
            if arrays[name].shape != p.shape:
                raise ValueError(f'{name} 的形状应是 {p.shape}，给的却是 {arrays[name].shape}')
        for name, p in parameters.items():
            p[...] = arrays[name]


class ModuleList(Module):
    """一列零件，名字是 0、1、2……"""

    def __init__(self, modules):
        for i, module in enumerate(modules):
            setattr(self, str(i), module)

    def __iter__(self):
        return (value for value in vars(self).values() if isinstance(value, Module))

    def __len__(self):
        return sum(1 for _ in self)

    def __getitem__(self, i):
        return list(self)[i]


class Sequential(ModuleList):
    """一个接一个地算：前一个的输出是后一个的输入。"""

    def __init__(self, *modules):
        super().__init__(modules)

    def forward(self, x):
        return reduce(lambda x, module: module(x), self, x)


class Linear(Module):
    """线性层：一层权重 weight，一层偏置 bias；bias=False 时没有偏置。"""

    def __init__(self, in_features, out_features, bias=True):
        self.weight = np.empty((out_features, in_features), np.float32)  # 先留出地方，load_state_dict 再装入
        self.bias = np.empty(out_features, np.float32) if bias else None

    def forward(self, x):
        return linear(x, self.weight, self.bias)


class Embedding(Module):
    """一张表，第 i 行是 i 号字的嵌入。"""

    def __init__(self, num_embeddings, embedding_dim):
        self.weight = np.empty((num_embeddings, embedding_dim), np.float32)

    def forward(self, idx):
        return self.weight[idx]


class LayerNorm(Module):
    """归一化：每个位置的数变成均值 0、方差 1，再由 weight 和 bias 定出新的大小。"""

    def __init__(self, size, eps=1e-5):
        self.eps = eps
        self.weight = np.empty(size, np.float32)
        self.bias = np.empty(size, np.float32)

    def forward(self, x):
        return layer_norm(x, self.weight, self.bias, self.eps)


class ReLU(Module):
    """负数变成 0。"""

    def forward(self, x):
        return np.maximum(x, 0)


class Tokenizer:
    """字和编号互换：一个字就是一个 token，编号是它按 Unicode 排序后的位置。"""

    def __init__(self, text):
        self.chars = sorted(set(text))
        self.ids = {char: i for i, char in enumerate(self.chars)}
        self.vocab_size = len(self.chars)

    def encode(self, text):
        """文字变成编号的列表；有词表里没有的字，就引发 ValueError，说出是哪些字。"""
        unknown = set(text) - self.ids.keys()
        if unknown:
            raise ValueError(f'词表里没有这些字：{" ".join(sorted(unknown))}')
        return [self.ids[char] for char in text]

    def decode(self, ids):
        """编号变回文字。"""
        return ''.join(self.chars[i] for i in ids)


def softmax(x, dim):
    """把 dim 那一维的得分变成概率：都是正数，加起来是 1。"""
    e = np.exp(x - x.max(axis=dim, keepdims=True))
    return e / e.sum(axis=dim, keepdims=True)


def attention(q, k, v, future):
    """每个头里 softmax(q @ k.T / √head_size + future) @ v；q 是 (B, n_head, T, head_size)，k、v 是 (B, n_head, S, head_size)。"""
    scores = (q * q.shape[-1] ** -0.5) @ k.swapaxes(-2, -1) + future  # (B, n_head, T, S)
    return softmax(scores, dim=-1) @ v  # (B, n_head, T, head_size)


def keep_top_k(logits, k):
    """只留得分最高的 k 个（和第 k 个一样高的都留）。"""
    lowest = np.sort(logits, axis=-1)[:, -min(k, logits.shape[-1]), None]  # (B, 1)
    return np.where(logits < lowest, -np.inf, logits)  # (B, V)


def keep_top_p(logits, p):
    """从最可能的往下留，留到概率加起来够 p 为止（Holtzman 等 2020，3.1 节）。"""
    order = (-logits).argsort(axis=-1)  # (B, V)
    probs = softmax(np.take_along_axis(logits, order, axis=-1), dim=-1)  # (B, V)
    enough = probs.cumsum(axis=-1) - probs >= p  # (B, V)
    return np.where(np.take_along_axis(enough, order.argsort(axis=-1), axis=-1), -np.inf, logits)  # (B, V)


class MultiHeadAttention(Module):
    """多头注意力：同样的宽度切成几个头，每头宽 head_size，按自己的 query、key、value 看上文（Vaswani 等 2017，3.2.2 节）。"""

    def __init__(self, n_embd, n_head):
        self.n_head = n_head
        self.query = Linear(n_embd, n_embd, bias=False)
        self.key = Linear(n_embd, n_embd, bias=False)
        self.value = Linear(n_embd, n_embd, bias=False)
        self.proj = Linear(n_embd, n_embd)

    def forward(self, x, cache, start):
        # 前 start 个位置的 key 和 value 已经在缓存里，x 只是新来的 T 个位置，算好了接着往里写；S = start + T
        keys, values = cache  # (B, n_head, block_size, head_size)
        B, T, n_embd = x.shape
        end = start + T
        q = self.query(x).reshape(B, T, self.n_head, -1).swapaxes(1, 2)  # (B, n_head, T, head_size)
        k = self.key(x).reshape(B, T, self.n_head, -1).swapaxes(1, 2)  # (B, n_head, T, head_size)
        v = self.value(x).reshape(B, T, self.n_head, -1).swapaxes(1, 2)  # (B, n_head, T, head_size)
        keys[:, :, start:end] = k
        values[:, :, start:end] = v
        k = keys[:, :, :end]  # (B, n_head, S, head_size)
        v = values[:, :, :end]  # (B, n_head, S, head_size)
        future = np.triu(np.full((T, end), float('-inf'), np.float32), k=start + 1)  # (T, S)
        out = attention(q, k, v, future)  # (B, n_head, T, head_size)
        out = out.swapaxes(1, 2).reshape(B, T, n_embd)  # (B, T, n_embd)
        return self.proj(out)  # (B, T, n_embd)


class FeedForward(Module):
    """前馈网络：每个位置单独加工取来的信息，先放宽到 4 倍，ReLU 之后再收回来。"""

    def __init__(self, n_embd):
        self.net = Sequential(
            Linear(n_embd, 4 * n_embd),
            ReLU(),
            Linear(4 * n_embd, n_embd),
        )

    def forward(self, x):
        return self.net(x)  # (B, T, n_embd)


class Block(Module):
    """一层：先用注意力互相交流，再用前馈网络各自加工。"""

    def __init__(self, n_embd, n_head):
        self.sa = MultiHeadAttention(n_embd, n_head)
        self.ffwd = FeedForward(n_embd)
        self.ln1 = LayerNorm(n_embd)
        self.ln2 = LayerNorm(n_embd)

    def forward(self, x, cache, start):
        x = x + self.sa(self.ln1(x), cache, start)  # (B, T, n_embd)
        x = x + self.ffwd(self.ln2(x))  # (B, T, n_embd)
        return x


class BabyGPT(Module):
    """从每个位置的字算出下一个字的得分；反复取下一个字，就是写作。"""

    def __init__(self, vocab_size, block_size, n_embd, n_head, n_layer):
        self.block_size = block_size
        self.token_embedding_table = Embedding(vocab_size, n_embd)
        self.position_embedding_table = Embedding(block_size, n_embd)
        self.blocks = Sequential(*[Block(n_embd, n_head) for _ in range(n_layer)])
        self.ln_f = LayerNorm(n_embd)
        self.lm_head = Linear(n_embd, vocab_size)
        self.cache_shape = (n_head, block_size, n_embd // n_head)

    def empty_cache(self, batch_size):
        """每层一份缓存：给 key 和 value 各留出 block_size 个位置，算出来再往里写。"""
        shape = (batch_size, *self.cache_shape)
        return [(np.empty(shape, np.float32), np.empty(shape, np.float32)) for _ in self.blocks]

    def forward(self, idx, cache, start):
        """idx (B, T) 是排在缓存里 start 个字后面的字；把它们也写进缓存，返回它们的得分 (B, T, V)。"""
        x = self.token_embedding_table(idx)  # (B, T, n_embd)
        positions = np.arange(start, start + idx.shape[1])  # (T,)
        x = x + self.position_embedding_table(positions)  # (B, T, n_embd)
        for block, block_cache in zip(self.blocks, cache):
            x = block(x, block_cache, start)  # (B, T, n_embd)
        x = self.ln_f(x)  # (B, T, n_embd)
        return self.lm_head(x)  # (B, T, V)

    def generate(self, idx, max_new_tokens, temperature=1.0, top_k=None, top_p=None, random=np.random):
        """逐字续写 idx (B, T)：写出一个，就交出一个 (B,)。"""
        cache, start = self.empty_cache(len(idx)), 0
        unseen = idx[:, -self.block_size:]  # (B, T)
        for _ in range(max_new_tokens):
            if start + unseen.shape[1] > self.block_size:  # 写满了：留后一半文本，从头重建缓存
                start, unseen = 0, idx[:, -self.block_size // 2:]
            logits = self(unseen, cache, start)  # (B, T, V)
            start += unseen.shape[1]
            logits = logits[:, -1] / temperature  # (B, V)
            if top_k is not None:
                logits = keep_top_k(logits, top_k)
            if top_p is not None:
                logits = keep_top_p(logits, top_p)
            probs = softmax(logits, dim=-1)  # (B, V)
            cumulative = probs.cumsum(axis=-1)  # (B, V)
            draw = random.rand(len(idx), 1) * cumulative[:, -1:]  # (B, 1)
            next_idx = (cumulative > draw).argmax(axis=-1)  # (B,)
            idx = np.concatenate([idx, next_idx[:, None]], axis=1)  # (B, T+1)
            yield next_idx
            unseen = next_idx[:, None]


def load_model(path):
    """读出模型和分词器；读不出来就说明原因并退出。"""
    again = '用 git checkout pretrained 找回，或者用 python tools/export_safetensors.py 从 v12 存的 model.pth 转一个。'
    try:
        with safe_open(path, framework='np') as file:
            metadata, state = file.metadata() or {}, {name: file.get_tensor(name) for name in file.offset_keys()}
    except FileNotFoundError:
        sys.exit(f'找不到 {path}：{again}')
    except OSError as error:
        sys.exit(f'读不了 {path}（{error.strerror or error}）。')
    except SafetensorError:
        sys.exit(f'{path} 残缺，或者根本不是 safetensors 文件：{again}')
    try:
        tokenizer = Tokenizer(metadata['vocabulary'])
        hyper_params = json.loads(metadata['hyper_params'])
        hyper_params.pop('dropout', None)  # 只在训练时用
        model = BabyGPT(tokenizer.vocab_size, **hyper_params)
        model.load_state_dict(state)
    except KeyError as part:
        sys.exit(f'{path} 的元数据里没有 {part}，建不起模型：{again}')
    except Exception as error:  # 错在不同的地方，报的错就不同
        raise SystemExit(f'{path} 里的参数、超参数和词表对不上（{error}）：{again}') from error
    return model, tokenizer


class PoemRequest(BaseModel):
    """要一首词。title 和 description 说每一项应是什么，/docs 里和报错时都用。"""

    model_config = ConfigDict(extra='forbid')
    prompt: str = Field(min_length=1, max_length=100, title='1 到 100 个字', description='1 to 100 characters')
    max_new_tokens: int = Field(
        200, ge=1, le=max_length, title=f'1 到 {max_length} 的整数', description=f'an integer from 1 to {max_length}')
    temperature: float = Field(1.0, ge=0.01, le=100, title='0.01 到 100 的数', description='a number from 0.01 to 100')
    top_k: int | None = Field(None, ge=1, title='大于 0 的整数', description='an integer above 0')
    top_p: float | None = Field(None, gt=0, le=1, title='大于 0、不大于 1 的数', description='a number above 0, at most 1')
    seed: int | None = Field(None, ge=0, lt=2 ** 32, title='0 到 2^32 - 1 的整数', description='an integer from 0 to 2^32 - 1')


class PoemsRequest(PoemRequest):
    """要同一个开头的几首词。"""

    num_samples: int = Field(1, ge=1, le=4, title='1 到 4 的整数', description='an integer from 1 to 4')


class Poems(BaseModel):
    """写好的词，开头在内。"""

    poems: list[str]


class BodyLimit:
    """包在应用外面，数着收到的请求体：超过 max_body 个字节，就回答 413。"""

    def __init__(self, app, max_body):
        self.app, self.max_body = app, max_body

    async def __call__(self, scope, receive, send):
        size = 0

        async def receive_counted():
            nonlocal size
            message = await receive()
            size += len(message.get('body', b''))
            if size <= self.max_body:
                return message
            with contextlib.suppress(TimeoutError):  # 剩下的收一点扔一点：不等对方发完就关上，对方看不到回答
                async with asyncio.timeout(5):
                    while message.get('more_body'):
                        message = await receive()
            raise refusal(413, f'请求体最多 {self.max_body} 字节。', f'A request has at most {self.max_body} bytes.')

        await self.app(scope, receive_counted, send)


def refusal(status, zh, en, headers=None):
    """不答应，用中文和英文各说一句为什么。"""
    return HTTPException(status, {'zh': zh, 'en': en}, headers)


def explain(error):
    """FastAPI 检查请求时发现的一个错误，说成中文和英文各一句。"""
    where, name = error['loc'][0], str(error['loc'][-1])
    fields = (PoemRequest if where == 'query' else PoemsRequest).model_fields
    if error['type'] == 'extra_forbidden':
        names = ' '.join(fields)
        return f'没有 {name} 这一项，有的是 {names}。', f'There is no {name}; there are {names}.'
    if name not in fields:
        return '请求体应是 JSON，例如 {"prompt": "春江"}。', 'The body must be JSON, such as {"prompt": "春江"}.'
    return f'{name} 应是：{fields[name].title}。', f'{name} must be {fields[name].description}.'


def begin(model, tokenizer, asked, num_samples):
    """请求变成 generate 的逐字续写，还没有开始算；开头里有不认识的字就说出来。"""
    unknown = ' '.join(sorted(set(asked.prompt) - tokenizer.ids.keys()))
    if unknown:
        raise refusal(422, f'词表里没有这些字：{unknown}', f'The model does not know these characters: {unknown}')
    idx = np.tile(tokenizer.encode(asked.prompt), (num_samples, 1))  # (B, T)
    random = np.random.RandomState(asked.seed)  # 每个请求自己的随机源；没给种子，就每次不同
    return model.generate(idx, asked.max_new_tokens, asked.temperature, asked.top_k, asked.top_p, random)


def make_app(model, tokenizer, max_poems, max_body):
    app = FastAPI(title='写词', description='从一个开头写一首词。 Writes Song ci from a beginning.')
    app.add_middleware(BodyLimit, max_body=max_body)
    app.state.poems, app.state.stopping = 0, False
    turn = asyncio.Lock()

    async def take_place():
        """占一个位子，直到回答送完，或者对方走了；没有位子就请人稍后再来。"""
        if app.state.poems >= max_poems:
            raise refusal(503, f'正在写 {max_poems} 首，写不过来了，请稍后再来。',
                          f'{max_poems} poems are being written, no more can be; please come back later.', {'Retry-After': '5'})
        app.state.poems += 1
        try:
            yield
        finally:
            app.state.poems -= 1

    async def write(steps, num_samples):
        """每轮到一次写一个字，交出每首新添的字；写到空行，那一首就完了，之后添的是空的。"""
        texts = [''] * num_samples
        while not app.state.stopping:
            async with turn:  # 先来的先轮到；写一个字就让出来，排到后面去
                next_idx = await asyncio.to_thread(next, steps, None)
            if next_idx is None:
                return
            chars = ['' if text.endswith('\n\n') else char for text, char in zip(texts, tokenizer.decode(next_idx))]
            texts = [text + char for text, char in zip(texts, chars)]
            yield chars
            if all(text.endswith('\n\n') for text in texts):
                return

    @app.get('/', include_in_schema=False)
    async def page():
        return FileResponse(page_path)

    @app.get('/health')
    async def health():
        """正在写几首，最多几首。"""
        return {'poems': app.state.poems, 'max_poems': max_poems}

    @app.post('/generate', dependencies=[Depends(take_place)])
    async def generate(asked: PoemsRequest, request: Request) -> Poems:
        """写 num_samples 首，都写完了一起给。"""
        poems = [asked.prompt] * asked.num_samples
        async for chars in write(begin(model, tokenizer, asked, asked.num_samples), asked.num_samples):
            poems = [poem + char for poem, char in zip(poems, chars)]
            if await request.is_disconnected():
                break
        if app.state.stopping:
            raise refusal(503, '正在关闭，没有写完。', 'Shutting down, nothing was finished.')
        return Poems(poems=[poem.strip('\n') for poem in poems])

    @app.get('/stream', dependencies=[Depends(take_place)])
    async def stream(asked: Annotated[PoemRequest, Query()]) -> StreamingResponse:
        """写一首，写一个字送一个字：data 是 JSON 的字符串；最后送 event: end。"""
        steps = begin(model, tokenizer, asked, 1)

        async def events():
            async for [char] in write(steps, 1):
                yield f'data: {json.dumps(char, ensure_ascii=False)}\n\n'
            yield f'event: end\ndata: {json.dumps("stopped" if app.state.stopping else "done")}\n\n'

        return StreamingResponse(events(), media_type='text/event-stream', headers={'Cache-Control': 'no-store'})

    @app.exception_handler(RequestValidationError)
    async def say_what_is_wrong(request, error):
        zh, en = zip(*map(explain, error.errors()))
        return JSONResponse({'detail': {'zh': ''.join(zh), 'en': ' '.join(en)}}, 422)

    @app.exception_handler(400)
    async def not_json(request, error):  # 不是 UTF-8，或者套得太深：也不是能读的 JSON
        zh, en = explain({'type': 'json_invalid', 'loc': ['body']})
        return JSONResponse({'detail': {'zh': zh, 'en': en}}, 422)

    return app


class Server(uvicorn.Server):
    """按 Ctrl-C 时，先让正在写的停笔，再关门；半秒之后还不收不发的，不等了。"""

    def handle_exit(self, sig, frame):
        self.config.app.state.stopping = True
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets=None):
        def abort():
            for connection in self.server_state.connections:
                connection.transport.abort()

        asyncio.get_running_loop().call_later(0.5, abort)
        await super().shutdown(sockets)


def parse_args():
    parser = argparse.ArgumentParser(
        usage='%(prog)s [--名称 值 ...]', description='用训练好的模型写词的网站，不用 PyTorch。', add_help=False, allow_abbrev=False)
    group = parser.add_argument_group('选项')
    group.add_argument('--host', default='127.0.0.1', metavar='地址', help='在哪个地址上听（默认 127.0.0.1，只有这台机器连得上）')
    group.add_argument('--port', type=int, default=8000, metavar='值', help='在哪个端口上听，0 是随便哪个空着的（默认 8000）')
    group.add_argument('--model', type=Path, default=model_path, metavar='文件', help='用这个模型（默认 pretrained/model.safetensors）')
    group.add_argument('-h', '--help', action='help', help='显示这段说明')
    args = parser.parse_args()
    if not 0 <= args.port < 2 ** 16:
        parser.error('--port 必须在 0 和 65535 之间')
    return args


def main():
    args = parse_args()
    model, tokenizer = load_model(args.model)
    ipv6 = ':' in args.host
    try:
        listener = socket.create_server((args.host, args.port), family=socket.AF_INET6 if ipv6 else socket.AF_INET)
    except OSError as error:
        sys.exit(f'不能在 {args.host} 的端口 {args.port} 上听（{error.strerror}）：换一个 --port 或 --host。')
    host = f'[{args.host}]' if ipv6 else args.host
    print(f'请打开 http://{host}:{listener.getsockname()[1]}，按 Ctrl-C 停下。', flush=True)
    app = make_app(model, tokenizer, max_poems, max_body)
    Server(uvicorn.Config(app, log_level='warning')).run(sockets=[listener])


if __name__ == '__main__':
    try:
        main()
    except (KeyboardInterrupt, EOFError):
        print()
