"""The way to log in called firstuse."""

import asyncio
import dbm
from concurrent.futures import ThreadPoolExecutor
from hmac import compare_digest
from types import SimpleNamespace

import bcrypt
from vcluster_auth import People, ranked, same
from vcluster_own import Page, cut


def first_use():
    from firstuseauthenticator import FirstUseAuthenticator, firstuseauthenticator

    firstuseauthenticator.bcrypt = SimpleNamespace(hashpw=cut, gensalt=bcrypt.gensalt)

    class FirstUse(People, FirstUseAuthenticator):
        """The first password that somebody types for the name of one of the class becomes that person's."""

        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            # One thread: one dbm at a time.
            self._hasher = ThreadPoolExecutor(1)

        def get_handlers(self, app):
            return [(path, Page if path == "/login" else page) for path, page in super().get_handlers(app)]

        async def way(self, handler, data, name, person):
            password = data.get("password") or ""
            # Theirs would wait for whoever comes first and thinks of their name.
            if ranked(person):
                return same(password, self.passwords().get("admin"))
            proved = await asyncio.get_running_loop().run_in_executor(self._hasher, self._check, name, password)
            if proved is None:
                handler.custom_login_error = f"Choose a password of at least {self.min_password_length} characters."
            return bool(proved)

        def _check(self, name, password):
            """Whether it is the password; None for one that is too short to become one."""
            secret = password.encode()
            with dbm.open(self.dbm_path, "c", 0o600) as known:
                stored = known.get(name.encode())
                if stored is not None:
                    return compare_digest(cut(secret, stored), stored)
                if len(password) < self.min_password_length:
                    return None
                known[name.encode()] = cut(secret, bcrypt.gensalt())
                return True

    return FirstUse
