"""What each of v1 to v4 should compute, and what the usual mistakes compute in its place."""

import torch
from torch.nn import functional as F

from tests.prelude.points import V1, V2, V3


def shapes_of(rung):
    """{layer: the shape of its weight} in the sizes that the tests build a model with."""
    sizes = rung.contract['sizes']
    if rung is V3:
        return {'hidden': (sizes['n_hidden'], sizes['n_in']), 'out': (sizes['n_classes'], sizes['n_hidden'])}
    if rung in (V1, V2):
        return {'linear': (1, sizes['n_in'])}
    channels = sizes['n_channels']
    return {'conv1': (channels, 1, 3, 3), 'conv2': (channels, channels, 3, 3), 'out': (sizes['n_classes'], channels)}


def line(model, x):
    return x @ model.linear.weight[0] + model.linear.bias


def mlp(model, x, between=F.relu, after=lambda x: x):
    x = x.flatten(1) @ model.hidden.weight.T + model.hidden.bias
    return after(between(x) @ model.out.weight.T + model.out.bias)


def pool(x):
    """The largest of each 2 by 2."""
    return x.unfold(2, 2, 2).unfold(3, 2, 2).amax(dim=(4, 5))


def conv(layer, x, padding):
    return F.conv2d(x, layer.weight, layer.bias, padding=padding)


def channel(x):
    return x.unsqueeze(1)


def cnn(model, x, first=channel, between=F.relu, second=F.relu, smaller=pool, ends=lambda x: x.amax(dim=(2, 3)),
        after=lambda x: x, paddings=(1, 1)):
    x = smaller(between(conv(model.conv1, first(x), paddings[0])))
    x = ends(second(conv(model.conv2, x, paddings[1])))
    return after(x @ model.out.weight.T + model.out.bias)


def softmax(dim):
    return lambda x: x.softmax(dim)


def logits_of(rung, model, x):
    return (line if rung in (V1, V2) else mlp if rung is V3 else cnn)(model, x)


def logits_mistakes(rung, model, x):
    """{what to say: the output that the mistake gives}"""
    if rung in (V1, V2):
        out = line(model, x)
        return {
            '少了最后的 squeeze(1)：nn.Linear(n_in, 1) 给出的是 (B, 1)，答案是 (B,)，形状不同，两个相减会变成 (B, B)。': lambda: out[:, None],
            '返回的是概率：forward 返回得分，sigmoid 留给损失去做，不然会做两次。': lambda: out.sigmoid(),
            '返回的是是或否：forward 返回得分，它有大有小，才求得了导。': lambda: (out > 0).float(),
        }
    every = {
        '得分做了 softmax：forward 返回得分，F.cross_entropy 自己会做 softmax，做两次就学得很慢。': softmax(1),
        'softmax 做在了批的那一维（dim=0），各幅图混到了一起；而且 forward 应返回得分，F.cross_entropy 自己会做 softmax。': softmax(0),
        '得分做了 log_softmax：forward 返回得分，F.cross_entropy 自己会做。': lambda x: x.log_softmax(1),
        '得分做了 sigmoid：十个答案里选一个，用的是 softmax，而且 F.cross_entropy 自己会做。': torch.sigmoid,
        '得分也经过了 ReLU：ReLU 只用在中间，得分可以是负的。': F.relu,
    }
    whole = mlp if rung is V3 else cnn
    mistakes = {said: (lambda after=after: whole(model, x, after=after)) for said, after in every.items()}
    if rung is V3:
        return mistakes | {
            '中间少了 ReLU：两次加权求和合起来还是一次，界线仍是直的，和 v2 一样。': lambda: mlp(model, x, between=lambda x: x),
            '中间用的是 sigmoid，这里要用 ReLU：负的改成 0。': lambda: mlp(model, x, between=torch.sigmoid),
            '中间用的是 tanh，这里要用 ReLU：负的改成 0。': lambda: mlp(model, x, between=torch.tanh),
            '图摊平的次序不对：x.flatten(1) 一行接一行。': lambda: mlp(model, x.transpose(1, 2)),
        }
    flat = {'between': lambda x: x, 'second': lambda x: x}
    largest = '最后每个通道要在整幅图上留最大的：x.amax(dim=(2, 3))，x 是 (B, n_channels, H, H)'
    return mistakes | {
        '少了 ReLU：两次卷积之后都要把负的改成 0。': lambda: cnn(model, x, **flat),
        '第一次卷积之后少了 ReLU。': lambda: cnn(model, x, between=flat['between']),
        '第二次卷积之后少了 ReLU。': lambda: cnn(model, x, second=flat['second']),
        '两次卷积都没有补边（padding=1）：图每次小一圈。': lambda: cnn(model, x, paddings=(0, 0)),
        '第一次卷积没有补边（padding=1）：图小了一圈。': lambda: cnn(model, x, paddings=(0, 1)),
        '第二次卷积没有补边（padding=1）：图小了一圈。': lambda: cnn(model, x, paddings=(1, 0)),
        '两次卷积之间少了池化：图没有缩小一半。': lambda: cnn(model, x, smaller=lambda x: x),
        '两次卷积之间用的是平均，要留最大的：F.max_pool2d(x, 2)。': lambda: cnn(model, x, smaller=lambda x: F.avg_pool2d(x, 2)),
        '池化的窗口每次只走一格，图没有缩小一半：F.max_pool2d(x, 2)，走的步子和窗口一样大。':
            lambda: cnn(model, x, smaller=lambda x: F.max_pool2d(x, 2, stride=1)),
        f'最后用的是平均。{largest}。': lambda: cnn(model, x, ends=lambda x: x.mean(dim=(2, 3))),
        f'最后留最大的，做错了维：留的是每一行里各通道的最大。{largest}。': lambda: cnn(model, x, ends=lambda x: x.amax(dim=(1, 3))),
        f'最后留最大的，做错了维：留的是每一列里各通道的最大。{largest}。': lambda: cnn(model, x, ends=lambda x: x.amax(dim=(1, 2))),
        f'最后留最大的，做错了维：留的是各通道里的最大。{largest}。': lambda: cnn(model, x, ends=lambda x: x.amax(dim=1).flatten(1)),
        f'最后没有留最大的，整个摊平了：位置又有了关系，权重也多了。{largest}。': lambda: cnn(model, x, ends=lambda x: x.flatten(1)),
        '卷积要的是 (B, 通道, 高, 宽)，图只有 (B, S, S)：先用 x.unsqueeze(1) 添上通道那一维。': lambda: cnn(model, x, first=lambda x: x),
        '通道那一维添错了地方：卷积要的是 (B, 1, S, S)，用 x.unsqueeze(1)。': lambda: cnn(model, x, first=lambda x: x.unsqueeze(0)),
    }


def loss_of(rung, logits, y):
    """The mean loss, from its definition."""
    if rung is V1:
        return (logits - y).square().mean()
    if rung is V2:
        probs = logits.sigmoid()
        return -(y * probs.log() + (1 - y) * (1 - probs).log()).mean()
    return -logits.log_softmax(1)[torch.arange(len(y)), y].mean()


def loss_mistakes(rung, logits, y):
    """{what to say: the loss that the mistake gives}"""
    right = loss_of(rung, logits, y)
    mistakes = {
        '损失是加起来的，应当平均：不然它随批的大小变。': lambda: right * len(y),
        '损失的正负反了：训练会往错的方向走。': lambda: -right,
    }
    if rung is V1:
        return mistakes | {
            '形状没有对上：(B, 1) 减 (B,) 得到的是 (B, B)，每个预测和每个答案都相减了一次。预测先 squeeze(1)。':
                lambda: (logits[:, None] - y).square().mean(),
            '少了平方：错的正负会互相抵消。': lambda: (logits - y).mean(),
            '用的是绝对值，这里要用平方。': lambda: (logits - y).abs().mean(),
        }
    if rung is V2:
        return mistakes | {
            'sigmoid 做了两次：F.binary_cross_entropy_with_logits 自己会做 sigmoid，给它的应是得分。':
                lambda: F.binary_cross_entropy_with_logits(logits.sigmoid(), y),
            '损失是概率和答案相差的平方：要的是交叉熵。': lambda: (logits.sigmoid() - y).square().mean(),
            '损失还是 v1 的，得分和答案相差的平方：是或否要用交叉熵。': lambda: (logits - y).square().mean(),
            '是和否反了：答案是 1 的，取的是「是」的概率的对数。': lambda: F.binary_cross_entropy_with_logits(logits, 1 - y),
            '只算了答案为「是」的：答案为「否」的，取 1 减概率的对数，也要算进去。': lambda: -(y * logits.sigmoid().log()).mean(),
        }
    return mistakes | {
        '损失对概率又做了一次 softmax：F.cross_entropy 要的是得分，它自己会做。': lambda: F.cross_entropy(logits.softmax(1), y),
        'softmax 做在了批的那一维（dim=0）：每幅图的十个得分自己加起来等于 1，用 F.cross_entropy 就行。':
            lambda: F.nll_loss(logits.log_softmax(0), y),
        'softmax 做在了批的那一维（dim=0），F.cross_entropy 又做了一次：给它的应是得分。': lambda: F.cross_entropy(logits.softmax(0), y),
        '少了取对数：F.nll_loss 要的是 log 概率。用 F.cross_entropy。': lambda: F.nll_loss(logits.softmax(1), y),
        'F.nll_loss 要的是 log 概率，给它的却是得分：用 F.cross_entropy。': lambda: F.nll_loss(logits, y),
        '损失是得分和答案相差的平方：编号的大小没有意义，要用交叉熵。':
            lambda: (logits - F.one_hot(y, logits.size(1))).square().mean(),
    }
