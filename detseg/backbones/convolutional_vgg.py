"""VGG whose fully connected layers are convolutions, so that it answers at every place of a picture of any size.

K. Simonyan, A. Zisserman: Very Deep Convolutional Networks for Large-Scale Image Recognition, 2015, arXiv 1409.1556;
J. Long, E. Shelhamer, T. Darrell: Fully Convolutional Networks for Semantic Segmentation, 2015, arXiv 1411.4038
("FCN", section 3.1: a fully connected layer is a convolution whose kernel covers its whole input);
F. Yu, V. Koltun: Multi-Scale Context Aggregation by Dilated Convolutions, 2016, arXiv 1511.07122 ("Dilated",
section 4: the same with the last two poolings taken out).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from detseg.backbones import pretrained
from detseg.backbones.spec import BackboneError, FeatureSpec, Stage, choose_strides
from detseg.backbones.torchvision_zoo import TorchvisionBackbone

_FC6 = 7  # side of the map that the first fully connected layer covers
_POOLED = {4: 2, 8: 3, 16: 4, 32: 5}  # stride -> how many poolings make it


class ConvolutionalVGG(TorchvisionBackbone):
    """The VGG called `name`; its last map is what leaves fc7, `width` channels at stride 32, others leave poolings.

    `dense` (Dilated, sec. 4): pool4 and pool5 are taken out and what follows them is dilated by 2 and by 4, and fc7 at
    stride 8 is the only map. `weights` fill fc6 and fc7, too, where they have them in this width, as ImageNet's do in
    4096. fc6 keeps the size of its map, which the paper's program lets shrink behind a wide border.
    """

    def __init__(
        self,
        name: str,
        strides: Sequence[int] = (8, 16, 32),
        *,
        width: int = 4096,
        dropout: float = 0.5,
        dense: bool = False,
        weights: str | Path | None = None,
        progress: pretrained.Progress | None = None,
    ) -> None:
        if not name.startswith("vgg"):
            raise BackboneError(f"only a VGG has fc6 and fc7 that can be convolutions, {name} has not")
        chosen = choose_strides(f"{name} with fc6 and fc7", [32] if dense else list(_POOLED), strides)
        if chosen[-1] != 32:
            raise BackboneError(f"{name} with fc6 and fc7 has them at stride 32; asked for {chosen[-1]} at most")
        super().__init__(name, (16 if dense else 32,))
        poolings = [link for link in self._links if isinstance(self.net.get_submodule(link), nn.MaxPool2d)]
        if dense:
            self._take_out(poolings[3])
        else:
            self._taps = tuple(poolings[_POOLED[stride] - 1] for stride in chosen)
        specs = self._specs(self._measure())
        self.features = (*specs[:-1], FeatureSpec(width, specs[-1].stride))
        factor = 4 if dense else 1
        self.fc = nn.Sequential(
            nn.Conv2d(specs[-1].channels, width, _FC6, padding=factor * (_FC6 // 2), dilation=factor),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Conv2d(width, width, 1),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
        )
        for layer in self.fc:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        if weights is not None:
            self._load(name, weights, progress)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 3, H, W) -> one map per spec, fc7 last."""
        *finer, last = super().forward(images)
        return [*finer, self.fc(last)]

    def stages(self) -> list[Stage]:
        """As other VGGs, fc6 and fc7 in the last one."""
        *others, last = super().stages()
        return [*others, [*(last if isinstance(last, list) else [last]), self.fc]]

    def _take_out(self, pooling: str) -> None:
        """This pooling does nothing any more, the convolutions behind it are dilated by 2."""
        self.net.set_submodule(pooling, nn.Identity())
        for link in self._links[self._links.index(pooling) :]:
            conv = self.net.get_submodule(link)
            if isinstance(conv, nn.Conv2d):
                conv.dilation, conv.padding = (2, 2), (2, 2)

    def _fitting(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """A classifier's matrices as kernels; where they are of another width or absent, what is here stays."""
        own = {f"fc.{name}": tensor for name, tensor in self.fc.state_dict().items()}
        for theirs, ours in (("classifier.0", "fc.0"), ("classifier.3", "fc.3")):
            for kind in ("weight", "bias"):
                given, kept = tensors.get(f"net.{theirs}.{kind}"), own[f"{ours}.{kind}"]
                if given is not None and given.numel() == kept.numel() and len(given) == len(kept):
                    own[f"{ours}.{kind}"] = given.reshape(kept.shape)
        return {**own, **tensors}
