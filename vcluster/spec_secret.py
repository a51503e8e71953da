"""Where a secret is found: it is never part of a spec."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from vcluster import hub_checks as hub
from vcluster import spec_hub_cross as cross
from vcluster.spec_base import Model, Text, folder_of, pattern
from vcluster.spec_checks import Trouble
from vcluster.spec_words import Kind

__all__ = ["Secret", "SecretRef"]


class SecretRef(Model):
    """Where a secret is found when it is needed: a variable of the environment, or a file. One of the two."""

    env: Annotated[Text | None, AfterValidator(hub.variable), pattern(hub.VARIABLE), Kind("name")] = Field(
        default=None, description="The name of an environment variable", examples=["HUB_CLIENT_SECRET"]
    )
    file: Annotated[
        Text | None,
        AfterValidator(lambda value, info: hub.secret_file(value, folder_of(info))),
        Kind("file's name"),
    ] = Field(
        default=None,
        description="The name of a file that only you can read; its first line is the secret",
        examples=["client.secret"],
    )

    @classmethod
    def _cross(cls, data: Any) -> list[Trouble]:
        return cross.one_place(data)


Secret = Annotated[SecretRef | None, BeforeValidator(hub.reference), Kind("`{env: NAME}` or `{file: path}`")]
