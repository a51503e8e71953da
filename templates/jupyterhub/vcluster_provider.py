"""The ways to log in by an identity provider."""

from vcluster_auth import People


def provider(method):
    from oauthenticator.cilogon import CILogonOAuthenticator
    from oauthenticator.generic import GenericOAuthenticator
    from oauthenticator.github import GitHubOAuthenticator
    from oauthenticator.globus import GlobusOAuthenticator

    class Github(People, GitHubOAuthenticator):
        by_form = False

        async def ruled(self, username, authentication, allow):
            # GitHub knows logins, and an organization's members by these.
            login = authentication["auth_state"][self.user_auth_state_key]["login"]
            return await super().ruled(login, authentication, allow)

    class Cilogon(People, CILogonOAuthenticator):
        by_form = False
        vouched = True  # by the institutions that the spec names

    class Globus(People, GlobusOAuthenticator):
        by_form = False

        @property
        def vouched(self):
            return bool(self.identity_provider)

        def called(self, info):
            # All of it: ann of one institution is not ann of another.
            return info.get(self.username_claim)

        def get_globus_tokens(self, token_info):
            return super().get_globus_tokens({"other_tokens": [], **token_info})

        async def _fetch_users_groups(self, tokens):
            if any(token["resource_server"] == "groups.api.globus.org" for token in tokens):
                return await super()._fetch_users_groups(tokens)
            return set()  # nobody asked for that token

    class Oidc(People, GenericOAuthenticator):
        by_form = False

        @property
        def addressed(self):
            # Many providers let people choose a preferred_username; another claim was chosen by who wrote the spec.
            return self.username_claim != "preferred_username"

    return {"github": Github, "cilogon": Cilogon, "globus": Globus, "oidc": Oidc}[method]
