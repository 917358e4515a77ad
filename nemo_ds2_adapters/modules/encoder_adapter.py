"""The DeepSpeech2 encoder with named adapters in it."""

from dataclasses import dataclass, is_dataclass
from typing import Any

from nemo.collections.asr.parts.utils.adapter_utils import LINEAR_ADAPTER_CLASSPATH
from nemo.core.classes.mixins.adapter_mixins import AdapterModuleMixin
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import Tensor, nn

from nemo_ds2_adapters.layers import length_mask
from nemo_ds2_adapters.modules.adapters import MLPAdapter
from nemo_ds2_adapters.modules.encoder import DeepSpeech2Encoder, DeepSpeech2EncoderConfig
from nemo_ds2_adapters.modules.placement import DEFAULT_PLACEMENT, placement_points

ACCEPTED_ADAPTERS = (LINEAR_ADAPTER_CLASSPATH, MLPAdapter)


class AdapterPoint(nn.Module, AdapterModuleMixin):
    """The adapters of all users at one point of the encoder; NeMo sees it as an adapter-capable block."""

    def __init__(self) -> None:
        super().__init__()
        self.set_accepted_adapter_types(list(ACCEPTED_ADAPTERS))

    def forward(self, x: Tensor) -> Tensor:
        """`[B, T, D]` through the enabled adapters, one after the other."""
        return self.forward_enabled_adapters(x)


class DeepSpeech2EncoderAdapter(DeepSpeech2Encoder, AdapterModuleMixin):
    """`DeepSpeech2Encoder` with NeMo's adapter mixin; `layers` in an adapter's config says where it sits.

    NeMo makes one of a `DeepSpeech2Encoder` by swapping the class (`replace_adapter_compatible_modules`), so
    nothing here may rely on a constructor of its own.
    """

    def add_adapter(self, name: str, cfg: DictConfig | Any) -> None:
        """Add a named adapter at every point its placement names; input sizes are inferred.

        Args:
            name: adapter name, with or without the prefix `encoder:`.
            cfg: config of `MLPAdapter` or NeMo's `LinearAdapter`; key `layers` places it, default `first`.

        Raises:
            ValueError: the placement does not fit this encoder, the name exists or the type is not accepted.
        """
        plain = _plain_config(cfg)
        layers = plain.pop("layers", DEFAULT_PLACEMENT)
        points = placement_points(layers, self.n_layers)
        _, adapter_name = self.resolve_adapter_module_name_(name)
        for point in points:
            block = self._point_block(point)
            block.add_adapter(name, OmegaConf.create({**plain, "in_features": self.point_width(point)}))
        # NeMo replaced the entry by the last block's config: put back what restores all of them.
        with open_dict(self.adapter_cfg):
            entry = {**plain, "in_features": self.point_width(points[0]), "layers": layers}
            self.adapter_cfg[adapter_name] = {**entry, "enabled": plain.get("enabled", True)}

    def is_adapter_available(self) -> bool:
        """Whether any adapter was added, enabled or not."""
        return any(block.is_adapter_available() for block in self._blocks())

    def set_enabled_adapters(self, name: str | None = None, enabled: bool = True) -> None:
        """Enable or disable one adapter, or all of them."""
        for block in self._blocks():
            if name is None or block.get_adapter_module(name) is not None:
                block.set_enabled_adapters(name=name, enabled=enabled)

    def get_enabled_adapters(self) -> list[str]:
        """Names of the enabled adapters, sorted."""
        return sorted({name for block in self._blocks() for name in block.get_enabled_adapters()})

    def get_accepted_adapter_types(self) -> set[type]:
        """Adapter classes this encoder takes."""
        if not hasattr(self, "_accepted_adapter_types"):
            self.set_accepted_adapter_types(list(ACCEPTED_ADAPTERS))
        return self._accepted_adapter_types

    def _adapt(self, x: Tensor, lengths: Tensor, point: int) -> Tensor:
        block = self._points().get(str(point))
        if block is None or not block.get_enabled_adapters():
            return x
        return block(x) * length_mask(lengths, x.shape[1]).unsqueeze(-1)

    def _points(self) -> dict[str, AdapterPoint]:
        return dict(self.adapter_points.items()) if hasattr(self, "adapter_points") else {}

    def _blocks(self) -> list[AdapterPoint]:
        return list(self._points().values())

    def _point_block(self, point: int) -> AdapterPoint:
        if not hasattr(self, "adapter_points"):
            self.adapter_points = nn.ModuleDict()
        if str(point) not in self.adapter_points:
            block = AdapterPoint()
            block.adapter_cfg = self.adapter_cfg
            self.adapter_points[str(point)] = block
        return self.adapter_points[str(point)]  # type: ignore[return-value]


def _plain_config(cfg: DictConfig | Any) -> dict[str, Any]:
    if is_dataclass(cfg):
        cfg = OmegaConf.structured(cfg)
    return OmegaConf.to_container(cfg) if isinstance(cfg, DictConfig) else dict(cfg)  # type: ignore[return-value]


@dataclass
class DeepSpeech2EncoderAdapterConfig(DeepSpeech2EncoderConfig):
    """Arguments of `DeepSpeech2EncoderAdapter`: those of `DeepSpeech2Encoder`."""

    _target_: str = "nemo_ds2_adapters.modules.DeepSpeech2EncoderAdapter"
