"""The DeepSpeech2 encoder with named adapters in it."""

from dataclasses import dataclass
from typing import Any

from nemo.collections.asr.parts.utils.adapter_utils import LINEAR_ADAPTER_CLASSPATH
from nemo.core.classes.mixins.adapter_mixins import AdapterModuleMixin
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import Tensor, nn

from nemo_ds2_adapters.layers import length_mask
from nemo_ds2_adapters.modules.adapters import (
    DEFAULT_PLACEMENT,
    HEAD_PLACE,
    MLPAdapter,
    is_head,
    placement_points,
    plain_config,
)
from nemo_ds2_adapters.modules.encoder import DeepSpeech2Encoder, DeepSpeech2EncoderConfig
from nemo_ds2_adapters.modules.mixins import QuickAdapterMixin
from nemo_ds2_adapters.modules.routing import active_routing, encoder_point

ACCEPTED_ADAPTERS = (LINEAR_ADAPTER_CLASSPATH, MLPAdapter)


class AdapterPoint(nn.Module, QuickAdapterMixin):
    """The adapters of all users at one point of the encoder; NeMo sees it as an adapter-capable block."""

    adapter_cfg: DictConfig

    def __init__(self) -> None:
        super().__init__()
        self.set_accepted_adapter_types(list(ACCEPTED_ADAPTERS))  # type: ignore[operator]  # NeMo has no types

    def forward(self, x: Tensor) -> Tensor:
        """`[B, T, D]` through the enabled adapters, one after the other."""
        return self.forward_enabled_adapters(x)  # type: ignore[operator]


class DeepSpeech2EncoderAdapter(DeepSpeech2Encoder, AdapterModuleMixin):
    """`DeepSpeech2Encoder` with NeMo's adapter mixin; `layers` in an adapter's config says where it sits.

    NeMo makes one of a `DeepSpeech2Encoder` by swapping the class (`replace_adapter_compatible_modules`), so
    nothing here may rely on a constructor of its own.
    """

    adapter_cfg: DictConfig

    def add_adapter(self, name: str, cfg: DictConfig | Any) -> None:
        """Add a named adapter at every point its placement names; input sizes are inferred.

        It gets this encoder's device, precision and train/eval mode.

        Args:
            name: adapter name, with or without the prefix `encoder:`.
            cfg: config of `MLPAdapter` or NeMo's `LinearAdapter`; key `layers` places it, default `all`.

        Raises:
            ValueError: the placement does not fit this encoder, the name exists or the type is not accepted.
        """
        plain = plain_config(cfg)
        if is_head(plain):
            raise ValueError(f"adapter {name!r}: {HEAD_PLACE}")
        self.check_supported_adapter_type_(OmegaConf.create(plain), self.get_accepted_adapter_types())
        layers = plain.pop("layers", DEFAULT_PLACEMENT)
        points = placement_points(layers, self.n_layers)
        _, adapter_name = self.resolve_adapter_module_name_(name)
        if any(block.get_adapter_module(adapter_name) is not None for block in self._blocks()):
            raise ValueError(f"adapter {adapter_name!r} exists in the encoder, expected a new name")
        if not hasattr(self, "adapter_cfg"):  # an encoder without a model
            self.adapter_cfg = OmegaConf.create({})
        for point in points:
            block = self._point_block(point)
            block.add_adapter(name, OmegaConf.create({**plain, "in_features": self.point_width(point)}))
            block.adapter_layer[adapter_name].to(next(self.parameters())).train(self.training)
        # NeMo replaced the entry by the last block's config: put back what restores all of them.
        with open_dict(self.adapter_cfg):
            entry = {**plain, "in_features": self.point_width(points[0]), "layers": layers}
            self.adapter_cfg[adapter_name] = {**entry, "enabled": plain.get("enabled", True)}

    def is_adapter_available(self) -> bool:
        """Whether any adapter was added, enabled or not."""
        return any(block.is_adapter_available() for block in self._blocks())

    def get_enabled_adapters(self) -> list[str]:
        """Names of the enabled adapters, sorted."""
        return sorted({name for block in self._blocks() for name in block.get_enabled_adapters()})

    def get_accepted_adapter_types(self) -> set[type]:
        """Adapter classes this encoder takes."""
        if not hasattr(self, "_accepted_adapter_types"):
            self.set_accepted_adapter_types(list(ACCEPTED_ADAPTERS))
        return self._accepted_adapter_types

    def forward_prefix(self, audio_signal: Tensor, length: Tensor, point: int) -> tuple[Tensor, Tensor]:
        active_routing(self, len(audio_signal))  # what is wrong with it, before anything is computed
        return super().forward_prefix(audio_signal, length, point)

    def _adapt(self, x: Tensor, lengths: Tensor, point: int) -> Tensor:
        routing = active_routing(self, len(x))
        if routing is not None:
            adapted = routing.apply(encoder_point(point), x, x)
        else:
            block = self._points().get(str(point))
            adapted = x if block is None else block(x)
        if adapted is x or point < self.n_layers:  # the next layer ignores padding
            return adapted
        return adapted.masked_fill(~length_mask(lengths, x.shape[1]).unsqueeze(-1), 0.0)

    def _points(self) -> dict[str, Any]:
        return dict(self.adapter_points.items()) if hasattr(self, "adapter_points") else {}

    def _blocks(self) -> list[Any]:  # of AdapterPoint
        return list(self._points().values())

    def _point_block(self, point: int) -> Any:
        if not hasattr(self, "adapter_points"):
            self.adapter_points = nn.ModuleDict()
        if str(point) not in self.adapter_points:
            block = AdapterPoint().train(self.training)
            block.adapter_cfg = self.adapter_cfg
            self.adapter_points[str(point)] = block
            # In the order of the points: an adapter file lists an adapter's parts in the order of modules().
            for key in sorted(self.adapter_points, key=int):
                self.adapter_points[key] = self.adapter_points.pop(key)
        return self.adapter_points[str(point)]


@dataclass
class DeepSpeech2EncoderAdapterConfig(DeepSpeech2EncoderConfig):
    """Arguments of `DeepSpeech2EncoderAdapter`: those of `DeepSpeech2Encoder`."""

    _target_: str = "nemo_ds2_adapters.modules.DeepSpeech2EncoderAdapter"
