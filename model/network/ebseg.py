"""EBSeg: pictures to vocabulary-free predictions, and those with a vocabulary to class probabilities.

Shapes: B pictures, Q queries, C CLIP's joint width, K classes, H and W the padded picture's rows and
columns (multiples of 32).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.errors import ModelError, PictureError
from model.network.balance import Balance, ClassWords, class_probabilities
from model.network.clip_image import ClipFeatures, ClipImageEncoder
from model.network.clip_text import ClipTextEncoder
from model.network.config import EBSegConfig
from model.network.copies import copies_of, upload
from model.network.fusion import Fusion, Level
from model.network.graphs import RECORDERS, Graphs
from model.network.kernels import ONE_PICTURE_AT_A_TIME
from model.network.layers import at_least_float32, resize
from model.network.mask_attention import MaskAttention
from model.network.pictures import CLIP, PixelStatistics, pad_to, padded_size
from model.network.pixel_decoder import PixelDecoder
from model.network.predictions import MaskPredictions, StagePredictions
from model.network.sam_encoder import SamEncoder
from model.network.table_cache import TableCache
from model.network.transformer_decoder import TransformerDecoder
from model.vocabulary.classes import TrainingClasses, Vocabulary
from model.vocabulary.templates import VILD

if TYPE_CHECKING:
    from model.network.swin_encoder import SwinEncoder  # timm, which it needs, takes long to import


class EBSeg(nn.Module):
    """The whole model; `build.build` makes it from a configuration.

    Args:
        config: sizes and default balancing.
        training_classes: the classes that the weights were trained on.
        backbone: the image backbone, SAM's image encoder or a Swin.
        clip_image, clip_text, mask_attention: CLIP's towers; the image tower's last blocks are the
            mask attention's.
        fusion, pixel_decoder, transformer_decoder: what is trained.
        background: embedding of "no class", [1, C].
    """

    def __init__(
        self,
        *,
        config: EBSegConfig,
        training_classes: TrainingClasses,
        backbone: "SamEncoder | SwinEncoder",
        clip_image: ClipImageEncoder,
        clip_text: ClipTextEncoder,
        fusion: Fusion,
        pixel_decoder: PixelDecoder,
        transformer_decoder: TransformerDecoder,
        mask_attention: MaskAttention,
        background: nn.Parameter,
    ):
        super().__init__()
        self.config = config
        self.training_classes = training_classes
        self.backbone = backbone
        self.clip_image = clip_image
        self.clip_text = clip_text
        self.fusion = fusion
        self.pixel_decoder = pixel_decoder
        self.transformer_decoder = transformer_decoder
        self.mask_attention = mask_attention
        self.background = background
        self._channels = TableCache()
        self.graphs = Graphs()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.background.device

    @property
    def weight_bytes(self) -> int:
        """Bytes of all tensors of its state."""
        return sum(tensor.nbytes for tensor in self.state_dict().values())

    def to_compute_dtype(self, dtype: torch.dtype) -> "EBSeg":
        """Casts what may run in half precision; the pixel decoder and the text tower stay float32.

        Text embeddings are computed once and kept, so they are worth full precision. float64 casts
        everything: the reference that other types are compared with.
        """
        if dtype == torch.float64:
            return self.double()
        for part in (
            self.backbone,
            self.clip_image,
            self.fusion,
            self.transformer_decoder,
            self.mask_attention,
        ):
            part.to(dtype)
        return self

    @torch.inference_mode()
    def predict(self, images: Tensor) -> MaskPredictions:
        """The expensive part: masks and embeddings of pictures; knows no vocabulary.

        On a CPU the pictures run one after another, so that a picture gets the same bits in any company
        (`kernels.ONE_PICTURE_AT_A_TIME`).

        Args:
            images: uint8 [B, 3, rows, columns], RGB, at network resolution.

        Raises:
            PictureError: another shape or type.
        """
        _check(images)
        if len(images) > 1 and ONE_PICTURE_AT_A_TIME.on(self.device):
            return MaskPredictions.cat([self.predict(one) for one in images.split(1)])
        mask_logits, supervised, mask_attention, frozen = self(upload(images, self.device))
        return MaskPredictions(
            mask_logits=mask_logits,
            supervised=supervised,
            mask_attention=mask_attention,
            frozen=frozen,
            image_size=(images.shape[-2], images.shape[-1]),
        )

    @torch.inference_mode()
    def predict_each(
        self, pictures: Sequence[Tensor], shape: tuple[int, int] | None = None
    ) -> list[MaskPredictions]:
        """`predict` for pictures of any sizes whose padded size is one: each gets what it gets alone.

        Args:
            pictures: uint8 [3, rows, columns] each, on the host or where the weights are.
            shape: rows and columns to pad to instead, multiples of the stride. The network sees padding, so
                a larger shape than a picture's own changes what it gets, though not with its company.

        Raises:
            PictureError: another shape or type, or other padded sizes.
        """
        for picture in pictures:
            _check(picture[None])
        sizes = [(picture.shape[1], picture.shape[2]) for picture in pictures]
        padded = {padded_size(size) for size in sizes}
        if shape is None:
            if len(padded) != 1:
                raise PictureError("images of one batch must have one padded shape")
            (shape,) = padded
        elif shape != padded_size(shape) or any(size[i] > shape[i] for size in sizes for i in (0, 1)):
            raise PictureError(f"images of {sorted(padded)} cannot be padded to {shape[0]} x {shape[1]}")
        if ONE_PICTURE_AT_A_TIME.on(self.device) and len(pictures) > 1:
            return [self.predict_each([picture], shape)[0] for picture in pictures]
        *here, extents = copies_of(self.device).upload([*pictures, torch.tensor(sizes)])
        if len(set(sizes)) == 1 and padded == {shape} and not self.graphs.counts(shape):
            together = self.predict(torch.stack(here))
            return [together[i] for i in range(len(sizes))]
        images = torch.stack([pad_to(picture, shape) for picture in here])
        mask_logits, supervised, mask_attention, frozen = self.graphs.run(self, images, extents)
        together = MaskPredictions(
            mask_logits=mask_logits,
            supervised=supervised,
            mask_attention=mask_attention,
            frozen=frozen,
            image_size=sizes[0],
        )
        return [replace(together[i], image_size=size) for i, size in enumerate(sizes)]

    @torch.inference_mode()
    def record(self, shape: tuple[int, int], count: int) -> bool:
        """Records the network for so many pictures of a padded shape, which `predict_each` replays.

        Returns:
            Whether the device could; it may run out of memory, too.
        """
        if self.device.type not in RECORDERS:
            return False
        images = torch.zeros(count, 3, *shape, dtype=torch.uint8, device=self.device)
        sizes = upload(torch.tensor([shape] * count), self.device)
        self(images, sizes)
        tables = [module.tables() for module in self.modules() if isinstance(module, TableCache)]
        return self.graphs.record(self, images, sizes, tables)

    def forward(self, images: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The network that `predict` runs; `torch.export` and `torch.compile` take it as one graph.

        Args:
            images: uint8 [B, 3, rows, columns], RGB, where the weights are.
            sizes: rows and columns of each picture, [B, 2], where what is beyond them is padding already.

        Returns:
            `mask_logits`, `supervised`, `mask_attention` and `frozen` of `MaskPredictions`.
        """
        levels, clip, padded = self._encode(images, sizes, surgery=True)
        maps, mask_features = self.pixel_decoder(levels, padded)
        decoder = self.transformer_decoder
        outputs = decoder.read(decoder(maps, mask_features, all_stages=False)[0], mask_features)
        bias = decoder.attention_bias(
            outputs.mask_embeddings,
            decoder.bias_features(mask_features),
            (mask_features.shape[-2], mask_features.shape[-1]),
            clip.grid,
        )
        mask_attention, f_clip = self.mask_attention(clip, bias)
        frozen = pool_masks(outputs.mask_logits, at_least_float32(f_clip))
        return outputs.mask_logits, outputs.supervised, at_least_float32(mask_attention), frozen

    def stages(self, images: Tensor) -> list[StagePredictions]:
        """Training outputs: the queries before and after every decoder layer, in order.

        Gradients flow to all trained parameters. The surgery path does not run.

        Args:
            images: uint8 [B, 3, rows, columns], RGB.

        Raises:
            PictureError: another shape or type.
        """
        _check(images)
        levels, clip, padded = self._encode(images.to(self.device), None, surgery=False)
        decoder = self.transformer_decoder
        # Under autocast too, the pixel decoder and what reads masks off its features stay float32: deformable
        # attention loses accuracy in half precision, and sums over a mask pass float16's range.
        with torch.autocast(self.device.type, enabled=False):
            maps, mask_features = self.pixel_decoder(levels, padded)
        normed_by_stage = decoder(maps, mask_features, all_stages=True)
        with torch.autocast(self.device.type, enabled=False):
            dtype = decoder.query_features.dtype
            outputs = [decoder.read(normed.to(dtype), mask_features) for normed in normed_by_stage]
        size = (mask_features.shape[-2], mask_features.shape[-1])
        bias_features = decoder.bias_features(mask_features)
        biases = [
            decoder.attention_bias(output.mask_embeddings, bias_features, size, clip.grid)
            for output in outputs
        ]
        # Query rows never see each other, so the stages' rows can share one pass of the blocks.
        embeddings, _ = self.mask_attention(clip, torch.cat(biases, 2))
        by_stage = embeddings.chunk(len(outputs), 1)
        return [
            StagePredictions(
                mask_logits=output.mask_logits,
                supervised=output.supervised,
                mask_attention=mask_attention,
            )
            for output, mask_attention in zip(outputs, by_stage, strict=True)
        ]

    def encode_text(self, names: Sequence[str], templates: Sequence[str] = VILD) -> Tensor:
        """Unit text embeddings of class names, [K, C], float32."""
        return self.clip_text.encode(names, templates)

    def classifier(self, text: Tensor) -> Tensor:
        """Unit text rows [K, C] and the unit background row, times CLIP's logit scale, [K + 1, C].

        Embeddings times its transpose are the class logits.
        """
        rows = torch.cat([text, F.normalize(self.background, dim=-1)])
        return self.clip_text.logit_scale.exp() * rows

    def trained(self, vocabulary: Vocabulary) -> list[bool]:
        """Which classes of a vocabulary count as trained."""
        return self.training_classes.matches(vocabulary)

    @torch.inference_mode()
    def classify(
        self,
        predictions: MaskPredictions,
        vocabulary: Vocabulary | Sequence[Vocabulary],
        text: Tensor | Sequence[Tensor] | None = None,
        balance: Balance | None = None,
    ) -> list[Tensor]:
        """The cheap part: class probabilities of the queries.

        Args:
            predictions: of B pictures.
            vocabulary: one for all pictures, or one for each.
            text: embeddings of the vocabulary's words [P, C], or one a picture; computed when left out.
            balance: instead of the configuration's.

        Returns:
            [Q, K] a picture: see `balance.class_probabilities`.
        """
        vocabularies = [vocabulary] * len(predictions) if isinstance(vocabulary, Vocabulary) else vocabulary
        if text is None:
            texts = [self.encode_text(v.words, v.templates) for v in vocabularies]
        else:
            texts = [text] * len(predictions) if isinstance(text, Tensor) else list(text)
        if not len(predictions) == len(vocabularies) == len(texts):
            raise ModelError(
                f"{len(predictions)} images need as many vocabularies and texts, "
                f"got {len(vocabularies)} and {len(texts)}"
            )
        return [
            class_probabilities(
                predictions.supervised[i],
                predictions.mask_attention[i],
                predictions.frozen[i],
                self.classifier(own_text),
                upload(torch.tensor(self.trained(own)), own_text.device),
                balance or self.config.balance,
                class_words(own, own_text.device),
            )
            for i, (own, own_text) in enumerate(zip(vocabularies, texts, strict=True))
        ]

    def text_digest(self) -> str:
        """sha256 over what text embeddings depend on: the text tower's tensors, by name."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.clip_text.state_dict().items()):
            digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}:".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def _encode(
        self, images: Tensor, sizes: Tensor | None, surgery: bool
    ) -> tuple[list[Level], ClipFeatures, tuple[int, int]]:
        """Both encoders and their fusion: levels, what CLIP hands on, rows and columns after padding."""
        padded = padded_size((images.shape[-2], images.shape[-1]))
        inside = None if sizes is None else _inside(sizes, padded)
        seen = self._normalised(images, self.backbone.pixels, padded, inside)
        backbone = self.backbone(seen.to(self.backbone.patch_embed.proj.weight.dtype))
        shrunk = F.interpolate(
            self._normalised(images, CLIP, padded, inside),
            scale_factor=self.config.clip_scale,
            mode="bilinear",
        )
        clip = self.clip_image(shrunk.to(self.clip_image.conv1.weight.dtype), surgery)
        return self.fusion(backbone, clip.layers), clip, padded

    def _normalised(
        self, images: Tensor, pixels: PixelStatistics, padded: tuple[int, int], inside: Tensor | None
    ) -> Tensor:
        """uint8 [B, 3, h, w], normalised, then padded with zeros, also where it is not `inside`."""
        dtype = self.background.dtype
        mean, std = self._channels.get((pixels, dtype), lambda: pixels.tensors(images.device, dtype))
        normalised = (images - mean) / std
        if inside is not None:
            normalised = normalised.where(inside, 0.0)
        return pad_to(normalised, padded)


def _check(images: Tensor) -> None:
    if images.dim() != 4 or images.shape[1] != 3 or images.dtype != torch.uint8 or not images.numel():
        raise PictureError(f"images must be uint8 [B, 3, H, W], got {images.dtype} {list(images.shape)}")


def _inside(sizes: Tensor, padded: tuple[int, int]) -> Tensor:
    """Which pixels are of the pictures, of rows and columns [B, 2], bool [B, 1, H, W]."""
    rows, columns = (torch.arange(side, device=sizes.device) for side in padded)
    return ((rows < sizes[:, :1])[:, :, None] & (columns < sizes[:, 1:])[:, None])[:, None]


def class_words(vocabulary: Vocabulary, device: torch.device) -> ClassWords | None:
    """Which words of a vocabulary are of which class; None if every class has one."""
    classes = vocabulary.word_classes
    if classes is None:
        return None
    places = upload(torch.tensor(classes), device)
    return ClassWords(classes=places, count=len(vocabulary), mode=vocabulary.synonym_mode)


def pool_masks(mask_logits: Tensor, f_clip: Tensor) -> Tensor:
    """Frozen embeddings D (Eq. 3): mean of the CLIP features inside each mask.

    Args:
        mask_logits: [B, Q, H, W]; resized to the features' grid.
        f_clip: [B, C, h, w].

    Returns:
        [B, Q, C]; zero for a mask that is empty on the grid.
    """
    inside = resize(mask_logits, (f_clip.shape[-2], f_clip.shape[-1])).sigmoid() > 0.5
    weight = inside.flatten(2).to(f_clip.dtype)
    return weight @ f_clip.flatten(2).transpose(1, 2) / (weight.sum(-1, keepdim=True) + 1e-8)
