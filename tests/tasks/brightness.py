"""A user's task: the mean grey level of an image. Lower scores are better, without upper bound."""

import torch

from prunas.tasks.base import DataSetTask
from prunas.tasks.score import Score


class Brightness(DataSetTask):
    """Regression on the mean grey level, from 0 to 16, of the digits; the network returns one number an image."""

    name = "brightness"
    score = Score(name="RMSE", unit="grey levels", better="lower", low=0.0, margin=0.05)
    statistics = 2

    def _errors(self, net, images):
        (mean,), (std,) = self.data.mean, self.data.std
        return net(images).squeeze(1) - 16 * (images.mean((1, 2, 3)) * std + mean)

    def loss(self, net, batch):
        return self._errors(net, batch[0]).square().mean()

    def totals(self, net, batch):
        squares = self._errors(net, batch[0]).square().sum()
        return torch.stack((squares, torch.full_like(squares, len(batch[0]))))

    def result(self, totals):
        squares, images = totals.tolist()
        return (squares / images) ** 0.5

    def unfit(self, output, images):
        if output.shape == (images, 1):
            return None
        return f"returns a tensor of shape {tuple(output.shape)}; one number an image is wanted"
