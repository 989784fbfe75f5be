"""Design: what population a simulated cohort is drawn from. Every number here may be changed by the user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from ecgcmr.simulation.acquisition import AcquisitionDesign
from ecgcmr.simulation.electrical_latents import ElectricsDesign
from ecgcmr.simulation.scanner import SCANNERS, ImagingDesign

_PARTS = {"electrics": ElectricsDesign, "acquisition": AcquisitionDesign, "imaging": ImagingDesign}


def _known(values: Mapping[str, Any], kind: type, where: str) -> dict[str, Any]:
    """The values, after checking that `kind` has a field for each.

    Raises:
        ValueError: A field is unknown.
    """
    known = {item.name for item in fields(kind)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(f"unknown fields {unknown} of {where}; known: {sorted(known)}")
    return dict(values)


def _scanners() -> dict[str, float]:
    return {"alpha": 0.6, "beta": 0.25, "gamma": 0.15}


@dataclass(frozen=True)
class Design:
    """Prevalences, shares and nuisance scales of a simulated population.

    The default is a screening cohort enriched with disease, so that a few thousand subjects hold enough cases for
    tests; a little over half have no diagnosis. Infarction and the cardiomyopathies exclude each other; bundle branch
    blocks, AV block and atrial fibrillation come on top and may overlap with everything but each other's definition
    (LBBB excludes RBBB). The nuisance scales set the ceiling of what an ECG can tell about the heart.

    Attributes:
        male_share: Share of men.
        prevalence_mi: Old myocardial infarction.
        prevalence_cad: Coronary artery disease, infarctions included.
        prevalence_dcm: Dilated cardiomyopathy.
        prevalence_hcm: Hypertrophic cardiomyopathy.
        prevalence_hhd: Hypertensive hypertrophy.
        prevalence_hypertension: Hypertension in those without hypertensive hypertrophy.
        prevalence_lbbb: LBBB outside dilated cardiomyopathy.
        lbbb_in_dcm: LBBB in dilated cardiomyopathy.
        prevalence_rbbb: RBBB.
        prevalence_avb1: First-degree AV block.
        prevalence_af: Atrial fibrillation.
        minority_share: Share of group 1.
        minority_fat_shift_mm: Added thickness of the chest-wall fat in group 1 [mm].
        scanners: Share of each scanner preset.
        n_sites: Number of recruiting sites; site 0 recruits half of the subjects.
        spread_scale: Scales the spread of healthy heart size and function that sex and body do not explain.
        sphericity_sd: Relative SD of LV length at fixed volume.
        orientation_sd_deg: SD of the direction of the long axis, per axis [degree].
        roll_sd_deg: SD of the roll about the long axis [degree].
        position_sd_mm: SD of the place of the heart in the chest, per axis [mm].
        torso_sd: Relative SD of the torso axes at fixed height and BMI.
        fat_sd: Relative SD of the fat thickness at fixed sex and BMI.
        electrics: Spread of the electrical latents and of the electrodes.
        acquisition: Noise and errors of the ECG recording.
        imaging: Placement, noise and contrast of the cine.
        follow_up_years: Administrative censoring of the incident outcomes [years].
        dropout_per_year: Rate of random censoring [1/year].
    """

    male_share: float = 0.5
    prevalence_mi: float = 0.12
    prevalence_cad: float = 0.16
    prevalence_dcm: float = 0.08
    prevalence_hcm: float = 0.07
    prevalence_hhd: float = 0.09
    prevalence_hypertension: float = 0.22
    prevalence_lbbb: float = 0.02
    lbbb_in_dcm: float = 1 / 3
    prevalence_rbbb: float = 0.04
    prevalence_avb1: float = 0.03
    prevalence_af: float = 0.04
    minority_share: float = 0.2
    minority_fat_shift_mm: float = 4.0
    scanners: Mapping[str, float] = field(default_factory=_scanners)
    n_sites: int = 4
    spread_scale: float = 1.0
    sphericity_sd: float = 0.04
    orientation_sd_deg: float = 6.0
    roll_sd_deg: float = 6.0
    position_sd_mm: float = 5.0
    torso_sd: float = 0.03
    fat_sd: float = 0.15
    electrics: ElectricsDesign = field(default_factory=ElectricsDesign)
    acquisition: AcquisitionDesign = field(default_factory=AcquisitionDesign)
    imaging: ImagingDesign = field(default_factory=ImagingDesign)
    follow_up_years: float = 10.0
    dropout_per_year: float = 0.02

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name == "scanners":
                self._check_scanners(value)
            elif item.name in _PARTS:
                continue
            elif value < 0:
                raise ValueError(f"design.{item.name} must not be negative, got {value}")
            elif value > 1 and item.name.startswith(("prevalence", "lbbb_in", "male_share", "minority_share")):
                raise ValueError(f"design.{item.name} is a share and must lie in [0, 1], got {value}")
        if self.n_sites < 1:
            raise ValueError(f"design.n_sites must be at least 1, got {self.n_sites}")
        if self.primary_share > 1:
            raise ValueError(
                f"prevalence_mi + _dcm + _hcm + _hhd exclude each other but sum to {self.primary_share}; lower them"
            )

    def _check_scanners(self, shares: Mapping[str, float]) -> None:
        unknown = sorted(set(shares) - set(SCANNERS))
        if unknown:
            raise ValueError(f"design.scanners names unknown presets {unknown}; known: {sorted(SCANNERS)}")
        if not shares or min(shares.values()) < 0 or abs(sum(shares.values()) - 1) > 1e-6:
            raise ValueError(f"design.scanners must be non-negative shares that sum to 1, got {dict(shares)}")

    @property
    def primary_share(self) -> float:
        """Share with infarction, cardiomyopathy or hypertensive hypertrophy."""
        return self.prevalence_mi + self.prevalence_dcm + self.prevalence_hcm + self.prevalence_hhd

    @classmethod
    def healthy(cls) -> Design:
        """The population without any disease: what the healthy marginals are stated for."""
        none = {item.name: 0.0 for item in fields(cls) if item.name.startswith("prevalence")}
        return replace(cls(), **none, minority_share=0.0)  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a YAML or JSON file."""
        return asdict(self) | {"scanners": dict(self.scanners)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Design:
        """Inverse of `to_dict`; missing fields take their default.

        Raises:
            ValueError: A field is unknown or out of range.
        """
        own = _known(values, cls, "design")
        for name, kind in _PARTS.items():
            if isinstance(own.get(name), Mapping):
                own[name] = kind(**_known(own[name], kind, f"design.{name}"))
        return cls(**own)
