"""Settings that tests declare. Not in the folder of their app, which needs none to be served."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field, SecretStr, field_validator

from reactor import EnvSettings

__all__ = ["Limit", "Settings"]


class Limit(BaseModel):
    per_minute: int


class Settings(EnvSettings):
    stripe_key: SecretStr
    greeting: Literal["hi", "hello"] = "hello"
    tags: list[str] = Field(default_factory=list)
    limit: Limit = Limit(per_minute=60)
    odd_name: str = Field("", alias="ODD")

    @field_validator("odd_name")
    @classmethod
    def check(cls, value: str) -> str:
        if "\n" in value:
            raise ValueError("write one line")
        return value
