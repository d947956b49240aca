import os

from reactor import OIDC

providers = [OIDC(os.environ["TEST_ISSUER"], audience="app")]
