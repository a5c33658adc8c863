"""TensorFlow datasets of our own: builders have to be in a module that can be imported."""

from __future__ import annotations

import numpy as np
import tensorflow_datasets as tfds

NUM_TRAIN = 50
NUM_TEST = 3


def text(split: str, number: int) -> str:
    return f"{split} {number}\n\n é€ line \n"


class MadeTexts(tfds.core.GeneratorBasedBuilder):
    """Two splits of short texts; one more feature that is no text, and one of broken UTF-8."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "text": tfds.features.Text(),
                    "raw": tfds.features.Tensor(shape=(), dtype=np.str_),
                    "number": np.int64,
                    "numbers": tfds.features.Tensor(shape=(2,), dtype=np.int32),
                    "names": tfds.features.Sequence(tfds.features.Text()),
                }
            ),
        )

    def _split_generators(self, dl_manager):
        del dl_manager
        return {
            "train": self._generate_examples("train", NUM_TRAIN),
            "test": self._generate_examples("test", NUM_TEST),
        }

    def _generate_examples(self, split, count):
        for number in range(count):
            yield (
                number,
                {
                    "text": text(split, number),
                    "raw": b"a\xff\0b" if number % 2 else b" \n",
                    "number": number,
                    "numbers": [number, number],
                    "names": ["a"],
                },
            )


class ConfiguredTexts(tfds.core.GeneratorBasedBuilder):
    """Two configurations, the first of which is the default."""

    VERSION = tfds.core.Version("2.0.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in ("2023.en", "2023.de")]

    def _info(self):
        features = tfds.features.FeaturesDict({"text": tfds.features.Text()})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        del dl_manager
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        yield 0, {"text": self.builder_config.name}
