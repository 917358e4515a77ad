"""Train a DeepSpeech2 base model.

python examples/asr/asr_ctc/train_deepspeech2.py \
    model.train_ds.manifest_filepath=train.json \
    model.validation_ds.manifest_filepath=validation.json
"""

import lightning.pytorch as pl
from nemo.collections.asr.models import EncDecCTCModel
from nemo.core.config import hydra_runner
from nemo.utils.exp_manager import exp_manager
from omegaconf import DictConfig

import nemo_ds2_adapters  # noqa: F401
from nemo_ds2_adapters.training.sampler import use_shorter_first


@hydra_runner(config_path="../../../conf/deepspeech2", config_name="deepspeech2_small")
def main(cfg: DictConfig) -> None:
    trainer = pl.Trainer(**cfg.trainer)
    exp_manager(trainer, cfg.get("exp_manager"))
    model = EncDecCTCModel(cfg=cfg.model, trainer=trainer)
    if cfg.model.train_ds.get("shorter_first", False):
        use_shorter_first(model)
    trainer.fit(model)


if __name__ == "__main__":
    main()
