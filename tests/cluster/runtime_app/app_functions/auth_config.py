from collections.abc import Mapping

from reactor import OIDC


def providers(env: Mapping[str, str]) -> list[OIDC]:
    return [OIDC(env.get("ISSUER", "https://nobody.example"), audience="app")]
