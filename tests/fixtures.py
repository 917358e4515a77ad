"""Tiny base models of two kinds, DeepSpeech2 and Conformer, and what the tests do with them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from nemo.collections.asr.models import EncDecCTCModel
from nemo.core import ModelPT
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from nemo_ds2_adapters import add_adapter, enabled_adapters

CONFORMER = {
    "_target_": "nemo.collections.asr.modules.conformer_encoder.ConformerEncoderAdapter",
    "feat_in": 16,
    "n_layers": 2,
    "d_model": 8,
    "n_heads": 2,
    "subsampling": "striding",
    "subsampling_factor": 4,
    "subsampling_conv_channels": 4,
}
STREAMING = {"_target_": "nemo_ds2_adapters.modules.StreamingMelPreprocessor", "normalize": None}
CONV_DECODER = "nemo.collections.asr.modules.ConvASRDecoder"
LINEAR = "nemo.collections.common.parts.adapter_modules.LinearAdapter"
MLP = "nemo_ds2_adapters.modules.MLPAdapter"
HEAD = "nemo_ds2_adapters.modules.MLPHeadAdapter"

STRATEGIES = "nemo.core.classes.mixins.adapter_mixin_strategies"
REPLACING = {"_target_": f"{STRATEGIES}.ReturnResultAdapterStrategy"}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {  # module, config
    "first": ("", {"_target_": MLP, "hidden_dims": [5, 4], "layers": "first"}),
    "last": ("", {"_target_": MLP, "hidden_dims": [3], "layers": "last", "norm_position": "none"}),
    "all": ("", {"_target_": MLP, "hidden_dims": [3], "layers": "all", "norm_position": "post", "activation": "gelu"}),
    "listed": ("encoder", {"_target_": LINEAR, "dim": 4, "layers": [1], "norm_position": "post"}),
    "replacing": ("", {"_target_": MLP, "hidden_dims": [3], "layers": [0], "adapter_strategy": REPLACING}),
    "decoder": ("decoder", {"_target_": LINEAR, "dim": 4, "activation": "identity"}),
    "both": ("encoder+decoder", {"_target_": LINEAR, "dim": 3}),
    "head": ("decoder", {"_target_": HEAD, "hidden_dims": [6]}),
    "own_head": ("decoder", {"_target_": HEAD, "hidden_dims": [6], "mode": "replace", "dropout": 0.5}),
}
BaseMaker = Callable[..., EncDecCTCModel]
Outputs = Callable[[ModelPT], Tensor]
Attach = Callable[..., None]
Solo = Callable[[EncDecCTCModel, str | None, dict[str, Tensor]], Tensor]


@pytest.fixture
def linear() -> dict[str, Any]:
    """Config of NeMo's own adapter, which both kinds of model take in encoder and decoder."""
    return {"_target_": LINEAR, "in_features": None, "dim": 3}


@pytest.fixture
def mlp() -> dict[str, Any]:
    """Config of this package's adapter after every recurrent layer of a DeepSpeech2."""
    return {"_target_": MLP, "in_features": None, "hidden_dims": [5], "layers": "all"}


@pytest.fixture
def head() -> dict[str, Any]:
    """Config of a head adapter like the original's; for the decoder of a DeepSpeech2."""
    return {"_target_": HEAD, "hidden_dims": [6, 5], "mode": "replace"}


@pytest.fixture
def make_base(model_config: Callable[..., DictConfig]) -> BaseMaker:
    """Builder of models in eval mode: kind (`deepspeech2`, `conformer`), seed, options of the encoder."""

    def make(kind: str = "deepspeech2", seed: int = 0, **encoder: Any) -> EncDecCTCModel:
        cfg = model_config()
        cfg.encoder.d_model = 4
        if kind == "conformer":
            cfg.encoder = CONFORMER
            cfg.decoder = {key: cfg.decoder[key] for key in ("feat_in", "num_classes", "vocabulary")}
            cfg.decoder["_target_"] = CONV_DECODER
        cfg.encoder = OmegaConf.merge(cfg.encoder, encoder)
        torch.manual_seed(seed)
        return EncDecCTCModel(cfg=cfg).eval()

    return make


@pytest.fixture
def make_streaming(model_config: Callable[..., DictConfig]) -> BaseMaker:
    """Builder of tiny forward-only models whose features need no future; takes options of the encoder."""

    def make(**encoder: Any) -> EncDecCTCModel:
        cfg = model_config(encoder={"bidirectional": False, "lookahead_context": 3, "d_model": 6, **encoder})
        bands = cfg.preprocessor.features
        cfg.preprocessor.update({**STREAMING, "feature_mean": [-6.0] * bands, "feature_std": [2.0] * bands})
        torch.manual_seed(0)
        model = EncDecCTCModel(cfg=cfg)
        with torch.no_grad():  # so that units follow each other quickly, blanks among them
            for parameter in model.encoder.layers.parameters():
                parameter.mul_(4.0)
            model.decoder.output.weight.mul_(12.0)
        return model.eval()

    return make


@pytest.fixture(params=["deepspeech2", "conformer"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def base(make_base: BaseMaker, kind: str) -> EncDecCTCModel:
    """A model of either kind without adapters."""
    return make_base(kind)


@pytest.fixture
def outputs(batch: dict[str, Tensor]) -> Outputs:
    """What a model makes of three sound signals: log probabilities `[B, T, V]`."""

    def run(model: ModelPT) -> Tensor:
        with torch.no_grad():
            return model(**batch)[0]

    return run


@pytest.fixture
def train() -> Callable[[ModelPT, str], None]:
    """Give an adapter weights as if trained, different for each name."""

    def fill(model: ModelPT, name: str) -> None:
        generator = torch.Generator().manual_seed(sum(map(ord, name)))
        with torch.no_grad():
            for path, parameter in model.named_parameters():
                if f".adapter_layer.{name}." in path:
                    parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))

    return fill


@pytest.fixture
def snapshot() -> Callable[[ModelPT], Any]:
    """Everything by which a changed model would differ: config, modules, weights, modes."""

    def take(model: ModelPT) -> Any:
        return (
            OmegaConf.to_yaml(model.cfg),
            [(path, type(module), module.training) for path, module in model.named_modules()],
            {key: (value.dtype, value.shape, value.numpy().tobytes()) for key, value in model.state_dict().items()},
            [parameter.requires_grad for parameter in model.parameters()],
            [hasattr(module, "adapter_layer") for module in model.modules()],
        )

    return take


@pytest.fixture
def attach() -> Attach:
    """Adds users of some kinds, called `<kind>_<number>`, with weights as if trained; none is enabled."""

    def add(model: EncDecCTCModel, *kinds: str, each: int = 1) -> list[str]:
        names = []
        for kind in kinds:
            module, cfg = KINDS[kind]
            for number in range(each):
                names.append(f"{kind}_{number}")
                add_adapter(model, f"{module}:{names[-1]}" if module else names[-1], {**cfg, "enabled": False})
        for path, parameter in model.named_parameters():
            if ".adapter_layer." in path:
                nn.init.normal_(parameter, std=0.3)
        return names

    return add


@pytest.fixture
def solo() -> Solo:
    """What a batch gives with one adapter enabled for all of it: log probabilities `[B, T, V]`."""

    def run(model: EncDecCTCModel, user: str | None, batch: dict[str, Tensor]) -> Tensor:
        with torch.no_grad(), enabled_adapters(model, user):
            return model(**batch)[0]

    return run
