"""A program: one epoch over a folder through SAM-Med2D's own DataLoader.py, by a network of one convolution.

    cd PARENT; python sammed2d_epoch.py REPOSITORY FOLDER

FOLDER lies in the working directory, as that loader's paths begin with its name. Prints a JSON object.
"""

import json
import random
import sys

import numpy as np
import torch

sys.path.insert(0, sys.argv[1])
import DataLoader as theirs

random.seed(0)
np.random.seed(0)  # noqa: NPY002
torch.manual_seed(0)
training = theirs.TrainingDataset(sys.argv[2], image_size=256, mode="train", point_num=1, mask_num=5)
net = torch.nn.Conv2d(3, 1, 3, padding=1)
optimizer = torch.optim.SGD(net.parameters(), 0.1)
seen, values, losses = 0, set(), []
for item in torch.utils.data.DataLoader(training, batch_size=2, shuffle=True):
    image = item["image"].flatten(0, 1).float()  # b 3 256 256
    labels = item["label"].flatten(0, 1).float()  # b*5 1 256 256
    values |= set(labels.unique().tolist())
    predicted = net(image).repeat_interleave(len(labels) // len(image), 0)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(predicted, labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    seen += len(image)
    losses.append(loss.item())
testing = theirs.TestingDataset(sys.argv[2], image_size=256, mode="test", point_num=1)
tested = [testing[i] for i in range(len(testing))]
told = {
    "images": len(training),
    "seen": seen,
    "values": sorted(values),
    "losses": losses,
    "tested": len(tested),
}
print(json.dumps(told))
