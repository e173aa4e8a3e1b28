"""From a voice of any length to an embedding of length 1, and from there to a speaker by cosine."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.common.audio.backbones import CRNN, BCResNet, StatisticsPooling, backbone
from models.common.audio.mel import LogMel
from models.common.audio.spectrogram_pictures import SpectrogramPictures
from models.common.backbones.names import is_timm
from models.speaker_identification.params import BUILTIN_NETWORKS, SpeakerTrain


def _backbone(train: SpeakerTrain) -> BCResNet | CRNN | SpectrogramPictures:
    if is_timm(train.network):
        return SpectrogramPictures(train.network, train.mels, BUILTIN_NETWORKS, any_length=True)
    return backbone("bc_resnet" if train.network == "bc_resnet" else "crnn", train.mels, train.width)


class SpeakerNetwork(nn.Module):
    """Samples (N, T) int16 with `lengths` (N,), the rest padding -> logits (N, speakers), embeddings (N, dim).

    This is what is exported. Neither depends on how much padding there is.
    """

    def __init__(self, speakers: int, sample_rate: int, train: SpeakerTrain) -> None:
        super().__init__()
        self.mel = LogMel(sample_rate, train.mels)
        self.backbone = _backbone(train)
        self.pool = StatisticsPooling(self.backbone.channels, train.pooling == "attentive")
        self.norm = nn.BatchNorm1d(2 * self.backbone.channels)
        self.dropout = nn.Dropout(train.dropout)
        self.embed = nn.Linear(2 * self.backbone.channels, train.dim)
        self.classifier = nn.Linear(train.dim, speakers, bias=False)  # a row is what a speaker's embeddings point to
        self.scale = train.scale

    def forward(self, samples: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        embeddings = self.embedding(self.mel(samples, lengths), self.frame_mask(samples, lengths))
        return self.scale * self.cosines(embeddings), embeddings

    def frame_mask(self, samples: Tensor, lengths: Tensor) -> Tensor:
        """(N, frames): 1 where a frame is of the sound, 0 in the padding; of a very short one the first is."""
        positions = torch.arange(samples.shape[1] // self.mel.hop, device=samples.device)
        return (positions < self.mel.frames(lengths).clamp(min=1)[:, None]).float()

    def embedding(self, spectrograms: Tensor, mask: Tensor) -> Tensor:
        """(N, dim), of length 1."""
        pooled = self.pool(*self.backbone(spectrograms, mask))
        return F.normalize(self.embed(self.dropout(self.norm(pooled))).float(), dim=1)

    def cosines(self, embeddings: Tensor) -> Tensor:
        """(N, speakers)."""
        return F.linear(embeddings, F.normalize(self.classifier.weight.float(), dim=1))
