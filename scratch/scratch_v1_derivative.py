"""没有 PyTorch v1：导数，一个数变一点，另一个跟着变多少

训练就是问：参数变一点，损失变多少？这个比值就是导数。把参数往损失变小的方向挪一小步，反复做，就学会了。
求导数有两个办法。差商：真的挪一点，看损失变了多少，谁都会，可是每个参数都要把损失重算两遍。
链式法则：w 影响误差，误差影响损失，一环一环的导数乘起来，算一遍就有全部参数的导数。

你会看到：两个办法求出的导数一样；两百步之内，w 从 0 到 2，b 从 0 到 1，学出 y = 2x + 1，没见过的 x 也答得对。

运行（不到一秒，只用标准库）：python scratch/scratch_v1_derivative.py
"""

learning_rate = 0.05  # 每一步走多大
max_iters = 200  # 一共训练多少步
eval_interval = 20  # 每隔多少步打印一次
examples = [(x / 2, 2 * (x / 2) + 1) for x in range(-4, 5)]  # 直线 y = 2x + 1 上的 9 个点


def predict(w, b, x):
    """x 处的预测。"""
    return w * x + b


def get_loss(w, b, examples):
    """平均的平方误差：预测错得有多远，越小越好。"""
    return sum((predict(w, b, x) - y) ** 2 for x, y in examples) / len(examples)


def difference(f, x, h=1e-5):
    """f 在 x 处的导数，用差商估计：x 往两边各挪 h，看 f 变了多少。"""
    return (f(x + h) - f(x - h)) / (2 * h)


def gradient(w, b, examples):
    """损失对 w 和 b 的导数，用链式法则手算；合起来叫梯度。"""
    w_grad = b_grad = 0.0
    for x, y in examples:
        error = predict(w, b, x) - y
        error_grad = 2 * error / len(examples)  # 损失是 error ** 2 的平均，对 error 的导数
        w_grad += error_grad * x  # error 对 w 的导数是 x
        b_grad += error_grad * 1  # error 对 b 的导数是 1
    return w_grad, b_grad


def main():
    w, b = 0.0, 0.0
    w_grad, b_grad = gradient(w, b, examples)
    print(f'损失对 w 的导数  差商 {difference(lambda w: get_loss(w, b, examples), w):.6f}  链式法则 {w_grad:.6f}')
    print(f'损失对 b 的导数  差商 {difference(lambda b: get_loss(w, b, examples), b):.6f}  链式法则 {b_grad:.6f}\n')

    for step in range(max_iters + 1):
        w_grad, b_grad = gradient(w, b, examples)
        if step % eval_interval == 0:
            print(f'第 {step:5d} 步  损失 {get_loss(w, b, examples):.6f}  w {w:.4f}  b {b:.4f}')
        w -= learning_rate * w_grad
        b -= learning_rate * b_grad

    print()
    for x in [-1.25, 0.3, 10.0]:
        print(f'x = {x:5.2f}  预测 {predict(w, b, x):7.3f}  真值 {2 * x + 1:7.3f}')


if __name__ == '__main__':
    main()
