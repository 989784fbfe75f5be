"""The three sizes of the demo. Everything that a preset fixes stands here."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class DemoPreset:
    """How much the demo simulates, trains and compares.

    Attributes:
        name: Name of the preset.
        n_subjects: Simulated subjects; 70 % train, 10 % validate, 20 % are held out.
        mae_steps: Optimizer steps of the masked ECG autoencoder.
        cmr_steps: Optimizer steps of the image encoder's SimCLR pretraining.
        align_steps: Optimizer steps of each alignment.
        finetune_steps: Most optimizer steps of a supervised run at each of `label_counts`; early stopping may end it
            sooner. More labels need more steps: a rival that was not trained long enough would be no rival.
        outcome_steps: Most optimizer steps of the run that learns incident outcomes.
        label_counts: Numbers of labelled training subjects to compare at; None stands for all.
        draws: Number of label draws (seeds).
        gallery: Number of held-out subjects in the retrieval gallery.
        bootstrap_draws: Draws of the subject bootstrap.
        finetune_pretrained: Also fine-tune the pretrained encoders, beside probing them.
        shuffled_control: Also align on shuffled pairs; nothing must be learned from that.
    """

    name: str
    n_subjects: int
    mae_steps: int
    cmr_steps: int
    align_steps: int
    finetune_steps: tuple[int, ...]
    outcome_steps: int
    label_counts: tuple[int | None, ...] = (100, 400, None)
    draws: int = 3
    gallery: int = 200
    bootstrap_draws: int = 1000
    finetune_pretrained: bool = False
    shuffled_control: bool = False

    def __post_init__(self) -> None:
        assert len(self.finetune_steps) == len(self.label_counts), "steps of a supervised run for each number of labels"

    def steps_for(self, count: int | None) -> int:
        """Most optimizer steps of a supervised run on `count` labelled subjects."""
        return self.finetune_steps[self.label_counts.index(count)]

    def to_dict(self) -> dict[str, object]:
        """Plain values, as they are written into the report."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


PRESETS: dict[str, DemoPreset] = {
    "quick": DemoPreset(
        "quick", 400, 40, 20, 40, (30, 30, 40), 30, label_counts=(50, 100, None), gallery=80, bootstrap_draws=300
    ),
    "standard": DemoPreset("standard", 4000, 1200, 150, 420, (150, 300, 600), 250),
    "full": DemoPreset(
        "full",
        n_subjects=12000,
        mae_steps=8000,
        cmr_steps=1500,
        align_steps=4000,
        finetune_steps=(400, 800, 4000),
        outcome_steps=2000,
        draws=5,
        finetune_pretrained=True,
        shuffled_control=True,
    ),
}


def demo_preset(name: str) -> DemoPreset:
    """Look a preset up.

    Raises:
        ValueError: If there is no preset of that name.
    """
    if name not in PRESETS:
        raise ValueError(f"--preset is {name!r}; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]
