"""`otlp`: translation of OpenTelemetry metrics (surface 7.1)."""

from __future__ import annotations

from typing import Self

from pydantic import Field, field_validator, model_validator

from ingest.config.section import Section, fault

STRATEGIES = (
    *("UnderscoreEscapingWithSuffixes", "NoUTF8EscapingWithSuffixes"),
    *("UnderscoreEscapingWithoutSuffixes", "NoTranslation"),
)
UTF8_STRATEGIES = ("NoUTF8EscapingWithSuffixes", "NoTranslation")


class OTLPConfig(Section):
    """How resource attributes and names become labels."""

    always_printed = frozenset(
        {"label_name_underscore_sanitization", "label_name_preserve_multiple_underscores"}
    )

    promote_all_resource_attributes: bool = False
    promote_resource_attributes: list[str] = Field(default_factory=list)
    ignore_resource_attributes: list[str] = Field(default_factory=list)
    translation_strategy: str = STRATEGIES[0]
    keep_identifying_resource_attributes: bool = False
    convert_histograms_to_nhcb: bool = False
    promote_scope_metadata: bool = False
    label_name_underscore_sanitization: bool = True
    label_name_preserve_multiple_underscores: bool = True

    @field_validator("translation_strategy")
    @classmethod
    def _known_strategy(cls, value: str) -> str:
        if value and value not in STRATEGIES:
            raise fault(f'unsupported OTLP translation strategy "{value}"')
        return value or STRATEGIES[0]

    @field_validator("promote_resource_attributes", "ignore_resource_attributes")
    @classmethod
    def _trimmed(cls, value: list[str]) -> list[str]:
        return [name.strip() for name in value]

    @model_validator(mode="after")
    def _attributes_agree(self) -> Self:
        if self.promote_all_resource_attributes and self.promote_resource_attributes:
            raise fault(
                "'promote_all_resource_attributes' and 'promote_resource_attributes' cannot be configured "
                "simultaneously",
                "promote_resource_attributes",
            )
        if self.ignore_resource_attributes and not self.promote_all_resource_attributes:
            raise fault(
                "'ignore_resource_attributes' cannot be configured unless "
                "'promote_all_resource_attributes' is true",
                "ignore_resource_attributes",
            )
        _check_attributes(self.promote_resource_attributes, "promote_resource_attributes", "promoted")
        _check_attributes(self.ignore_resource_attributes, "ignore_resource_attributes", "ignored")
        return self


def _check_attributes(names: list[str], field: str, adjective: str) -> None:
    wrong, seen = [], set()
    for name in names:
        if not name:
            wrong.append(f"empty {adjective} OTel resource attribute")
        elif name in seen:
            wrong.append(f'duplicated {adjective} OTel resource attribute "{name}"')
        seen.add(name)
    if wrong:
        raise fault(f"invalid '{field}': {'; '.join(wrong)}", field)
