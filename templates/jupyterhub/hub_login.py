"""The way to log in, from hub.json into the Hub's configuration. Client secrets come from the environment."""

import json
import os
import re
import sys
import time
import urllib.request
from pathlib import Path

from hub_facts import public_url
from vcluster_auth import authenticator

TRIES = 3
SECONDS = 10

PROBLEM = "problem"
"""Beside the Hub's database: why it could not start, for who asks how it is."""


def login(c, hub, state):
    """Choose the authenticator's class and set what it needs."""
    auth = hub["auth"]
    method, options, allow = auth["method"], auth.get("options") or {}, auth["allow"]
    (state / PROBLEM).unlink(missing_ok=True)
    chosen = authenticator(method)
    c.JupyterHub.authenticator_class = chosen
    own = c[chosen.__name__]
    if method == "pam":
        own.service = "vcluster-jupyterhub"
        own.open_sessions = False
        own.executor_threads = 8
    elif method == "native":
        import nativeauthenticator

        c.JupyterHub.template_paths = [str(Path(nativeauthenticator.__file__).parent / "templates")]
        own.enable_signup = True
        own.open_signup = False
        own.minimum_password_length = 12
        own.check_common_password = True
        own.allowed_failed_logins = 0  # ours slows guessing down
    elif method == "firstuse":
        own.dbm_path = str(state / "first-use.dbm")
        own.min_password_length = 12
    elif not chosen.by_form:
        own.client_id = auth["client_id"] or ""
        own.client_secret = os.environ.get("VCLUSTER_CLIENT_SECRET", "")
        own.oauth_callback_url = f"{public_url(hub)}hub/oauth_callback"
        own.allow_all = False
        own.auth_state_groups_key = lambda _state: ()  # groups of the Hub's own are ours to give
        {"github": github, "globus": globus, "cilogon": cilogon, "oidc": oidc}[method](own, options, allow, state)


def github(own, options, allow, _state):
    if options.get("url"):
        own.github_url = options["url"]
    if allow["organizations"]:
        own.allowed_organizations = set(allow["organizations"])
        own.scope = ["read:org"]


def globus(own, options, allow, _state):
    # Its own choice asks for people's files, and not for their addresses.
    own.scope = ["openid", "profile", "email"]
    if options.get("identity_provider"):
        own.identity_provider = options["identity_provider"]
    if allow["groups"]:
        own.allowed_globus_groups = set(allow["groups"])
        own.scope = [*own.scope, "urn:globus:auth:scope:groups.api.globus.org:view_my_groups_and_memberships"]


def cilogon(own, options, allow, _state):
    claim = options.get("username_claim") or "email"
    rule = {"username_derivation": {"username_claim": claim}}
    rule |= {"allowed_domains": list(allow["domains"])} if allow["domains"] else {"allow_all": bool(allow["users"])}
    own.idps = {entity: rule for entity in re.split(r"[\s,]+", options.get("idps", "").strip()) if entity}


def oidc(own, options, allow, state):
    known, problem = discover(options["issuer"], state) if options.get("issuer") else ({}, "")
    for ours, theirs in (
        ("authorize_url", "authorization_endpoint"),
        ("token_url", "token_endpoint"),
        ("userdata_url", "userinfo_endpoint"),
    ):
        url = options.get(ours) or known.get(theirs)
        if not url:
            # systemd starts the Hub again, and nobody could log in until then anyway; `status` and `up` say why.
            (state / PROBLEM).write_text(f"nobody can log in: {problem or f'the provider tells of no {theirs}'}")
            sys.exit(problem or 1)
        setattr(own, ours, url)
    own.scope = (options.get("scope") or "openid email profile").replace(",", " ").split()
    own.username_claim = options.get("username_claim") or "preferred_username"
    own.enable_pkce = True
    own.login_service = options.get("login_service") or "your institution"
    if allow["groups"]:
        own.allowed_groups = set(allow["groups"])
        own.auth_state_groups_key = f"oauth_user.{options.get('groups_claim') or 'groups'}"


def discover(issuer, state):
    """What an issuer says of itself, or said last time when it does not answer now; and why nothing is known."""
    kept, problem = state / "oidc.json", ""
    for attempt in range(TRIES):
        try:
            address = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
            with urllib.request.urlopen(address, timeout=SECONDS) as answer:  # noqa: S310 - of the spec
                known = json.loads(answer.read(1 << 20))
            if known.get("issuer", "").rstrip("/") != issuer.rstrip("/"):
                raise ValueError(f"it calls itself {known.get('issuer')!r}")
            kept.write_text(json.dumps(known))
            return known, ""
        except (OSError, ValueError) as error:
            problem = f"{issuer}: {error}"
            sys.stderr.write(f"{problem}\n")
            time.sleep(attempt + 1)
    try:
        known = json.loads(kept.read_text())
    except (OSError, ValueError):
        known = {}
    return (known, "") if known.get("issuer", "").rstrip("/") == issuer.rstrip("/") else ({}, problem)
