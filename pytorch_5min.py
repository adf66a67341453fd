"""五分钟认识 PyTorch：后面反复用到的部件，都在一条直线 y = 2x + 1 上先见一面。

学出 w ≈ 2、b ≈ 1，和学出一个语言模型，用的是同一个循环；差别只在模型里装了什么。
运行（几秒）：python pytorch_5min.py
"""

import torch
from torch import nn
from torch.nn import functional as F

torch.manual_seed(1337)

# 一、张量：带形状的一块数，运算一次作用在整块上
a = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])  # (3, 2)
b = torch.tensor([10.0, 20.0])  # (2,)
print('张量')
print(f'a 的形状 {tuple(a.shape)}，a + b 把 b 加到每一行：{(a + b).tolist()}')
print(f'矩阵乘法 (3, 2) @ (2, 3) 得 {tuple((a @ a.T).shape)}')

# 二、自动求导：记住一个数是怎么算出来的，就能倒着求出它对每个输入的导数
x = torch.tensor(3.0, requires_grad=True)
y = x ** 2
y.backward()
print('\n自动求导')
print(f'y = x² 在 x = 3 处的导数应是 2x = 6，算得 {x.grad.item()}')

# 三、设备：有 GPU（或别的加速器）就用，没有就用 CPU；数据和模型要放在同一个设备上
device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else 'cpu'
print(f'\n设备：{device}')

# 四、数据：y = 2x + 1 上的 100 个点，加一点噪声
x = torch.rand(100, 1, device=device) * 4 - 2  # (100, 1)
y = 2 * x + 1 + 0.1 * torch.randn(100, 1, device=device)  # (100, 1)


# 五、模型：继承 nn.Module，__init__ 里放要学的参数，forward 里写怎样从输入算出输出
class Line(nn.Module):
    """一条直线：w 和 b 从随便的数开始，等着被学出来。"""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(1, 1)  # 里面正好有一个 w 和一个 b

    def forward(self, x):
        return self.linear(x)


model = Line().to(device)

# 六、优化器：逆着导数的方向，也就是损失变小的方向，把每个参数挪一小步
optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.0)

# 七、训练循环：预测、算损失、求导、挪一步，如此反复。BabyGPT 的每一级都是这几步
print('\n训练：从 100 个点学出 y = 2x + 1')
for step in range(201):
    prediction = model(x)  # (100, 1)
    loss = F.mse_loss(prediction, y)  # 损失：预测错得有多远，越小越好
    optimizer.zero_grad()  # 上一步的导数不清掉，就会累加到这一步
    loss.backward()
    optimizer.step()
    if step % 50 == 0:
        w, b = model.linear.weight.item(), model.linear.bias.item()
        print(f'第 {step:3d} 步  损失 {loss.item():.4f}  w {w:.3f}  b {b:.3f}')

# 八、用学到的模型：不再需要导数，no_grad 省下记录的功夫
new_x = torch.tensor([[-1.0], [0.0], [10.0]], device=device)  # (3, 1)
with torch.no_grad():
    new_y = model(new_x)  # (3, 1)
print('\n没见过的点')
for point, value in zip(new_x.flatten().tolist(), new_y.flatten().tolist()):
    print(f'x = {point:4.0f}  模型说 {value:7.3f}  真值 {2 * point + 1:4.0f}')
