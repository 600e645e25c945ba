"""Focal loss for yes-or-no answers: what is answered well already counts little.

T.-Y. Lin et al.: Focal Loss for Dense Object Detection, 2017, arXiv 1708.02002 (eq. 4); for truths between 0 and 1,
such as an IoU, X. Li et al.: Generalized Focal Loss, 2020, arXiv 2006.04388 (eq. 4), which is the same at 0 and 1.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def binary_focal_loss(logits: Tensor, truth: Tensor, gamma: float = 0.0) -> Tensor:
    """(...) raw scores, (...) truths in [0, 1] -> (...) |truth - sigmoid(score)|^gamma times the cross entropy.

    gamma 0 is the cross entropy itself.
    """
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    if not gamma:
        return entropy
    # the gradient of x^gamma at 0 is infinite where gamma < 1
    return (truth - logits.sigmoid()).abs().clamp(min=1e-6) ** gamma * entropy
